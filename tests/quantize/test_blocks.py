"""Many pictures in bounded memory: blocks, files, cores; the same results whatever of them is used."""

import tracemalloc

import numpy as np
import pytest

from dpuflow.base.pixels import scale_pixels
from dpuflow.quantize import answers, blocks, engine, equalization, reconstruction
from dpuflow.quantize.calibration import grids
from dpuflow.quantize.folding import fold
from dpuflow.quantize.output_search import affordable_pictures
from dpuflow.quantize.reference import quantize
from dpuflow.tfgraph.graph_reader import read_network
from tests.hand_network import hand_network
from tests.quantize.frozen_networks import GraphMaker, images, plain_network, residual_network

SCALING = {"subtract": 128, "divide": 128}


class Reader:
    """Images as a file gives them: slices only, and none of it an array."""

    def __init__(self, array):
        self.array, self.dtype, self.shape = array, array.dtype, array.shape
        self.most = 0

    def __len__(self):
        return len(self.array)

    def __getitem__(self, which):
        found = self.array[which]
        self.most = max(self.most, len(found))
        return found


def same(one, other):
    assert one.fix_points == other.fix_points
    for table, expected in ((one.weights, other.weights), (one.biases, other.biases)):
        assert table.keys() == expected.keys()
        for name, (values, fix_point) in table.items():
            assert fix_point == expected[name][1]
            np.testing.assert_array_equal(values, expected[name][0])


def test_a_file_gives_back_what_was_written():
    file = blocks.FileArray((7, 3, 2), np.dtype(np.float32))
    values = np.arange(42, dtype=np.float32).reshape(7, 3, 2)
    file[4:7], file[0:4] = values[4:], values[:4]
    np.testing.assert_array_equal(file[2:6], values[2:6])
    np.testing.assert_array_equal(file[:], values)
    assert len(file) == 7
    with pytest.raises(ValueError, match="in runs only"):
        file[::2]
    file.close()


@pytest.mark.parametrize("cores", [1, 3])
def test_blocks_come_in_order_on_any_number_of_cores(cores):
    with blocks.on_cores(cores):
        assert blocks.in_blocks(lambda which: (which.start, which.stop), 7, 3) == [(0, 3), (3, 6), (6, 7)]
        assert blocks.cores() == cores
    assert blocks.cores() == 1


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_layer_by_layer_gives_what_the_whole_network_gives(tmp_path, monkeypatch, memory):
    """In memory and in files; what is read no more is forgotten."""
    monkeypatch.setattr(blocks, "MEMORY_BYTES", memory)
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 5000)
    network, _ = fold(read_network(residual_network(tmp_path / "g.pb")))
    x = scale_pixels(images(9), SCALING)
    names = [layer.name for layer in blocks.needed(network)]
    expected = engine.run_float(network, x, names)
    flow = blocks.Flow(network, len(x), np.float32)
    kinds, alive = set(), 0
    with blocks.on_cores(2):
        for layer in blocks.needed(network):
            if layer.op == "input":
                flow.compute(layer, x.__getitem__)
            else:
                flow.compute(layer, lambda which, layer=layer: flow.real(layer, which))
            np.testing.assert_allclose(flow[layer.name][:], expected[layer.name], rtol=1e-5, atol=1e-6)
            kinds.add(type(flow[layer.name]))
            alive = max(alive, len(flow._values))
    assert kinds == {np.ndarray if memory else blocks.FileArray}
    assert alive < len(names)
    most = max(sum(np.prod(v.shape[1:]) for v in (flow[n] for n in flow._values)), 1)
    assert most <= blocks.live_values(network)


@pytest.mark.parametrize("make", [plain_network, residual_network])
def test_cores_files_and_readers_change_nothing(tmp_path, monkeypatch, make):
    network = read_network(make(tmp_path / "g.pb"))
    settings = {"bias_correction": True, "diagnosis": True}
    expected, report = quantize(network, images(), settings, SCALING, threads=1)
    found, again = quantize(network, images(), settings, SCALING, threads=2)
    same(found, expected)
    assert again == report
    monkeypatch.setattr(blocks, "MEMORY_BYTES", 0)
    monkeypatch.setattr(blocks, "IMAGE_BYTES", 1000)
    reader = Reader(images())
    found, again = quantize(network, reader, settings, SCALING, threads=2, test_images=[images(seed=8)])
    same(found, expected)
    assert again == report
    assert reader.most < len(reader)


