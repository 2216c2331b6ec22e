import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.network.quantized_file import read_quantized, write_quantized


@pytest.fixture
def quantized():
    rng = np.random.default_rng(1)
    conv = Layer(
        "conv1", "conv", ["input"], (4, 4, 2),
        {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1), "activation": "RELU"},
        rng.normal(size=(2, 3, 3, 1)).astype(np.float32), np.array([0.5, -1], np.float32),
    )  # fmt: skip
    dense = Layer(
        "dense", "dense", ["flat"], (3,), {"activation": "NONE"},
        rng.normal(size=(3, 32)).astype(np.float32), None,
    )  # fmt: skip
    network = Network(
        "net",
        [
            Layer("input", "input", [], (4, 4, 1)),
            conv,
            Layer("flat", "flatten", ["conv1"], (32,)),
            dense,
            Layer("softmax", "softmax", ["dense"], (3,)),
        ],
    )
    return QuantizedNetwork(
        network,
        {"input": 7, "conv1": 5, "flat": 5, "dense": 3},
        {
            "conv1": (rng.integers(-128, 128, (2, 3, 3, 1), np.int8), 6),
            "dense": (rng.integers(-128, 128, (3, 32), np.int8), 8),
        },
        {"conv1": (np.array([-128, 127], np.int8), 9)},
        {"subtract": 128, "divide": 128},
    )


def test_round_trip(tmp_path, quantized):
    path = tmp_path / "q.h5"
    write_quantized(path, quantized)
    back = read_quantized(path)
    assert back.fix_points == quantized.fix_points
    assert back.input_scaling == quantized.input_scaling
    assert [(x.name, x.op, x.inputs, x.shape, x.attrs) for x in back.network.layers] == [
        (x.name, x.op, x.inputs, x.shape, x.attrs) for x in quantized.network.layers
    ]
    for table, expected in ((back.weights, quantized.weights), (back.biases, quantized.biases)):
        assert table.keys() == expected.keys()
        for name, (data, fix_point) in expected.items():
            assert (table[name][0] == data).all() and table[name][1] == fix_point
    assert (back.network["conv1"].weights == quantized.network["conv1"].weights).all()
    assert back.shift_cut("conv1") == 7 + 6 - 5 and back.shift_bias("conv1") == 7 + 6 - 9


def test_bytes_depend_on_content_only(tmp_path, quantized):
    write_quantized(tmp_path / "a.h5", quantized)
    write_quantized(tmp_path / "b.h5", read_quantized(tmp_path / "a.h5"))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.fault("models", "quantized_model.h5 truncated or foreign", "refused")
@pytest.mark.parametrize("cut", [0, 10, 500, -1])
def test_truncated_or_foreign_files_are_refused_by_name(tmp_path, quantized, cut):
    path = tmp_path / "q.h5"
    write_quantized(path, quantized)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"q\.h5"):
        read_quantized(path)
