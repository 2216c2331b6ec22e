"""Where every artifact lies: path patterns with Snakemake's wildcards, written once for all rules.

A stage has a folder below results/, logs/ and benchmarks/jobs/: `DATA`, `TRAINED` (a network), `QUANTIZED`,
`COMPILED`, `RUN`. `of(pattern, run)` fills a pattern in for anything with the attributes dataset,
model, quantizer, target and runner.
"""

DATA = "{dataset}"
TRAINED = f"{DATA}/{{model}}"
QUANTIZED = f"{TRAINED}/{{quantizer}}"
COMPILED = f"{QUANTIZED}/{{target}}"
RUN = f"{COMPILED}/{{runner}}"

TRAIN_CSV = "resources/{dataset}/train.csv"
TEST_CSV = "resources/{dataset}/test.csv"
DATASET = "results/{dataset}/dataset.h5"
TEST_IMAGES = "results/{dataset}/test_images.npy"

KERAS_MODEL = f"results/{TRAINED}/keras_trained_model.h5"
HISTORY = f"results/{TRAINED}/history.csv"
FINETUNE = f"results/{TRAINED}/finetune.json"
ONNX_MODEL = f"results/{TRAINED}/trained_model.onnx"
ONNX_ACCURACY = f"results/{TRAINED}/onnx_accuracy.json"
KERAS_ACCURACY = f"results/{TRAINED}/keras_accuracy.json"
NODES = f"results/{TRAINED}/tf/nodes.json"
COMPLETE_GRAPH = f"results/{TRAINED}/tf/tf_complete_model.pb"
CHECKPOINT_STATE = f"results/{TRAINED}/tf/checkpoint"
CHECKPOINT = f"results/{TRAINED}/tf/tfchkpt.ckpt"
FROZEN_GRAPH = f"results/{TRAINED}/frozen_graph.pb"
NETWORK = f"results/{TRAINED}/network.h5"
FREEZE_REPORT = f"results/{TRAINED}/freeze.json"
FROZEN_ACCURACY = f"results/{TRAINED}/frozen_accuracy.json"

EVAL_GRAPH = f"results/{QUANTIZED}/quantize_eval_model.pb"
QUANTIZED_MODEL = f"results/{QUANTIZED}/quantized_model.h5"
QUANTIZATION = f"results/{QUANTIZED}/quantization.json"
KEPT_NODES = f"results/{QUANTIZED}/nodes.json"
QUANTIZED_ACCURACY = f"results/{QUANTIZED}/quantized_accuracy.json"

XMODEL = f"results/{COMPILED}/{{model}}.xmodel"
QUANTIZED_XMODEL = f"results/{COMPILED}/{{model}}.quantized.xmodel"
COMPILE_REPORT = f"results/{COMPILED}/compile.json"
ARCH = f"results/{COMPILED}/vitis_ai/arch.json"

BOARD_RECORD = f"results/{RUN}/board.json"
PREDICTIONS = f"results/{RUN}/predictions.csv"
BOARD_ACCURACY = f"results/{RUN}/board_accuracy.json"
SEARCH_TABLE = f"results/{TRAINED}/quantizer_search.csv"
SEARCH_PAGE = f"results/{TRAINED}/quantizer_search.html"
PREDICTED = f"results/predict/{COMPILED}/predictions.csv"
SKIPPED_PICTURES = f"results/predict/{COMPILED}/skipped.json"
ACCEPTED_PICTURES = "results/predict/accepted.json"
PREDICTED_PAGE = f"results/predict/{COMPILED}/predictions.html"

DEVIATION = f"results/{RUN}/deviation.json"
DEVIATION_PAGE = f"results/{RUN}/deviation.html"

GATE = f"results/{RUN}/gate.json"

CHECKPOINT_FILES = (
    CHECKPOINT_STATE,
    f"{CHECKPOINT}.data-00000-of-00001",
    f"{CHECKPOINT}.index",
    f"{CHECKPOINT}.meta",
    COMPLETE_GRAPH,
)
"""What `freeze` writes beside nodes.json."""

RUN_NAMES = ("dataset", "model", "quantizer", "target", "runner")


def of(pattern: str, run: object) -> str:
    """A pattern with the names of a run (`config.Run`, a rule's wildcards) filled in."""
    return pattern.format(**{name: getattr(run, name) for name in RUN_NAMES if f"{{{name}}}" in pattern})


def log(folder: str, job: str) -> str:
    """Pattern of a job's log; folder: the stage's folder."""
    return f"logs/{folder}/{job}.log"


def times(folder: str, job: str) -> str:
    """Pattern of the file in which Snakemake notes a job's seconds and memory."""
    return f"benchmarks/jobs/{folder}/{job}.tsv"


def report_folder(configuration: str) -> str:
    """Where the report of a configuration lies; the default one, "", has the folder above all others."""
    return f"results/report/{configuration}".rstrip("/")
