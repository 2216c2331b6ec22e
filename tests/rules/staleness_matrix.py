"""What reruns after which change: the table that test_staleness.py holds against real dry runs.

A row names a change and the jobs that depend on it directly, written "rule wildcard=value":
all jobs of that rule with these wildcards. What reads their output reruns with them (FLOW).
The names of entries are those of every_rule.CONFIG.
"""

from typing import NamedTuple

from every_rule import CONFIG, SMALL


class Row(NamedTuple):
    """A change of the configuration."""

    key: str
    """As config/README.md writes it."""
    change: dict
    """Dotted path in the configuration -> new value."""
    reruns: str
    """Jobs that depend on it directly, separated by "; "."""
    shown: bool = True
    """Whether the report shows the value, too (it shows what its runs use)."""
    new_jobs: bool = False


PICTURES = "rulegraph; dag_svg"
"""They draw the whole configuration: every change of it makes them stale."""
SHOWN = "report; provenance"

OF_PHOTOS, OF_LISTED = (f"build_picture_dataset dataset={name}" for name in ("photos", "listed"))
OF_MARKED = "build_picture_dataset dataset=marked"
OF_DRAWN, OF_PAIR = "obtain_dataset dataset=drawn", "obtain_dataset dataset=pair"
BUILD_PAIR, TRAIN, FURTHER = "build_dataset dataset=pair", "train model=small", "finetune model=further"
OF_TRANSFER, TUNING = "train model=transfer", {"epochs": 1, "learning_rate": 0.1}
QUANTIZE, LAB, VIRTUAL = "quantize_reference quantizer=ours", "run_ssh runner=lab", "run_virtual_board"
SCALE = ("evaluate_frozen", "quantize_reference", "evaluate_quantized", "bundle")
ANSWER = ("evaluate_frozen", "quantize_reference", "evaluate_quantized", "run_emulator", "bundle")
COMPILE = "compile_reference target=plain; take_xmodel"
TO_NATIVE = "compile_native target=plain; take_xmodel"
VENDOR = "quantize_vai_q_tensorflow; record_vai_q quantizer=tf1"
IMAGE = {"height": 28, "width": 28, "channels": 1}
RUNS = "report; provenance; sweep_report"
A_SHA = "0" * 64
OWN_BOARD = {"name": "mine", "cores": 2, "clock_mhz": 300}
FIRST, POOL, FLATTEN = SMALL["layers"]
CONV = FIRST["conv"]
AT_48 = {"dpu": "DPUCZDX8G_ISA1_B2304", "release": "3.0"}


def layers(name, *given):
    """Row of the key of a layer: the network of `small` with other layers in front of its end."""
    return Row(f"models.NAME.layers[].{name}", {"models.small.layers": [*given, POOL, FLATTEN]}, TRAIN)


def coloured(key, value):
    """A model whose augmentation has `key`."""
    return SMALL | {"training": SMALL["training"] | {"augmentation": {key: value}}}


def new_jobs(key, change, reruns):
    """Row of a change that makes other jobs, not only other values for the same ones."""
    return Row(key, change, reruns, new_jobs=True)


def of(model, *rules):
    """The jobs of these rules for a model."""
    return "; ".join(f"{rule} model={model}" for rule in rules)


def options(section, name, reruns, values):
    """Rows of keys below `section`.NAME, changed in the entry `name`: {key: new value}."""
    return [Row(f"{section}.NAME.{k}", {f"{section}.{name}.{k}": v}, reruns) for k, v in values.items()]


