"""Layer lists that do not fit their images or their targets are said before anything is trained."""

import pytest
from test_user_files import own

from dpuflow.workflow.network_checks import unfit_networks


def network(config, *layers):
    config["models"]["signnet"]["layers"] = list(layers)
    return config


@pytest.mark.fault("configuration", "layers that do not fit: {id}", "message")
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [{"conv": {"filters": 5000, "activation": "relu"}}, "global_average_pool"],
            "models.signnet.layers[0].conv (conv): output channels is 5000, allowed at most 4096",
        ),
        (["flatten", {"dense": 5000}], "models.signnet.layers[1].dense (dense): output channels is 5000"),
        (
            [{"conv": {"filters": 8, "kernel": 9}}, {"max_pool": 8}, {"max_pool": 8}, "flatten"],
            "models.signnet.layers[2].max_pool: leaves an empty map (0 x 0 x 8)",
        ),
        ([{"conv": {"filters": 8}}], "the last layer leaves a map of 28 x 28 x 8; end the list with flatten"),
        (
            ["flatten", {"conv": {"filters": 8}}],
            "layers[1].conv: needs a map, but its input is a vector of 784",
        ),
        (
            [{"concat": {"branches": [[{"max_pool": 2}], [{"conv": {"filters": 4}}]]}}, "flatten"],
            "layers[0].concat: branches end in 14 x 14 x 1 and 28 x 28 x 4; all but the",
        ),
        (
            [{"residual": {"layers": [{"conv": {"filters": 4, "padding": "valid"}}]}}, "global_average_pool"],
            "layers[0].residual: its layers leave 26 x 26 x 4, which a 1x1 convolution of its input",
        ),
    ],
)
def test_layers_that_do_not_fit_are_said_before_training(config, schema, layers, message):
    (found,) = unfit_networks(network(config, *layers))
    assert message in found and found.endswith("(on the 28 x 28 x 1 images of synthetic_signs)")


def test_layers_may_leave_the_dpu_where_the_target_allows_it(config):
    network(config, {"conv": {"filters": 5000}}, "global_average_pool")
    config["targets"]["kv260"]["on_cpu"] = "warn"
    assert unfit_networks(config) == []


def test_the_shipped_networks_fit_every_target(config):
    config["runs"][0] |= {"model": list(config["models"]), "target": list(config["targets"])}
    assert unfit_networks(config) == []


def test_what_native_has_no_code_for_is_said_before_training(config, tmp_path):
    """A window that the DPU could run: the compiler `reference` takes it, `native` has no code for it."""
    source = {"kind": "files", "train": f"{tmp_path}/a.csv", "test": f"{tmp_path}/b.csv"}
    own(config, datasets={"source": source, "image": {"height": 200, "width": 200}})
    network(config, {"conv": {"filters": 40}}, "global_average_pool")
    assert unfit_networks(config) == []
    config["runs"][0]["target"] = "kv260_native"
    (found,) = unfit_networks(config)
    assert "models.signnet.layers[1] (global_average_pool) (avg_pool): window is 200x200 on 40" in found
    config["targets"]["kv260_native"]["on_cpu"] = "warn"
    assert unfit_networks(config) == []


@pytest.mark.parametrize("form", ["train", "folder", "zip"])
def test_the_size_of_the_images_comes_from_the_first_line(config, tmp_path, form):
    import zipfile

    header = "label," + ",".join(f"pixel{i}" for i in range(1, 16 * 16 + 1)) + "\n"
    for part in ("train", "test"):
        (tmp_path / f"{part}.csv").write_text(header)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for part in ("train", "test"):
            archive.writestr(f"deep/{part}.csv", header)
    source = {
        "train": {"train": f"{tmp_path}/train.csv", "test": f"{tmp_path}/test.csv"},
        "folder": {"folder": str(tmp_path)},
        "zip": {"zip": f"{tmp_path}/a.zip"},
    }[form]
    own(config, datasets={"source": {"kind": "files", **source}})
    (found,) = unfit_networks(network(config, {"max_pool": 20}, "flatten"))
    assert found.endswith("leaves an empty map (0 x 0 x 1) (on the 16 x 16 x 1 images of own)")
    config["datasets"]["own"]["image"] = {"height": 40, "width": 20, "channels": 3}
    assert unfit_networks(config) == []


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (
            {"anchors": [[[8, 8]], [[20, 20], [30, 30]]]},
            "decode.anchors: head1 has 16 channels; yolov5 with 3 classes (class_names of the data set) has "
            "1 anchors x 8 = 8; all heads: head1 8x8x16, head2 4x4x16",
        ),
        ({"anchors": [[[8, 8], [9, 9]]]}, "decode.anchors: 1 entries for 2 scales (head1, head2)"),
        ({"anchors": "auto", "strides": [8, 32]}, "decode.strides: 32 for head2, whose map of 4 x 4"),
        ({"anchors": "auto", "outputs": ["head1", "head3"]}, "decode.outputs: the network has no head3"),
    ],
)
def test_decode_that_does_not_fit_the_heads_is_said_before_anything_runs(config, decode, message):
    config["datasets"]["synthetic_signs"] = {
        "task": "detection",
        "source": {"kind": "pictures", "folder": "none"},
        "annotations": {"format": "voc"},
        "image": {"height": 64, "width": 64, "channels": 3},
        "class_names": ["a", "b", "c"],
    }
    head = {"head": {"anchors": 2}}
    layers = [{"conv": {"filters": 8, "stride": 8}}, head, {"conv": {"filters": 8, "stride": 2}}, head]
    config["models"]["signnet"]["decode"] = {"kind": "yolov5", "anchors": "auto"}
    assert unfit_networks(network(config, *layers)) == []
    config["models"]["signnet"]["decode"] = {"kind": "yolov5"} | decode
    (found,) = unfit_networks(config)
    assert f"models.signnet.{message}" in found
