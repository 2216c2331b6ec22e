"""What reruns after an edit of which file: the second half of the matrix.

Scripts, environments and the user's files are listed by hand. What a module of
dpuflow makes stale is derived here from the syntax trees of the scripts and modules, on
another way than the rules take (dpuflow/workflow/code_closure.py reads by patterns); a few rows
by hand hold both against a third opinion.
"""

import ast
import functools
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PICTURES = "rulegraph; dag_svg"
SCRIPTS = {
    "build_dataset": "build_dataset",
    "accept_pictures": "accept_pictures",
    "build_picture_dataset": "build_picture_dataset",
    "bundle": "bundle",
    "compile_native": "compile_native",
    "compile_reference": "compile_reference",
    "diagnose": "diagnose_run",
    "draw_workflow": PICTURES,
    "evaluate_frozen": "evaluate_frozen",
    "evaluate_keras": "evaluate_keras",
    "evaluate_onnx": "evaluate_onnx",
    "evaluate_outputs": "evaluate_vai_q",
    "evaluate_quantized": "evaluate_quantized",
    "export_quantized": "export_quantized",
    "finetune": "finetune",
    "freeze": "freeze",
    "gate": "gate",
    "import_frozen": "import_frozen",
    "import_keras": "import_keras",
    "import_quantized": "import_quantized",
    "import_saved_model": "import_saved_model",
    "import_onnx": "import_onnx",
    "obtain_dataset": "obtain_dataset",
    "predict": "predict_pictures",
    "provenance": "provenance",
    "quantize_reference": "quantize_reference",
    "quantizer_search": "search_quantizer",
    "record_vai_c": "record_vai_c",
    "record_vai_q": "record_vai_q",
    "report": "report",
    "run_emulator": "run_emulator",
    "run_isa_simulator": "run_isa_simulator",
    "run_ssh": "run_ssh",
    "run_virtual_board": "run_virtual_board",
    "sweep_report": "sweep_report",
    "take_xmodel": "take_xmodel",
    "train": "train",
    "vitis_ai_arch": "vitis_ai_arch",
    "vitis_ai_bundle": "vitis_ai_bundle",
    "vitis_ai_test_images": "vitis_ai_test_images",
}
"""Stem of scripts/*.py -> rules that run it."""

WITH_TENSORFLOW = (
    "train; finetune; import_keras; import_saved_model; freeze; evaluate_keras; evaluate_frozen; "
    "quantize_reference; evaluate_quantized; provenance"
)
ENVIRONMENTS = {
    "tensorflow": WITH_TENSORFLOW,
    "test": "run_emulator; run_isa_simulator; run_virtual_board; run_ssh; "
    "record_vai_q; record_vai_c; evaluate_vai_q",
    "onnx": "import_onnx; evaluate_onnx; import_quantized",
    "report": "report; sweep_report",
    "dpuflow": "obtain_dataset; build_dataset; build_picture_dataset; import_frozen; "
    "take_xmodel; compile_reference; "
    "compile_native; bundle; "
    "gate; predict_pictures; accept_pictures; rulegraph; dag_svg; search_quantizer; diagnose_run; "
    "vitis_ai_bundle; vitis_ai_test_images; vitis_ai_arch; export_quantized",
}
"""Stem of envs/*.yaml -> rules that run in it, with or without --sdm conda."""

APPLICATION = (
    *(
        "answers.py",
        "app.py",
        "board_info.py",
        "bundle_files.py",
        "found.py",
        "named.py",
        "cpu_floats.py",
        "cpu_integers.py",
    ),
    *("cpu_ops.py", "cpu_rare.py", "cpu_resizing.py", "cpu_windows.py", "parts.py", "pixels.py"),
)
CONTAINER_PROGRAMS = ("quantize_keras.py", "predict_frozen.py", "predict_keras.py")
"""Files of dpuflow/foreign/board and dpuflow/foreign/vitis_ai."""

