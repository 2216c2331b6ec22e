"""What this board is: DPU fingerprint, runtime versions, operating system.

Python 3.6 or later; part of a dpuflow bundle, next to app.py.
"""

import json
import platform
import re
import shutil
import subprocess


class AppError(Exception):
    """A mistake with a remedy; printed without a traceback."""


def run_tool(*command):
    """Standard output of a program, or None when it is absent or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def parse_xdputil(text):
    """(the JSON that `xdputil query` prints, list of DPU fingerprints)."""
    start = text.find("{")  # some images log lines before it
    try:
        data = json.loads(text[start:]) if start >= 0 else {}
    except ValueError:
        data = {}
    found = [kernel.get("fingerprint") for kernel in data.get("kernels", []) if kernel.get("fingerprint")]
    if not found:
        found = re.findall(r'"fingerprint"\s*:\s*"(0x[0-9a-fA-F]+)"', text)
    values = [int(word, 16) for word in found]
    return data, [value for value in values if value]  # 0: a kernel that is no DPU


def query():
    """What this board is, as a dict for JSON; unknown things are None."""
    answer = {
        "fingerprint": None,
        "fingerprint_from": None,
        "emulated": False,
        "runtime": {},
        "xdputil": None,
        "os": os_release(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    fingerprints = []
    text = run_tool("xdputil", "query")
    if text:
        answer["xdputil"], fingerprints = parse_xdputil(text)
        answer["fingerprint_from"] = "xdputil query"
    if not fingerprints:
        text = run_tool("show_dpu")
        words = re.findall(r"fingerprint\s*=\s*(0x[0-9a-fA-F]+)", text or "")
        fingerprints = [int(word, 16) for word in words]
        answer["fingerprint_from"] = "show_dpu" if fingerprints else None
    if len(set(fingerprints)) > 1:
        raise AppError("the DPU cores differ: {}".format(", ".join(map(hex, fingerprints))))
    if fingerprints:
        answer["fingerprint"] = hex(fingerprints[0])
        answer["cores"] = len(fingerprints)
    for name in ("xir", "vart"):
        try:
            module = __import__(name)
        except Exception as error:  # a broken library raises anything
            answer["runtime"][name] = f"missing: {error}"
            continue
        answer["runtime"][name] = str(getattr(module, "__version__", "present, version not given"))
        answer["emulated"] = answer["emulated"] or bool(getattr(module, "EMULATED", False))
    return answer


def os_release():
    """PRETTY_NAME of /etc/os-release."""
    try:
        with open("/etc/os-release", encoding="utf-8") as stream:
            match = re.search(r'^PRETTY_NAME="?([^"\n]*)', stream.read(), re.M)
    except OSError:
        return None
    return match.group(1) if match else None