DATASETS = [
    *options("datasets", "drawn", OF_DRAWN, {
        "source.train_images": 500, "source.test_images": 100, "source.seed": 4,
    }),
    *options("datasets", "pair", OF_PAIR, {
        "source.train": "own/other.csv", "source.test": "own/other.csv",
        "source.train_sha256": A_SHA, "source.test_sha256": A_SHA,
        "source.csv.header": True, "source.csv.separator": "comma", "source.csv.label": 1,
        "source.csv.ignore": [2],
    }),
    *(Row(f"datasets.NAME.source.{k}", {f"datasets.{d}.source": v}, f"obtain_dataset dataset={d}", False)
      for k, d, v in (
          ("kind", "packed", {"kind": "synthetic"}),
          ("zip", "packed", {"kind": "files", "zip": "own/other.zip"}),
          ("folder", "foldered", {"kind": "files", "folder": "own/folder/deep"}),
          ("handle", "fetched", {"kind": "kaggle", "handle": "a/b"}),
      )),
    *(Row(f"datasets.NAME.{k}", {f"datasets.photos.{k}": v}, OF_PHOTOS, False) for k, v in {
        "source.folder": "own/more_photos", "image.resize": "pad", "image.channels": 1,
        "test.fraction": 0.25, "test.seed": 2, "class_names": ["dog", "cat"], "duplicates": "allow",
        "validation.rows": 3, "calibration.images": 2,
    }.items()),
    *(Row(f"datasets.NAME.annotations.{k}", {f"datasets.marked.annotations.{k}": v}, OF_MARKED, False)
      for k, v in {"format": "yolo", "parts": {"a": "test"}, "other_classes": "leave_out"}.items()),
    Row(
        "datasets.NAME.annotations.values", {"datasets.masked.annotations.values": [0, 255]},
        "build_picture_dataset dataset=masked", False,
    ),
    Row(
        "datasets.NAME.task", {"datasets.masked": {
            "source": {"kind": "pictures", "folder": "own/masked"}, "task": "detection",
            "annotations": {"format": "coco"}, "image": IMAGE,
        }},
        "build_picture_dataset dataset=masked", False,
    ),
    Row(
        "datasets.NAME.source.list", {"datasets.listed.source.list": "own/more_photos/list.csv"},
        OF_LISTED, False,
    ),
    Row(
        "datasets.NAME.source.zip", {"datasets.zipped_photos.source.zip": "own/more_photos.zip"},
        "build_picture_dataset dataset=zipped_photos", False,
    ),
    *options("datasets", "pair", f"{OF_PAIR}; {BUILD_PAIR}", {"class_names": ["a", "b"]}),
    *(Row(f"datasets.NAME.image.{k}", {"datasets.pair.image": IMAGE | {k: v}}, f"{OF_PAIR}; {BUILD_PAIR}")
      for k, v in {"height": 27, "width": 27, "channels": 3}.items()),
    *options("datasets", "pair", BUILD_PAIR, {
        "duplicates": "allow", "validation.rows": 20, "validation.fraction": 0.2, "validation.take": "last",
        "validation.seed": 2, "calibration.images": 24, "calibration.seed": 2,
    }),
]  # fmt: skip

LAYERS = [
    *(layers(f"conv.{k}", {"conv": CONV | {k: v}}) for k, v in {
        "filters": 4, "kernel": 5, "stride": 2, "padding": "valid",
        "batch_norm": "none", "activation": "relu6", "dilation": 2,
    }.items()),
    layers("conv.groups", FIRST, {"conv": {"filters": 2, "groups": 2}}),
    *(layers(f"depthwise_conv.{k}", FIRST, {"depthwise_conv": {k: v}}) for k, v in {
        "kernel": 5, "stride": 2, "padding": "valid", "dilation": 2, "multiplier": 2,
        "batch_norm": "before_activation", "activation": "relu",
    }.items()),
    layers("dense", FIRST, {"dense": 9}),
    *(layers(f"dense.{k}", FIRST, {"dense": {"units": 9} | {k: v}}) for k, v in {
        "units": 8, "batch_norm": "before_activation", "activation": "relu",
    }.items()),
    *(layers(f"{pool}_pool.{k}", FIRST, {f"{pool}_pool": {k: v}}) for pool in ("max", "avg") for k, v in {
        "kernel": 3, "stride": 1, "padding": "same",
    }.items()),
    layers("max_pool", FIRST, {"max_pool": 2}),
    layers("avg_pool", FIRST, {"avg_pool": 2}),
    *(layers(f"transposed_conv.{k}", FIRST, {"transposed_conv": {"filters": 3} | {k: v}}) for k, v in {
        "filters": 4, "kernel": 3, "stride": 1, "batch_norm": "before_activation",
        "activation": "relu"}.items()),
    layers("upsample", FIRST, {"upsample": 2}),
    layers("space_to_depth", FIRST, {"space_to_depth": 2}),
    layers("depth_to_space", {"conv": {"filters": 4}}, {"depth_to_space": 2}),
    layers("squeeze_excite", FIRST, {"squeeze_excite": 2}),
    *(layers(f"upsample.{k}", FIRST, {"upsample": {"factor": 2} | {k: v}}) for k, v in {
        "factor": 3, "interpolation": "bilinear"}.items()),
    layers("dropout", FIRST, {"dropout": 0.1}),
    layers("residual.layers", FIRST, {"residual": {"layers": [FIRST]}}),
    layers("residual.layers[]", FIRST, {"residual": {"layers": [FIRST, FIRST]}}),
    layers("residual.activation", FIRST, {"residual": {"layers": [FIRST], "activation": "none"}}),
    layers("concat.branches", FIRST, {"concat": {"branches": [[FIRST], [FIRST]]}}),
    # of a detector, and no run has one here
    Row("models.NAME.layers[].head.anchors",
        {"models.detector": SMALL | {"layers": [FIRST, {"head": {"anchors": 2}}]}}, "", shown=False),
    layers("concat.branches[][]", FIRST, {"concat": {"branches": [[FIRST], [FIRST, FIRST]]}}),
]  # fmt: skip

