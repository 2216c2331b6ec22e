"""`xir` and `vart` of the virtual board: the calls applications make, and their misuse."""

import numpy as np
import pytest
from small_model import small_images

from dpuflow.emulator import Emulator
from dpuflow.virtual_board import device
from dpuflow.virtual_board.vart_api import Runner
from dpuflow.virtual_board.xir_api import Graph


@pytest.fixture
def graph(xmodel):
    return Graph.deserialize(str(xmodel))


@pytest.fixture
def subgraph(graph):
    children = graph.get_root_subgraph().toposort_child_subgraph()
    return next(s for s in children if s.get_attr("device") == "DPU")


@pytest.fixture
def runner(subgraph):
    return Runner.create_runner(subgraph, "run")


def buffers(runner, dtype=np.int8):
    tensors = runner.get_input_tensors(), runner.get_output_tensors()
    return ([np.zeros(tensor.dims, dtype) for tensor in side] for side in tensors)


def test_looking_into_a_model(graph, subgraph):
    root = graph.get_root_subgraph()
    assert root.is_root and not root.is_leaf and root.get_parent() is None
    names = [(s.get_name(), s.get_attr("device")) for s in root.toposort_child_subgraph()]
    assert [device for _, device in names] == ["USER", "DPU", "CPU"]
    assert root.get_children_num() == 3 == len(root.get_children())
    assert subgraph.get_attr("dpu_fingerprint") == 0x101000056010407
    assert subgraph.has_attr("runner") and not subgraph.has_attr("nothing")
    assert "workload" in subgraph.get_attrs()
    assert subgraph.has_op("conv_1") and subgraph.get_op_num() == len(subgraph.get_ops())
    op = graph.get_op("conv_1")
    assert op.get_type() == "conv2d-fix" and op.get_attr("kernel") == [3, 3]
    assert op.get_input_ops()["weights"][0].get_name().startswith("conv_1")
    tensor = op.get_output_tensor()
    assert (tensor.dims, tensor.ndim, tensor.dtype) == ([1, 12, 12, 8], 4, "xint8")
    assert tensor.get_attr("fix_point") == 5 and tensor.producer.get_name() == "conv_1"
    assert (tensor.get_element_num(), tensor.get_data_size()) == (1152, 1152)
    assert graph.get_op("nobody") is None
    assert graph.toposort()[0].get_name() == "image"
    assert graph.get_op_num() == len(graph.get_ops())


def test_running(runner, xmodel):
    (feed,), (answer,) = buffers(runner)
    (source,), (result,) = runner.get_input_tensors(), runner.get_output_tensors()
    assert (source.dims, result.dims) == ([1, 12, 12, 1], [1, 5])
    assert (source.get_attr("fix_point"), result.get_attr("fix_point")) == (7, 1)
    emulator = Emulator(xmodel)
    expected = emulator.run(emulator.quantize_input(small_images(5)[0]), dump=True)["dense"].reshape(5, 5)
    for image, values in zip(emulator.quantize_input(small_images(5)[0]), expected, strict=True):
        feed[0] = image
        job = runner.execute_async([feed], [answer])
        assert isinstance(job, tuple) and runner.wait(job) == 0
        assert np.array_equal(answer[0], values)


def test_a_device_that_takes_several_images(subgraph, monkeypatch):
    monkeypatch.setenv("DPUFLOW_VIRTUAL_BATCH", "3")
    runner = Runner.create_runner(subgraph, "run")
    assert runner.get_input_tensors()[0].dims == [3, 12, 12, 1]
    assert runner.get_output_tensors()[0].dims == [3, 5]


def test_a_cpu_subgraph_runs_too(graph):
    child = graph.get_root_subgraph().toposort_child_subgraph()[-1]
    runner = Runner.create_runner(child, "ref")
    (feed,), (answer,) = (
        [np.zeros(t.dims, {"xint8": np.int8, "float32": np.float32}[t.dtype]) for t in side]
        for side in (runner.get_input_tensors(), runner.get_output_tensors())
    )
    feed[0, 2] = 4  # fix_point 1: e^2
    runner.wait(runner.execute_async([feed], [answer]))
    assert answer[0, 2] == pytest.approx(np.exp(2) / (np.exp(2) + 4))