OTHERS = {
    "own/train.csv": "obtain_dataset dataset=pair",
    "own/test.csv.gz": "obtain_dataset dataset=pair",
    "own/set.zip": "obtain_dataset dataset=packed",
    "own/folder/deep/sign_mnist_train.csv": "obtain_dataset dataset=foldered",
    "own/folder/deep/sign_mnist_test.csv": "obtain_dataset dataset=foldered",
    "own/model.h5": "import_keras; train model=transfer",
    "own/model.pb": "import_frozen",
    "own/quantized.xmodel": "import_quantized",
    "own/compiled.xmodel": "take_xmodel",
    "own/saved/saved_model.pb": "import_saved_model",
    "own/saved/variables/variables.index": "import_saved_model",
    "own/model.onnx": "import_onnx",
    # the list names a.png alone, and says itself what lies beside it
    "own/photos/cat/a.png": "build_picture_dataset dataset=photos; build_picture_dataset dataset=listed",
    "own/photos/dog/b.jpg": "build_picture_dataset dataset=photos",
    "own/photos/dog/added.webp": "build_picture_dataset dataset=photos",
    "own/photos/list.csv": "build_picture_dataset dataset=listed",
    "own/photos/README.txt": "",
    "own/marked/a.png": "build_picture_dataset dataset=marked",
    "own/marked/a.xml": "build_picture_dataset dataset=marked",
    "own/masked/images/a.png": "build_picture_dataset dataset=masked",
    "own/masked/masks/a.png": "build_picture_dataset dataset=masked",
    "own/photos.zip": "build_picture_dataset dataset=zipped_photos",
    "own/pictures/a.png": "predict_pictures",
    "own/pictures/added.png": "predict_pictures",
    # rules count by what they ask for (inputs, params, commands); the pictures draw them
    "Snakefile": PICTURES,
    "rules/*.smk": PICTURES,
}
"""Path or pattern -> jobs that depend on it directly."""

NOTHING = [
    *("README.md", "LICENSE", "CITATION.cff", "Makefile", "pyproject.toml", "docs/architecture.md"),
    *("config/README.md", "config/config.yaml", "config/config.schema.yaml", "config/sign_mnist.yaml"),
    *("config/schemas/quantizer_reference.schema.yaml", "config/vitis_ai.yaml", "config/pictures.yaml"),
    *("report/accuracy.rst", "report/workflow.rst"),
    *("profiles/default/config.yaml", "profiles/slurm/config.yaml"),
    # versions count by the pins in envs/, which repeat these (a test compares them)
    *("requirements.txt", "requirements-test.txt", "constraints.txt"),
    *("tests/conftest.py", "benchmarks/emulator.py", "own/unused.csv"),
]
"""A comment or a sentence more in these makes nothing stale."""

BY_HAND = {
    "dpuflow/training/augmentation.py": "train; finetune",
    "dpuflow/training/fake_quant.py": "finetune",
    "dpuflow/datasets/synthetic_signs.py": "obtain_dataset; build_dataset",
    "dpuflow/tfgraph/checkpoint.py": "freeze; evaluate_frozen; evaluate_quantized",
    "dpuflow/quantize/folding.py": "finetune; import_quantized; quantize_reference; search_quantizer",
    "dpuflow/dpuczdx8g/cost_model.py": "compile_reference; compile_native",
    "dpuflow/deviation/difference.py": "diagnose_run",
    "dpuflow/dpuczdx8g/native/lowering.py": "compile_native; diagnose_run",
    "dpuflow/dpuczdx8g/isa/machine.py": (
        "bundle; run_isa_simulator; run_virtual_board; run_ssh; compile_native; diagnose_run"
    ),
    **{f"dpuflow/foreign/board/{name}": "bundle; run_virtual_board; run_ssh" for name in APPLICATION},
    **{f"dpuflow/foreign/vitis_ai/{name}": "vitis_ai_bundle" for name in CONTAINER_PROGRAMS},
    "dpuflow/foreign/agent.py": "run_ssh",
    "dpuflow/virtual_board/vart_api.py": "run_virtual_board",
    "dpuflow/virtual_board/bin/xdputil": "run_virtual_board",
    "dpuflow/accuracy/gate.py": "gate",
    "dpuflow/report/page.py": "report; sweep_report; predict_pictures; search_quantizer; diagnose_run",
    "dpuflow/report/templates/accuracy.html.j2": "report",
    "dpuflow/report/templates/sweep.html.j2": "sweep_report",
    "dpuflow/report/templates/predictions.html.j2": "predict_pictures",
    "dpuflow/report/templates/report.css": "report; sweep_report; predict_pictures; search_quantizer; "
    "diagnose_run",
    "dpuflow/emulator/native/convolve.c": "run_emulator; run_isa_simulator; run_virtual_board; run_ssh; "
    "import_quantized; take_xmodel; "
    "predict_pictures; compile_native; search_quantizer; bundle; diagnose_run; "
    # the quantizer lets the emulator answer
    "quantize_reference; finetune; vitis_ai_bundle; record_vai_c; record_vai_q",
    "dpuflow/vitis_ai/tool_logs.py": "record_vai_q; record_vai_c",
    "dpuflow/records/schemas/provenance.schema.yaml": "provenance",
    "dpuflow/records/schemas/sweep.schema.yaml": "sweep_report",
    "dpuflow/records/schemas/arch.schema.yaml": "vitis_ai_arch",
    "dpuflow/workflow/rulegraph.py": PICTURES,
    "dpuflow/workflow/code_closure.py": "",
    "dpuflow/workflow/run_files.py": "",
    "dpuflow/workflow/config_docs.py": "",
}
"""Files of the package for which the derivation must say this."""