MODELS = [
    *options("models", "small", TRAIN, {
        "input.subtract": 0, "input.divide": 255, "input.order": "bgr",
        "training.optimizer": "sgd", "training.learning_rate": 0.1, "training.decay": 0.1,
        "training.schedule": "cosine", "training.batch_size": 16, "training.epochs": 3,
        "training.restore_best": False, "training.augmentation.rotation": 5,
        "training.augmentation.zoom": 0.1, "training.augmentation.shift": 0.1,
        "training.augmentation.shear": 0.1,
        "training.augmentation.flip": True, "training.augmentation.flip_vertical": True,
        "training.augmentation.brightness": 0.1,
        "training.augmentation.contrast": 0.1, "training.augmentation.noise": 1,
        "training.augmentation.crop": 0.1,
    }),
    *(Row(f"models.NAME.decode.{k}", {"models.small.decode": {"kind": "yolov3"} | {k: v}}, TRAIN)
      for k, v in {
        "kind": "yolov5", "outputs": ["head1"], "anchors": "auto", "strides": [8], "sizes": [9, 18],
        "ratios": [[2]], "variances": [0.1, 0.1], "background": "none", "scores": "sigmoid",
        "form": "corners", "scale": "picture", "objectness": True, "labels": "all", "score_threshold": 0.1,
        "iou_threshold": 0.3, "max_boxes": 50, "candidates": 500, "show_threshold": 0.5,
      }.items()),
    # only for colour, and no run trains on it here
    *(Row(f"models.NAME.training.augmentation.{k}", {"models.colour": coloured(k, v)}, "", shown=False)
      for k, v in {"saturation": 0.1, "hue": 5}.items()),
    *options("models", "transfer", OF_TRANSFER, {
        "application": "MobileNet", "weights": "own/other.h5", "alpha": 0.5, "head": ["flatten"],
        "freeze_until": "head", "fine_tuning": {"epochs": 1, "learning_rate": 0.1},
    }),
    Row("models.NAME.head[]", {"models.transfer.head": ["global_average_pool", "flatten"]}, OF_TRANSFER),
    *(Row(f"models.NAME.fine_tuning.{k}", {"models.transfer.fine_tuning": TUNING | {k: v}}, OF_TRANSFER)
      for k, v in {"epochs": 2, "learning_rate": 0.2, "batch_size": 4, "freeze_until": "head"}.items()),
    # an own H5 is only copied: its scaling counts where pixels are scaled
    *options("models", "own_h5", of("own_h5", "evaluate_keras", "freeze", *SCALE), {"input.subtract": 0}),
    *options("models", "own_pb", of("own_pb", *SCALE), {"input.divide": 255}),
    *options("models", "own_h5", "import_keras", {"keras_h5": "own/other.h5"}),
    *options("models", "own_pb", "import_frozen", {
        "frozen_pb": "own/other.pb", "input_node": "in", "output_node": "out",
    }),
    *options("models", "own_quantized", of("own_quantized", "evaluate_quantized", "import_quantized"), {
        "input.divide": 255,
    }),
    *options("models", "own_quantized", "import_quantized", {"quantized": "own/other.xmodel"}),
    *options("models", "own_xmodel", "take_xmodel", {
        "xmodel": "own/other.xmodel", "input.divide": 255, "output_node": "z",
    }),
    *options("models", "own_saved", of("own_saved", *SCALE), {"input.divide": 255}),
    *options("models", "own_saved", "import_saved_model", {
        "saved_model": "own/other_saved", "signature": "other", "output_node": "out",
    }),
    *options("models", "own_onnx", of("own_onnx", "import_onnx", "evaluate_onnx", *SCALE), {
        "input.divide": 255,
    }),
    *options("models", "own_onnx", "import_onnx", {"onnx": "own/other.onnx"}),
    *options("models", "own_onnx", "import_onnx; evaluate_onnx", {"input_node": "in", "output_node": "out"}),
    *options("models", "own_onnx", of("own_onnx", *ANSWER, "import_onnx", "evaluate_onnx"), {"output": "z"}),
    Row(
        "models.NAME.input_node",  # exchanged: Snakemake compares the set of a rule's params
        {"models.own_pb.input_node": "y", "models.own_pb.output_node": "x"},
        "import_frozen",
    ),
    *options("models", "further", FURTHER, {
        "training.epochs": 2, "starts_from": "own_h5", "qat": False, "input": {"subtract": 0, "divide": 1},
    }),
]  # fmt: skip

