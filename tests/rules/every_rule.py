"""A configuration in which every rule has a job, and the files of the user's own that it names."""

from pathlib import Path

import yaml
from workflow_copy import TINY

from dpuflow.base.foreign_file import HDF5_SIGNATURE, ONNX_BEGINS

SMALL = TINY["models"]["small"]
FURTHER = {"optimizer": "adam", "learning_rate": 1e-4, "batch_size": 32, "epochs": 1}
FILES = {"kind": "files"}
BEGINS = {".h5": HDF5_SIGNATURE, ".onnx": ONNX_BEGINS}


def vendor_target(compiler, release, **more):
    """Entry of a target for one of the vendor's compilers."""
    return {"dpu": "DPUCZDX8G_ISA1_B4096", "release": release, "compiler": compiler, **more}


def photos(**source):
    """Entry of a data set of pictures."""
    image = {"height": 8, "width": 8, "channels": 3}
    return {"source": {"kind": "pictures", **source}, "image": image, "test": {"fraction": 0.5}}


CONFIG = {
    "datasets": {
        "drawn": TINY["datasets"]["tiny"],
        "pair": {"source": FILES | {"train": "own/train.csv", "test": "own/test.csv.gz"}},
        "packed": {"source": FILES | {"zip": "own/set.zip"}},
        "foldered": {"source": FILES | {"folder": "own/folder"}},
        "fetched": {"source": {"kind": "kaggle"}},
        "photos": photos(folder="own/photos"),
        "zipped_photos": photos(zip="own/photos.zip"),
        "listed": photos(list="own/photos/list.csv"),
        "marked": photos(folder="own/marked") | {"task": "detection", "annotations": {"format": "voc"}},
        "masked": photos(folder="own/masked")
        | {"task": "segmentation", "annotations": {"format": "masks"}, "class_names": ["ground", "hand"]},
    },
    "models": {
        "small": SMALL,
        "transfer": {
            "application": "MobileNetV2",
            "weights": "own/model.h5",
            "input": dict(SMALL["input"]),
            "training": dict(FURTHER),
        },
        "further": {"starts_from": "small", "qat": True, "training": FURTHER},
        "own_h5": {"keras_h5": "own/model.h5", "input": dict(SMALL["input"])},
        "own_pb": {
            "frozen_pb": "own/model.pb",
            "input": dict(SMALL["input"]),
            "input_node": "x",
            "output_node": "y",
        },
        "own_quantized": {"quantized": "own/quantized.xmodel", "input": dict(SMALL["input"])},
        "own_xmodel": {
            "xmodel": "own/compiled.xmodel",
            "input": dict(SMALL["input"]),
            "output_node": "y",
        },
        "own_saved": {
            "saved_model": "own/saved",
            "input": dict(SMALL["input"]),
            "signature": "s",
            "output_node": "y",
        },
        "own_onnx": {
            "onnx": "own/model.onnx",
            "input": dict(SMALL["input"]),
            "input_node": "x",
            "output_node": "y",
        },
    },
    "quantizers": {
        "ours": {"tool": "reference"},
        "tf1": {"tool": "vai_q_tensorflow", "release": "3.0", "options": {"method": 1}},
        "tf2": {"tool": "vai_q_tensorflow2", "release": "2.5"},
    },
    "targets": {
        "plain": {"board": "zcu104"},
        "native": {"board": "kv260", "compiler": "native"},
        "z_tf1": vendor_target("vai_c_tensorflow", "3.0"),
        "z_tf2": vendor_target("vai_c_tensorflow2", "2.5"),
        "z_xir": vendor_target("vai_c_xir", "3.5"),
    },
    "runners": {
        "emulator": {"kind": "emulator"},
        "virtual": {"kind": "virtual_board", "options": {"threads": 1}},
        "simulator": {"kind": "isa_simulator"},
        "lab": {"kind": "ssh", "boards": [{"host": "root@board"}]},
    },
    "gates": [{"from_stage": "frozen", "to_stage": "board", "max_drop": 1}],
    "diagnose": {"images": 4, "sqnr_db": 10},
    "predict": {"images": "own/pictures"},
    "quantizer_search": {
        "dataset": "drawn",
        "model": "small",
        "grid": {"method": ["min_diffs", "non_overflow"]},
    },
    "runs": [
        {"dataset": dataset, "model": model, "quantizer": quantizer, "target": target, "runner": runner}
        for dataset, model, quantizer, target, runner in (
            ("drawn", "small", "ours", "plain", ["emulator", "virtual"]),
            ("drawn", "small", "ours", "native", ["simulator", "lab"]),
            ("drawn", "small", "ours", "z_xir", "emulator"),
            ("drawn", "small", "tf1", "z_tf1", "emulator"),
            ("drawn", "small", "tf2", "z_tf2", "emulator"),
            (
                "drawn",
                [
                    *("further", "own_h5", "own_pb", "own_saved", "own_onnx", "transfer"),
                    *("own_quantized", "own_xmodel"),
                ],
                *("ours", "plain", "emulator"),
            ),
            ("pair", "small", "ours", "plain", "emulator"),
        )
    ],
}

TARGETS = [
    *("all", "bundles", "sweep", "predict", "quantizer_search", "diagnose", "rulegraph", "dag_svg"),
    # no runs on these: the way to their images is what they add
    *(
        f"results/{name}/dataset.h5"
        for name in ("packed", "foldered", "fetched", "photos", "zipped_photos", "listed", "marked", "masked")
    ),
]
NO_JOBS_OF_THEIR_OWN = {"all", "bundles", "sweep", "predict", "quantizer_search", "diagnose"}
"""Rules that only collect files."""

OWN_FILES = [
    *("own/train.csv", "own/test.csv.gz", "own/set.zip"),
    *("own/folder/deep/sign_mnist_train.csv", "own/folder/deep/sign_mnist_test.csv"),
    *("own/model.h5", "own/model.pb", "own/model.onnx", "own/pictures/a.png"),
    *("own/quantized.xmodel", "own/compiled.xmodel"),
    *("own/saved/saved_model.pb", "own/saved/variables/variables.index"),
    *("own/photos/cat/a.png", "own/photos/dog/b.jpg", "own/photos/README.txt", "own/photos.zip"),
    *("own/marked/a.png", "own/marked/a.xml", "own/masked/images/a.png", "own/masked/masks/a.png"),
]
"""The user's own files. Dry runs do not look into them, but for the first bytes of an H5."""
OTHER_FILES = [
    *("own/other_saved/saved_model.pb", "own/other.onnx", "own/other.xmodel"),
    *("own/other.h5", "own/other.pb", "own/other.csv", "own/other.zip", "own/more/b.png"),
    *("own/key", "own/hosts", "own/more_photos/cat/a.png", "own/more_photos.zip", "own/more_photos/list.csv"),
]
"""More of them, for changed configurations."""


def add_own_files(folder):
    """Make all these files below `folder`, and the configuration."""
    for name in OWN_FILES + OTHER_FILES:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BEGINS.get(path.suffix, b"") + f"{name}\n".encode())
    Path(folder, "own/photos/list.csv").write_text("path,label\ncat/a.png,cat\n")
    Path(folder, "test.yaml").write_text(yaml.safe_dump(CONFIG))