@pytest.mark.fault("xmodel", "model that the board's runtime cannot read", "refused")
def test_models_that_cannot_be_read(tmp_path):
    with pytest.raises(RuntimeError, match="no such file"):
        Graph.deserialize(str(tmp_path / "none.xmodel"))
    (tmp_path / "bad.xmodel").write_bytes(b"\xff" * 50)
    with pytest.raises(RuntimeError, match="XIR_READ_PB_FAILURE"):
        Graph.deserialize(str(tmp_path / "bad.xmodel"))


def test_attributes_that_are_not_there(subgraph):
    with pytest.raises(RuntimeError, match="XIR_UNREGISTERED_ATTR"):
        subgraph.get_attr("nothing")


def test_runners_that_cannot_be_made(graph, subgraph):
    root = graph.get_root_subgraph()
    user = root.toposort_child_subgraph()[0]
    for wrong in (root, user):
        with pytest.raises(RuntimeError, match=r"VART_RUNNER_CONSTRUCTION_FAIL.*no attribute `runner`"):
            Runner.create_runner(wrong, "run")
    for mode in ("", "fast"):
        with pytest.raises(RuntimeError, match="no runner for mode"):
            Runner.create_runner(subgraph, mode)
    with pytest.raises(TypeError):
        Runner.create_runner("subgraph", "run")


@pytest.mark.fault("board", "wrong buffer: {id}", "refused")
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda a: a.astype(np.float64), RuntimeError, "unsupported data type"),
        (lambda a: a.astype(np.uint8), RuntimeError, "unsupported data type"),
        (lambda a: a.astype(np.float32), RuntimeError, "does not convert"),
        (lambda a: a[:, ::2], RuntimeError, "not contiguous"),
        (lambda a: a[:, :11].copy(), RuntimeError, "VART_SIZE_MISMATCH"),
        (lambda a: np.broadcast_to(a, a.shape), ValueError, "read-only"),
        (lambda a: a.tolist(), TypeError, "NumPy arrays"),
    ],
)
def test_wrong_buffers(runner, change, error, words):
    (feed,), (answer,) = buffers(runner)
    with pytest.raises(error, match=words):
        runner.execute_async([change(feed)], [answer])
    assert not answer.any()


@pytest.mark.fault("board", "wrong number of buffers", "refused")
def test_wrong_numbers_of_buffers(runner):
    (feed,), (answer,) = buffers(runner)
    with pytest.raises(RuntimeError, match="1 inputs expected, got 2"):
        runner.execute_async([feed, feed], [answer])
    with pytest.raises(RuntimeError, match="1 outputs expected, got 0"):
        runner.execute_async([feed], [])
    with pytest.raises(TypeError, match="must be a list"):
        runner.execute_async(feed, answer)


def test_jobs_are_waited_for_once(runner):
    (feed,), (answer,) = buffers(runner)
    job = runner.execute_async([feed], [answer])
    with pytest.raises(TypeError):
        runner.wait(job[0])
    assert runner.wait(job) == 0
    with pytest.raises(RuntimeError, match="has been waited for"):
        runner.wait(job)


def test_one_call_at_a_time(runner):
    (feed,), (answer,) = buffers(runner)
    with runner._busy, pytest.raises(RuntimeError, match="busy"):
        runner.execute_async([feed], [answer])
    runner.wait(runner.execute_async([feed], [answer]))


def test_the_fingerprint_is_checked_when_running(runner, monkeypatch):
    (feed,), (answer,) = buffers(runner)
    monkeypatch.setenv("DPUFLOW_VIRTUAL_FINGERPRINT", "0x101000016010407")
    with pytest.raises(RuntimeError, match="fingerprint check failure"):
        runner.execute_async([feed], [answer])
    monkeypatch.setenv("XLNX_ENABLE_FINGERPRINT_CHECK", "0")
    runner.wait(runner.execute_async([feed], [answer]))
    monkeypatch.delenv("XLNX_ENABLE_FINGERPRINT_CHECK")
    monkeypatch.setenv("DPUFLOW_VIRTUAL_FINGERPRINT", "0")  # a device that cannot tell is not checked
    runner.wait(runner.execute_async([feed], [answer]))


def test_everything_says_that_it_is_emulated(runner, monkeypatch):
    assert "emulated" in repr(runner) and "emulated" in device.VERSION
    assert all("emulated" in text for text in device.query()["VAI Version"].values())
    monkeypatch.setenv("DPUFLOW_VIRTUAL_CORES", "two")
    with pytest.raises(RuntimeError, match="DPUFLOW_VIRTUAL_CORES"):
        device.query()
