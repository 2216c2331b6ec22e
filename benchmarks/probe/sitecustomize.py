"""Notes where the start of a job goes: on PYTHONPATH (benchmarks/job_start.py) every Python imports it.

In a process that runs a script of Snakemake, and in no other, it times the imports of some
packages and appends one line of JSON to the file named by DPUFLOW_PROBE.
"""

import json
import os
import re
import resource
import sys
import time

PACKAGES = ("numpy", "h5py", "pandas", "google.protobuf", "jinja2", "jsonschema", "tensorflow", "tf_keras")
SCRIPT = re.compile(r"\.snakemake/scripts/tmp\w+\.(\w+)\.py$")


def now():
    """Seconds since the process began, its CPU seconds, its greatest memory in MB."""
    with open("/proc/self/stat", encoding="ascii") as stream:
        begun = int(stream.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    with open("/proc/self/status", encoding="ascii") as stream:
        # not ru_maxrss, which begins with what Snakemake had when it forked
        memory = next(int(line.split()[1]) for line in stream if line.startswith("VmHWM")) / 1024
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - begun
    return [seconds, usage.ru_utime + usage.ru_stime, memory]


class Probe:
    """A finder that finds nothing itself: it times the loading of what the others find."""

    def __init__(self, script):
        self.record = {"script": script, "marks": {}, "packages": {}}

    def mark(self, name):
        self.record["marks"].setdefault(name, now())

    def find_spec(self, name, path=None, target=None):
        if name == "dpuflow":
            self.mark("first import of dpuflow")
        if name not in (*PACKAGES, "dpuflow.workflow.scripting"):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((s for f in others if (s := f.find_spec(name, path, target))), None)
        if spec and spec.loader:
            self.wrap(name, spec.loader)
        return spec

    def wrap(self, name, loader):
        load = loader.exec_module

        def exec_module(module):
            before = now()
            load(module)
            if name == "dpuflow.workflow.scripting":
                self.watch_run(module)
            else:
                self.record["packages"][name] = [b - a for a, b in zip(before, now(), strict=True)]

        loader.exec_module = exec_module

    def watch_run(self, module):
        run = module.run

        def watched(main, namespace):
            def watched_main(snakemake):
                self.mark("main")
                try:
                    main(snakemake)
                finally:  # here, because `run` may leave the process
                    self.mark("end")
                    with open(os.environ["DPUFLOW_PROBE"], "a", encoding="utf-8") as stream:
                        stream.write(json.dumps(self.record) + "\n")

            run(watched_main, namespace)

        module.run = watched


if "DPUFLOW_PROBE" in os.environ and (found := SCRIPT.search(sys.orig_argv[-1])):
    sys.meta_path.insert(0, Probe(found[1]))
