# What all rules share: the checked configuration, wildcard constraints.

import functools
import time

STARTED = time.time()

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from dpuflow.datasets.locate import expand
from dpuflow.tfgraph.saved_model import saved_model_files
from dpuflow.datasets.picture_changes import fingerprint_of
from dpuflow.workflow import artifacts as made  # where every artifact lies
from dpuflow.workflow import run_files
from dpuflow.workflow.config import FLOAT_ORIGINS, Settings, check, configuration_name, expand_runs, sort_keys
from dpuflow.base.errors import UserError
from dpuflow.base.importing import export_package
from dpuflow.quantize.settings import steps
from dpuflow.report.summary import summary
from dpuflow.workflow.terminal import quieten

export_package(ROOT)

try:
    check(config, ROOT / "config/config.schema.yaml")
except UserError as error:
    raise WorkflowError(str(error)) from None

if workflow.is_main_process:
    quieten(logger.handlers, workflow.output_settings, lambda: workflow.local_exec)

SETTINGS = Settings(config)
RUNS = expand_runs(config)
NAME = configuration_name(
    config, workflow.overwrite_configfiles or (), DEFAULTS
)  # a second configuration has a report of its own
REPORT = made.report_folder(NAME)


def is_made(path):
    """Whether a rule, of this workflow or of one that has it as a module, makes this file."""
    return any(rule.is_producer(path) for rule in workflow.rules)


def user_file(path):
    """A file of the user's as an input; nothing if it neither exists nor is made.

    A missing input would only make Snakemake take the old results for good. Without it the job's inputs
    are others than last time, so it runs, and its script says what is missing.
    """
    path = str(expand(path))
    return path if os.path.exists(path) or is_made(path) else []


def weights_file(model):
    """The file of weights that a model begins with, as an input."""
    weights = model.get("weights", "none")
    return [] if weights == "none" else user_file(weights)


@functools.cache
def pictures_of(dataset):
    """Stands for the picture files of a data set: asked once, in place of thousands of input files."""
    entry = SETTINGS.dataset(dataset)
    return fingerprint_of(entry["source"], annotated="annotations" in entry)


def quantized_before(w):
    """The accuracy of the quantized network, which a compiled xmodel of the user's does not have."""
    return made.of(made.QUANTIZED_ACCURACY, w) if "quantized" in SETTINGS.stages(w.model) else []


def judged_by(w):
    """What boxes and masks off a board are judged by; the classes of pictures are in the bundle."""
    return (
        []
        if SETTINGS.dataset(w.dataset).get("task", "classification") == "classification"
        else made.of(made.DATASET, w)
    )


def relative(path):
    """A file of the workflow as an input: relative where Snakemake was started in the workflow's folder."""
    return Path(path) if Path.cwd() == ROOT else ROOT / path


def growing(mem_mb):
    """Memory in MB that grows with each attempt of a job: for profiles with `retries`."""
    return lambda wildcards, attempt: mem_mb * attempt


def report_the_rest():
    """After a failed job: a report on what was made, if a report was to be written."""
    unfinished = [job for job in workflow.dag.needrun_jobs() if not workflow.dag.finished(job)]
    if not any(job.rule.name == "report" for job in unfinished):
        return
    from dpuflow.report.partial import write_partial_report  # here: costs a second, and only now
    from dpuflow.report.provenance import commit, provenance
    from dpuflow.workflow.failures import UnfinishedJob, what_there_is

    jobs = [
        UnfinishedJob(
            job.rule.name,
            dict(job.wildcards_dict),
            [str(path) for path in job.output],
            [str(path) for path in job.log],
            STARTED,
        )
        for job in unfinished
    ]
    entries, failures = what_there_is(run_files.report_entries(SETTINGS, RUNS), jobs)
    about = provenance(SETTINGS.used_by(RUNS), ["snakemake all"], commit(os.path.relpath(ROOT)))
    print(write_partial_report(entries, failures, REPORT, about), file=sys.stderr)


# Groups: on a cluster the small stages of a run travel as one job (ignored where jobs run locally).
# data -> (training, alone) -> graph -> int8; a rule between two of the same group belongs to it, too.

# Threads: what only measures a network has one, because most of its time is the start of TensorFlow, which
# uses one core: two such jobs run side by side on two cores.


wildcard_constraints:
    dataset="|".join(config["datasets"]),
    model=r"[A-Za-z0-9][A-Za-z0-9_]*(-s[0-9]+)?",
    quantizer="|".join(config["quantizers"]),
    target="|".join(config["targets"]),
    runner="|".join(config["runners"]),