EVALUATIONS = ("evaluate_keras", "evaluate_onnx", "evaluate_frozen", "evaluate_quantized", "evaluate_outputs")
RUNS = ("run_emulator", "run_isa_simulator", "run_virtual_board", "run_ssh")
READS_NODES = ("quantize_reference", "record_vai_q", "quantizer_search", "vitis_ai_bundle")
SCHEMAS = {
    "accepted": ("scripts/accept_pictures.py",),
    "accuracy": (
        "dpuflow/accuracy/evaluation.py",
        *(f"scripts/{name}.py" for name in (*EVALUATIONS, *RUNS, "diagnose")),
    ),
    "arch": ("scripts/vitis_ai_arch.py",),
    "board": (
        "dpuflow/virtual_board/run.py",
        "dpuflow/board/compare.py",
        "dpuflow/board/ssh.py",
        "scripts/diagnose.py",
    ),
    "common": ("dpuflow/records/__init__.py",),
    "compile": (
        "dpuflow/report/inputs.py",
        *(f"scripts/{name}.py" for name in ("compile_native", "compile_reference", "record_vai_c")),
    ),
    "deviation": ("dpuflow/report/inputs.py", "scripts/diagnose.py"),
    "detection": ("dpuflow/task/detection.py",),
    "finetune": (
        "dpuflow/records/schemas/quantization.schema.yaml",
        *("scripts/finetune.py", "scripts/quantize_reference.py"),
    ),
    "freeze": ("dpuflow/report/inputs.py", "scripts/freeze.py"),
    "gate": ("dpuflow/report/inputs.py", "scripts/gate.py"),
    "nodes": (
        *(f"scripts/{name}.py" for name in (*READS_NODES, "evaluate_frozen", "evaluate_quantized")),
        *(f"scripts/{name}.py" for name in ("freeze", "import_onnx", "import_quantized")),
        "dpuflow/tfgraph/take_over.py",
    ),
    "provenance": ("scripts/provenance.py",),
    "quantization": (
        *("dpuflow/quantize/reference.py", "dpuflow/report/inputs.py", "scripts/evaluate_quantized.py"),
        "scripts/record_vai_q.py",
    ),
    "report": ("dpuflow/report/accuracy.py",),
    "segmentation": ("dpuflow/task/segmentation.py",),
    "skipped": ("scripts/accept_pictures.py", "scripts/predict.py"),
    "sweep": ("dpuflow/report/sweep.py",),
}
"""Schema of a record -> files that write or read it, or refer to it."""