QUANTIZERS = [
    new_jobs(
        "quantizers.NAME.tool",
        {
            "quantizers.tf1": {"tool": "vai_q_tensorflow2", "release": "3.0"},
            "targets.z_tf1.compiler": "vai_c_tensorflow2",
        },
        "quantize_vai_q_tensorflow2 quantizer=tf1; record_vai_q quantizer=tf1",
    ),
    *options("quantizers", "ours", QUANTIZE, {
        "method": "non_overflow", "compat": "vai_q", "calibration.images": 24, "calibration.batch": 8,
        "batch_norm_after_activation": "depthwise", "equalization": True, "equalization.sweeps": 3,
        "position_search.criterion": None, "position_search.images": 24, "position_search.sweeps": 1,
        "bias_correction": True, "fast_finetune": False, "fast_finetune.rows": 100, "fast_finetune.sweeps": 1,
        "fast_finetune.reach": 2, "fast_finetune.ridge": 0.2, "diagnosis": False,
    }),
    *options("quantizers", "tf1", f"vitis_ai_bundle quantizer=tf1; {VENDOR}", {
        "calibration.images": 24, "calibration.batch": 8,
    }),
    *options("quantizers", "tf1", VENDOR, {"options": {"method": 0}}),
    Row(
        "quantizers.NAME.release",
        {"quantizers.tf1.release": "2.5", "targets.z_tf1.release": "2.5"},
        f"{VENDOR}; vitis_ai_arch target=z_tf1",
    ),
]  # fmt: skip

TARGETS = [
    Row("targets.NAME.dpu", {"targets.plain": AT_48}, COMPILE),
    *options("targets", "plain", COMPILE, {"release": "2.5", "board": "zcu102", "on_cpu": "allow"}),
    *(Row(f"targets.NAME.board.{k}", {"targets.plain": AT_48 | {"board": OWN_BOARD | {k: v}}}, COMPILE)
      for k, v in {"name": "yours", "cores": 1, "clock_mhz": 200, "memory_gb_s": 4}.items()),
    *options("targets", "z_tf1", "record_vai_c target=z_tf1", {"on_cpu": "allow"}),
    *options("targets", "z_tf1", "compile_vai_c_tensorflow", {"compiler_options": {"mode": "debug"}}),
    *options("targets", "z_xir", "compile_vai_c_xir", {"compiler_options": {"mode": "debug"}}),
    new_jobs("targets.NAME.compiler", {"targets.plain.compiler": "native"}, TO_NATIVE),
]  # fmt: skip