def test_memory_does_not_grow_with_the_pictures(tmp_path, monkeypatch):
    """Four times as many pictures, whose pixels alone would take 3 MiB more."""
    for name, most in (("MEMORY_BYTES", 1 << 19), ("IMAGE_BYTES", 1 << 18), ("BLOCK_VALUES", 1 << 16)):
        monkeypatch.setattr(blocks, name, most)
    monkeypatch.setattr("dpuflow.quantize.output_search.SEARCH_VALUES", 1 << 17)
    g = GraphMaker((64, 64, 1))
    x = g.pool(g.op("Relu", g.conv(g.input, 1, 4, stride=2)), size=8)
    network = read_network(g.write(tmp_path / "g.pb", g.dense(g.flatten(x, 64), 64, 5)))
    settings = {"fast_finetune": {"rows": 200, "sweeps": 1}, "calibration": {"batch": 8}}

    def peak(count):
        reader = blocks.FileArray((count, 64, 64, 1), np.dtype(np.uint8))
        for start in range(0, count, 64):
            reader[start : start + 64] = images(64, seed=start, size=64)
        tracemalloc.start()
        quantize(network, reader, settings, SCALING, threads=1)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few = peak(256)
    # of two, as a table of the interpreter's own (2 MiB) may happen to be enlarged in one of them
    assert min(peak(1024), peak(1024)) < few + (1 << 20)


def test_the_emulator_gives_the_integers_of_the_engine(monkeypatch):
    quantized = hand_network()
    for layer in quantized.network.layers:  # only their integers matter
        layer.weights = layer.bias = None
    x = np.random.default_rng(2).uniform(-1, 1, (40, 13, 11, 3)).astype(np.float32)
    names = ["add", "flat", "fc2"]
    given = grids(quantized.fix_points, engine.by_input(quantized.network, x))
    expected = engine.run_integer(quantized, given, names)
    for least in (0, 1 << 60):
        monkeypatch.setattr(answers, "WORTH_COMPILING", least)
        with blocks.on_cores(2):
            found = answers.integer_values(quantized, x, names)
        assert list(found) == names
        for name in names:
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name], expected[name])


def test_large_networks_are_searched_with_fewer_pictures(tmp_path):
    small = read_network(plain_network(tmp_path / "g.pb"))
    assert affordable_pictures(small, 256) == 256
    g = GraphMaker((1024, 1024, 1))
    x = g.pool(g.op("Relu", g.conv(g.input, 1, 3)), size=1024)
    large = read_network(g.write(tmp_path / "h.pb", g.dense(g.flatten(x, 3), 3, 5)))
    assert affordable_pictures(large, 256) == 16
    assert affordable_pictures(large, 4) == 4


def test_a_relu6_channel_is_scaled_as_far_as_its_peak_allows(tmp_path):
    g = GraphMaker()
    x = g.op("Relu6", g.conv(g.input, 1, 8))
    network, _ = fold(read_network(g.write(tmp_path / "g.pb", g.dense(g.flatten(x, 1152), 1152, 5))))
    (head,) = equalization.capped(network)
    uneven = np.geomspace(0.01, 30, 8, dtype=np.float32)
    head.weights, head.bias = head.weights * uneven.reshape(-1, 1, 1, 1), head.bias * uneven
    x = scale_pixels(images(), SCALING)
    peaks = reconstruction.channel_peaks(network, x, [head.name])
    assert peaks[head.name].min() < 1 and peaks[head.name].max() == 6
    expected, before = engine.run_float(network, x)[network.output.name], head.weights.copy()
    (pair,) = equalization.equalize(network, peaks=peaks)
    np.testing.assert_allclose(engine.run_float(network, x)[network.output.name], expected, atol=1e-4)
    scales = (head.weights / before).reshape(8, -1)[:, 0]
    np.testing.assert_allclose(scales[peaks[head.name] == 6], 1)
    assert scales.max() > 2 and pair["largest"] == pytest.approx(scales.max())
    assert (scales * peaks[head.name])[scales > 1].max() <= 6 / equalization.RESERVE * 1.0001
