"""Kills a job's process with SIGKILL in the middle of its writing; nothing in dpuflow knows of it.

Python imports this module by itself where its folder is on PYTHONPATH. Of each rule's processes the first one
that comes to rename an output of the workflow is killed: before the rename, or, where the rule has several
outputs, right after the first one has its name. A compiler of the vendor's (a stand-in here) writes without a
rename: it is killed when half of the file is there.

KILLER_NOTES is a folder: a rule with a note there was killed and is left alone. KILLER_RULES, if set, names
the rules to kill (with spaces between). KILLER_DOES says what happens: kill (the process), power_failure
(Snakemake dies, too), kill_snakemake (only that), stop (the process waits for SIGCONT), keep (the script with
its job's values is copied to RULE.py in KILLER_NOTES, and nothing happens).
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

NOTES = os.environ.get("KILLER_NOTES")
DOES = os.environ.get("KILLER_DOES", "kill")
ONLY = os.environ.get("KILLER_RULES", "").split()
PROGRAMS = {
    "vai_q_tensorflow.py": "quantize_vai_q_tensorflow",
    "quantize_keras.py": "quantize_vai_q_tensorflow2",
    "predict_frozen.py": "predict_vai_q_tensorflow",
    "predict_keras.py": "predict_vai_q_tensorflow2",
    "vai_c_tensorflow.py": "compile_vai_c_tensorflow",
    "vai_c_tensorflow2.py": "compile_vai_c_tensorflow2",
    "vai_c_xir.py": "compile_vai_c_xir",
}
"""Program of a rule with a shell command -> the rule."""

_replace, _write_bytes = os.replace, Path.write_bytes


def rule_and_outputs():
    """(rule that this process is of, number of its outputs), or (None, 0)."""
    job = getattr(sys.modules.get("__main__"), "snakemake", None)
    if hasattr(job, "rule"):
        return job.rule, len(job.output)
    names = {Path(word).name for word in sys.orig_argv[:3]}
    return next(((rule, 1) for program, rule in PROGRAMS.items() if program in names), (None, 0))


def victim(path):
    """The rule to kill at the writing of `path`, and the number of its outputs."""
    rule, outputs = rule_and_outputs()
    inside = Path(os.path.abspath(path)).is_relative_to(os.getcwd())
    if rule is None or not inside or (ONLY and rule not in ONLY) or Path(NOTES, rule).exists():
        return None, 0
    return rule, outputs


def snakemakes():
    """Ids of the Snakemake processes above this one, the uppermost first."""
    found, process = [], os.getppid()
    while process > 1:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        if b"snakemake" in words and b"-m" in words:
            found.insert(0, process)
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def die(rule, where, path):
    """Note what lies beside `path` under a final name, and do what KILLER_DOES says."""
    beside = {
        str(p.relative_to(os.getcwd())): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(Path(os.path.abspath(path)).parent.iterdir())
        if p.is_file() and not p.name.startswith(".") and ".partial." not in p.name
    }
    note = {"where": where, "at": os.path.relpath(path), "beside": beside, "process": os.getpid()}
    _write_bytes(Path(NOTES, rule), json.dumps(note).encode())
    if DOES == "keep" and ".snakemake" in sys.argv[0]:
        shutil.copy(sys.argv[0], Path(NOTES, f"{rule}.py"))
    if DOES in ("power_failure", "kill_snakemake"):
        for process in snakemakes():
            os.kill(process, signal.SIGKILL)
    if DOES in ("kill", "power_failure"):
        os.kill(os.getpid(), signal.SIGKILL)
    if DOES == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)


def replace(source, target, **options):
    rule, outputs = victim(target)
    if rule is None:
        return _replace(source, target, **options)
    if outputs > 1:
        _replace(source, target, **options)
        die(rule, "after the first output", target)
    else:
        die(rule, "before the rename", target)
        _replace(source, target, **options)


def write_bytes(self, data):
    if "vai_c_" not in " ".join(sys.orig_argv[:3]):
        return _write_bytes(self, data)
    rule, _ = victim(self)
    if rule is None:
        return _write_bytes(self, data)
    _write_bytes(self, data[: len(data) // 2])
    die(rule, "half of the file written", self)
    return _write_bytes(self, data)


if NOTES:
    os.replace, Path.write_bytes = replace, write_bytes
