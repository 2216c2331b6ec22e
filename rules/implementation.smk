# What each rule is made of (script and modules, environment, container, command), as params that it gets here.
#
# Snakemake compares params by content. Its triggers for code and software go by a script's time, know no imports, and
# count environments only with --sdm; the profiles leave them out.

import hashlib
from functools import cache

from dpuflow.workflow.code_closure import code_digest


@cache
def script_digest(script):
    return f"{script} and what it imports: {code_digest(script, ROOT)}"


@cache
def environment_digest(path):
    # a workflow that has this one as a module may name an environment of conda's instead of a file
    return f"{path.name}: {hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else 'by name'}"


def implementation(entry):
    """{param: function of the wildcards}, the digest of each part that a rule has."""
    folder = Path(entry.basedir.get_path_or_uri(secret_free=True))
    parts = {}
    script = (folder / entry.script).resolve() if entry.script else None
    if script and script.is_relative_to(ROOT.resolve()):
        parts["code"] = lambda wildcards: script_digest(script.relative_to(ROOT.resolve()).as_posix())
    if entry.shellcmd:
        command = hashlib.sha256(entry.shellcmd.encode()).hexdigest()
        parts["command"] = lambda wildcards: f"shell command: {command}"
    if entry.conda_env:
        parts["environment"] = lambda wildcards: environment_digest(folder / entry.conda_env)
    if entry.container_img:
        parts["container"] = lambda wildcards: f"container: {entry.expand_container_img(wildcards)}"
    return parts


def is_ours(entry):
    """Not a rule of a workflow that has this one as a module."""
    folder = Path(entry.basedir.get_path_or_uri(secret_free=True)).resolve()
    return folder in (ROOT.resolve(), (ROOT / "rules").resolve())


for entry in list(workflow.rules):
    if is_ours(entry) and not {"code", "command"} & set(entry.params.keys()):
        entry.set_params(**implementation(entry))