RUNNERS = [
    new_jobs("runners.NAME.kind", {"runners.virtual.kind": "emulator"},
             "run_emulator runner=virtual; diagnose_run runner=virtual"),
    *options("runners", "virtual", VIRTUAL, {
        "options.threads": 2, "options.batch": 8, "options.limit": 9, "options.warmup": 1, "options.runs": 2,
    }),
    *options("runners", "lab", LAB, {
        "options.threads": 2, "wait_s": 1, "timeout_s": 1, "restarts": 2, "poll_s": 1, "stale_after_s": 1,
    }),
    *(Row(f"runners.NAME.boards[].{k}", {f"runners.lab.boards.0.{k}": v}, LAB) for k, v in {
        "host": "root@other", "port": 23, "identity": "own/key", "ssh_config": "none",
        "known_hosts": "own/hosts",
        "python": "python", "folder": "there", "environment": {"A": "1"}, "lock": "/tmp/lock",
        "fingerprint": "0x101000056010407", "connect_timeout_s": 1, "call_timeout_s": 1,
        "transfer_timeout_s": 1, "retries": 1, "backoff_s": 2,
    }.items()),
    # what its kind does not read makes no job of it stale
    *options("runners", "emulator", "", {"options.threads": 2}),
]  # fmt: skip

LAST = f"runs.{len(CONFIG['runs']) - 1}"
OTHERS = [
    Row("seed", {"seed": 9}, "train; finetune"),
    new_jobs("name", {"name": "other"}, RUNS),
    new_jobs("runs[].dataset", {f"{LAST}.dataset": "packed"}, f"train dataset=packed; {RUNS}"),
    new_jobs("runs[].model", {f"{LAST}.model": "own_pb"}, f"import_frozen dataset=pair; {RUNS}"),
    new_jobs(
        "runs[].quantizer",
        {f"{LAST}.quantizer": "more", "quantizers.more": {"tool": "reference", "compat": "vai_q"}},
        f"quantize_reference quantizer=more; {RUNS}",
    ),
    new_jobs("runs[].target", {f"{LAST}.target": "native"}, f"compile_native dataset=pair; {RUNS}"),
    new_jobs("runs[].runner", {f"{LAST}.runner": "virtual"}, f"run_virtual_board dataset=pair; {RUNS}"),
    new_jobs("runs[].seed", {f"{LAST}.seed": 5}, f"train model=small-s5; {RUNS}"),
    Row(
        "vitis_ai.images",
        {"vitis_ai": {"images": {"3.0": {"tensorflow": "docker://own/image:1"}}}},
        "quantize_vai_q_tensorflow; predict_vai_q_tensorflow; compile_vai_c_tensorflow",
        shown=False,
    ),
    *(Row(f"gates[].{k}", {f"gates.0.{k}": v}, "gate", shown=False) for k, v in {
        "from_stage": "keras", "to_stage": "quantized", "max_drop": 2, "min_agreement": 0.5,
    }.items()),
    *(Row(f"predict.{k}", {f"predict.{k}": v}, "predict_pictures", shown=False) for k, v in {
        "images": "own/more", "invert": True, "top": 5,
    }.items()),
    *(Row(f"diagnose.{k}", {f"diagnose.{k}": v}, "diagnose_run", shown=False) for k, v in {
        "images": 2, "sqnr_db": 20,
    }.items()),
    Row(
        "quantizer_search.grid", {"quantizer_search.grid": {"method": "min_diffs"}}, "search_quantizer", False
    ),
    *(Row(f"quantizer_search.{k}", {f"quantizer_search.{k}": v}, reruns, False, True) for k, v, reruns in (
        ("dataset", "pair", "search_quantizer dataset=pair"),
        ("model", "further", "search_quantizer model=further"),
        ("seed", 5, "train model=small-s5; search_quantizer"),
    )),
    Row("images", {"images": "own/more"}, "predict_pictures", shown=False),
    # an entry that no run uses
    Row("models", {"models.unused": {"frozen_pb": "own/other.pb"}}, "", shown=False),
]  # fmt: skip

ROWS = [*DATASETS, *LAYERS, *MODELS, *QUANTIZERS, *TARGETS, *RUNNERS, *OTHERS]

