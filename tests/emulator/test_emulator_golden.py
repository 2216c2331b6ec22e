"""The vendor's own results: 600 op cases, and a vendor-compiled network from the file alone."""

import json

import numpy as np
import pytest
from compiled_kernels import need_compiled_kernels
from golden_cases import operation

from dpuflow.base.errors import UserError
from dpuflow.emulator import Emulator, oracle
from dpuflow.emulator.implementations import prepare
from dpuflow.emulator.workspace import Workspace

BACKENDS = ["oracle", "numpy", "native"]


def execute(op, inputs, backend):
    """Result of one operation as int8, by one of the implementations."""
    if backend == "oracle":
        return oracle.apply(op, *inputs)
    if backend == "native":
        need_compiled_kernels()
    kernel = prepare(op, [x.shape for x in inputs], native=backend == "native")
    result = kernel(list(inputs), Workspace())
    as_int8 = result.astype(np.int8)
    assert (as_int8 == result).all()
    return as_int8


@pytest.fixture(scope="module")
def cases(shared):
    """All golden op cases: (case, operation, inputs, expected)."""
    arrays = dict(np.load(shared("golden/ops.npz")))
    listed = json.loads(shared("golden/ops.json").read_text())
    return [(case, *operation(case, arrays)) for case in listed]


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_golden_op_cases_are_bit_equal(cases, backend):
    assert len(cases) == 600
    wrong = []
    for case, op, inputs, expected in cases:
        result = execute(op, inputs, backend)
        if result.shape != expected.shape or (result != expected).any():
            wrong.append(case["id"])
    assert wrong == []


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_vendor_compiled_network_equals_its_machine_code(shared, backend):
    if backend == "native":
        need_compiled_kernels()
    vectors = np.load(shared("golden/vendor/zcu102_mnist_vectors.npz"))
    path = shared("golden/vendor/zcu102_mnist_3.0.xmodel")
    emulator = Emulator(path, threads=2, use_native=backend == "native", subgraphs="DPU")
    dpu = [part for part in emulator.parts if part.device == "DPU"]
    assert len(dpu) == 2
    for number, part in enumerate(dpu):
        given = vectors[f"dpu{number}_input"]
        (result,) = emulator.run_subgraph(part.name, {part.inputs[0].name: given}).values()
        assert result.dtype == np.int8
        np.testing.assert_array_equal(result, vectors[f"dpu{number}_output"])


def test_the_older_compilers_file_of_the_same_network_gives_the_same(shared):
    vectors = np.load(shared("golden/vendor/zcu102_mnist_vectors.npz"))
    emulator = Emulator(shared("golden/vendor/zcu102_mnist_2.5.xmodel"), subgraphs=["subgraph_quant_conv2d"])
    part = next(part for part in emulator.parts if part.device == "DPU")
    (result,) = emulator.run_subgraph(part.name, {part.inputs[0].name: vectors["dpu0_input"]}).values()
    np.testing.assert_array_equal(result, vectors["dpu0_output"])


@pytest.mark.fault("xmodel", "operation that the emulator does not know", "refused")
def test_an_unknown_op_is_named_when_the_file_is_opened(shared):
    path = shared("golden/vendor/zcu102_mnist_3.0.xmodel")
    with pytest.raises(UserError, match=r"cannot execute 1 of its ops: Mylayer \('custom_layer'\)"):
        Emulator(path)
    emulator = Emulator(path, subgraphs="DPU")  # what a user's own op lies between can be run
    with pytest.raises(UserError, match=r"Mylayer \('custom_layer'\)"):
        emulator.run_subgraph("subgraph_custom_layer", {"x": np.zeros((1, 1), np.int8)})
    with pytest.raises(UserError, match=r"Mylayer \('custom_layer'\)"):
        emulator.run(np.zeros((1, 28, 28, 1), np.int8))