KERNELS = (
    *("program.h", "vectors.h", "epilogue.h", "run.h", "bands.c", "crew.c", "pixels.c"),
    *("convolve.c", "depthwise.c", "pool.c", "elementwise.c", "resize.c", "run.c"),
)
DATA_OF = {
    **{f"dpuflow/records/schemas/{name}.schema.yaml": users for name, users in SCHEMAS.items()},
    **{f"dpuflow/emulator/native/{name}": "dpuflow/emulator/c_kernels.py" for name in KERNELS},
    "dpuflow/device/targets.yaml": "dpuflow/device/targets.py",
    "dpuflow/vitis_ai/releases.yaml": "dpuflow/vitis_ai/releases.py",
    **{f"dpuflow/foreign/board/{name}": "dpuflow/board/application.py" for name in APPLICATION},
    **{f"dpuflow/foreign/vitis_ai/{name}": "dpuflow/vitis_ai/programs.py" for name in CONTAINER_PROGRAMS},
    "dpuflow/foreign/agent.py": "dpuflow/board/connection.py",
    "dpuflow/virtual_board/bin/xdputil": "dpuflow/virtual_board/run.py",
    "dpuflow/virtual_board/xdputil.py": "dpuflow/virtual_board/bin/xdputil",
    "dpuflow/virtual_board/site/vart/__init__.py": "dpuflow/virtual_board/run.py",
    "dpuflow/virtual_board/site/xir/__init__.py": "dpuflow/virtual_board/run.py",
    "dpuflow/report/templates/accuracy.html.j2": "dpuflow/report/accuracy.py",
    "dpuflow/report/templates/accuracy.md.j2": "dpuflow/report/accuracy.py",
    "dpuflow/report/templates/run.html.j2": "dpuflow/report/accuracy.py",
    "dpuflow/report/templates/sweep.html.j2": "dpuflow/report/sweep.py",
    "dpuflow/report/templates/predictions.html.j2": "dpuflow/predict/answers.py",
    "dpuflow/report/templates/found.html.j2": "dpuflow/report/templates/run.html.j2",
    "dpuflow/report/templates/found_pictures.html.j2": "dpuflow/predict/found.py",
    "dpuflow/report/templates/quantizer_search.html.j2": "dpuflow/report/quantizer_search.py",
    "dpuflow/report/templates/deviation.html.j2": "dpuflow/report/deviation.py",
    "dpuflow/report/templates/roofline.html.j2": "dpuflow/report/roofline.py",
    "dpuflow/dpuczdx8g/isa/templates/timeline.html.j2": "dpuflow/dpuczdx8g/isa/timeline.py",
    "dpuflow/dpuczdx8g/isa/templates/timeline.svg.j2": "dpuflow/dpuczdx8g/isa/timeline.py",
    "dpuflow/dpuczdx8g/isa/templates/engines.svg.j2": "dpuflow/dpuczdx8g/isa/timeline.py",
    "dpuflow/report/templates/deviation_table.html.j2": "dpuflow/report/deviation.py",
    "dpuflow/report/templates/base.html.j2": "dpuflow/report/page.py",
    "dpuflow/report/templates/macros.html.j2": "dpuflow/report/page.py",
    "dpuflow/report/templates/report.css": "dpuflow/report/page.py",
    "dpuflow/report/templates/report.js": "dpuflow/report/page.py",
}
"""File that no import statement names -> file that reads or runs it, or several."""


def package_files(repo):
    """Every file of the package, but compiled ones."""
    files = (path for path in (repo / "dpuflow").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted(path.relative_to(repo).as_posix() for path in files)


def modules(repo):
    """{file of the package: rules that depend on it directly, "" for none}."""
    found = {path: [] for path in package_files(repo)}
    for script, rules in SCRIPTS.items():
        for path in needed(f"scripts/{script}.py", repo):
            found[path].append(rules)
    return {path: "; ".join(rules) for path, rules in found.items()}


def needed(start, repo):
    """Files of the package that the file `start` comes to, by import statements and DATA_OF."""
    found, queue = set(), [start]
    while queue:
        path = queue.pop()
        new = {file for file in imported(repo, path) if (repo / file).is_file()}
        new |= {
            data
            for data, users in DATA_OF.items()
            if path in (users if isinstance(users, tuple) else (users,))
        }
        queue.extend(new - found)
        found |= new
    return found


@functools.cache
def imported(repo, path):
    """Files that the import statements of a Python file may mean, packages above them included."""
    if not path.endswith(".py"):
        return frozenset()
    names = set()
    for node in ast.walk(ast.parse(Path(repo, path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.removesuffix(".py").split("/")[: -node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == "dpuflow":
            for depth in range(1, len(parts) + 1):
                base = "/".join(parts[:depth])
                found |= {f"{base}.py", f"{base}/__init__.py"}
    return frozenset(found)