FLOW = {
    "build_dataset": "diagnose_run bundle compile_native evaluate_frozen evaluate_keras evaluate_onnx "
    "evaluate_quantized evaluate_vai_q finetune freeze gate import_frozen import_keras import_onnx "
    "import_quantized import_saved_model predict_pictures quantize_reference record_vai_q run_emulator "
    "run_isa_simulator search_quantizer take_xmodel train vitis_ai_bundle vitis_ai_test_images RESULTS",
    "bundle": "run_ssh run_virtual_board",
    "compile_native": "diagnose_run bundle predict_pictures run_isa_simulator RESULTS",
    "compile_reference": "diagnose_run bundle predict_pictures run_emulator RESULTS",
    "compile_vai_c_tensorflow": "record_vai_c",
    "compile_vai_c_tensorflow2": "record_vai_c",
    "compile_vai_c_xir": "record_vai_c",
    "diagnose_run": "RESULTS",
    "evaluate_frozen": "gate RESULTS",
    "evaluate_keras": "gate RESULTS",
    "evaluate_onnx": "gate RESULTS",
    "evaluate_quantized": "gate run_emulator run_isa_simulator run_ssh run_virtual_board RESULTS",
    "evaluate_vai_q": "gate run_emulator RESULTS",
    "export_quantized": "compile_vai_c_xir provenance",
    "finetune": "evaluate_keras freeze quantize_reference RESULTS",
    "freeze": "diagnose_run evaluate_frozen evaluate_quantized quantize_reference record_vai_q "
    "search_quantizer quantize_vai_q_tensorflow vitis_ai_bundle RESULTS",
    "import_frozen": "diagnose_run evaluate_frozen evaluate_quantized quantize_reference RESULTS",
    "import_keras": "evaluate_keras freeze RESULTS",
    "import_quantized": "diagnose_run compile_reference evaluate_quantized RESULTS",
    "import_onnx": "diagnose_run evaluate_frozen evaluate_onnx evaluate_quantized quantize_reference RESULTS",
    "import_saved_model": "diagnose_run evaluate_frozen evaluate_quantized quantize_reference RESULTS",
    "obtain_dataset": "build_dataset provenance",
    "predict_pictures": "accept_pictures",
    "predict_vai_q_tensorflow": "evaluate_vai_q",
    "predict_vai_q_tensorflow2": "evaluate_vai_q",
    "quantize_reference": "diagnose_run compile_native compile_reference evaluate_quantized "
    "export_quantized RESULTS",
    "quantize_vai_q_tensorflow": "compile_vai_c_tensorflow predict_vai_q_tensorflow record_vai_q RESULTS",
    "quantize_vai_q_tensorflow2": "compile_vai_c_tensorflow2 predict_vai_q_tensorflow2 record_vai_q RESULTS",
    "record_vai_c": "diagnose_run bundle predict_pictures run_emulator RESULTS",
    "record_vai_q": "RESULTS",
    "report": "provenance",
    "run_emulator": "gate RESULTS",
    "run_isa_simulator": "gate RESULTS",
    "run_ssh": "diagnose_run gate RESULTS",
    "run_virtual_board": "diagnose_run gate RESULTS",
    "take_xmodel": "diagnose_run bundle predict_pictures run_emulator RESULTS",
    "train": "evaluate_keras finetune freeze quantize_vai_q_tensorflow2 RESULTS",
    "vitis_ai_arch": "compile_vai_c_tensorflow compile_vai_c_tensorflow2 compile_vai_c_xir",
    "vitis_ai_bundle": "compile_vai_c_tensorflow predict_vai_q_tensorflow predict_vai_q_tensorflow2 "
    "quantize_vai_q_tensorflow quantize_vai_q_tensorflow2",
    "vitis_ai_test_images": "predict_vai_q_tensorflow predict_vai_q_tensorflow2",
}
"""Rule -> rules that read what it writes; RESULTS: report, sweep_report and provenance."""


def readers(rule):
    """The rules that read what a rule writes."""
    return set(FLOW.get(rule, "").replace("RESULTS", "report sweep_report provenance").split())
