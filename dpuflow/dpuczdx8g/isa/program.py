"""DPU programs of an xmodel: machine code with its registers, parameters and ports."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.machine import machine_for
from dpuflow.xir import Graph, validate

IN_DDR = 1
"""Value of a tensor's attribute `location`: it lies in the region and at the address given."""


@dataclass(frozen=True)
class Port:
    """An input or output tensor of a DPU subgraph in its DDR region.

    Attributes
    ----------
    name : of the tensor; `op` is the op outside the DPU's code that stands for it: the
        producer of an input (what the upload reads), the download of an output.
    region, address : base register ("REG_2") and byte offset.
    shape : without the batch dimension.
    fix_point : of its int8 values, None when the tensor has none.
    strides : bytes from one index to the next per dimension, by default those of a plain array;
        others where the tensor is a slice of another's (an input of a concat).
    """

    name: str
    op: str
    region: str
    address: int
    shape: tuple[int, ...]
    fix_point: int | None
    strides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.shape and not self.strides:
            plain = np.cumprod((1, *self.shape[:0:-1]))[::-1]
            object.__setattr__(self, "strides", tuple(int(step) for step in plain))

    @property
    def stop(self) -> int:
        """First byte behind the tensor."""
        last = sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))
        return self.address + last + 1

    @property
    def runs(self) -> list[tuple[int, int]]:
        """The (start, stop) byte ranges that the tensor covers."""
        shape, strides, length = list(self.shape), list(self.strides), 1
        while shape and strides[-1] == length:
            length *= shape.pop()
            strides.pop()
        starts = np.array([self.address])
        for count, step in zip(shape, strides, strict=True):
            starts = (starts[:, None] + step * np.arange(count)).ravel()
        return [(start, start + length) for start in starts.tolist()]

    def view(self, region: np.ndarray) -> np.ndarray:
        """The tensor within the bytes of its region, [images, bytes] -> [images, *shape], no copy."""
        tail = region[:, self.address : self.stop]
        strides = (region.strides[0], *(step * region.strides[1] for step in self.strides))
        return np.lib.stride_tricks.as_strided(tail, (len(region), *self.shape), strides)


@dataclass(frozen=True)
class DpuProgram:
    """The machine code of one DPU subgraph and what it runs on.

    Attributes
    ----------
    fingerprint : 64-bit, of the DPU it was compiled for.
    code : the `mc_code` attribute.
    parameters : bytes of REG_0.
    region_sizes : "REG_n" -> bytes.
    inputs, outputs : lists of Port, in the order of the upload and download ops.
    """

    name: str
    fingerprint: int
    code: bytes
    parameters: bytes
    region_sizes: dict[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read_programs(graph: Graph, source: Path | str = "xmodel") -> list[DpuProgram]:
    """The DpuPrograms of an `xir.Graph`, in execution order.

    UserError when it has no DPU subgraph, one for another DPU or without machine code, or
    tensors without an address. What its ops compute is of no interest: only the structure of the
    file is checked, so that code of ops that dpuflow does not know can be read as well.
    """
    if graph.source:
        validate.require(validate.structure(graph) or validate.kinds(graph), source)
    subgraphs = graph.subgraphs("DPU")
    if not subgraphs:
        raise UserError(f"{source}: no DPU subgraph; a compiled xmodel is needed, not the quantized graph")
    return [_read(graph, subgraph, source) for subgraph in subgraphs]


def feature_maps(graph: Graph, program: DpuProgram) -> dict[str, Port]:
    """Ports of all tensors that a DpuProgram computes and leaves in DDR, op name -> Port."""
    (subgraph,) = (subgraph for subgraph in graph.subgraphs("DPU") if subgraph.name == program.name)
    ops = [graph.op(name) for name in subgraph.op_names]
    computed = [op for op in ops if op.type not in ("upload", "download", "const", "const-fix")]
    return {
        op.name: _port(op.tensor, op.name, program.name)
        for op in computed
        if op.tensor.attrs.get("location") == IN_DDR and op.tensor.attrs.get("reg_id")
    }


def _read(graph, subgraph, source):
    where = f"{source}: {subgraph.name}"
    attrs = subgraph.attrs
    fingerprint = attrs.get("dpu_fingerprint", 0)
    machine_for(fingerprint, where)  # other DPUs' files differ in more than the code: refuse them first
    if not attrs.get("mc_code"):
        raise UserError(
            f"{where} has no machine code (mc_code is empty): compile it with the vendor's compiler"
            " or with dpuflow's `native` compiler"
        )
    sizes = attrs.get("reg_id_to_size") or {}
    parameters = (attrs.get("reg_id_to_parameter_value") or {}).get("REG_0", b"")
    if sizes.get("REG_0", 0) > len(parameters):
        raise UserError(f"{where}: REG_0 has {sizes['REG_0']} bytes, its parameters only {len(parameters)}")
    if min(sizes.values(), default=0) < 0:
        raise UserError(f"{where}: negative sizes in reg_id_to_size: {sizes}")
    inputs, outputs = [], []
    for name in subgraph.op_names:
        op = graph.op(name)
        if op.type == "upload":
            inputs.append(_port(op.tensor, op.input_names[0], where))
        elif op.type == "download":
            outputs.append(_port(graph.op(op.input_names[0]).tensor, name, where))
    if not inputs or not outputs:
        raise UserError(f"{where}: expected upload and download ops, found {len(inputs)} and {len(outputs)}")
    return DpuProgram(
        subgraph.name,
        fingerprint,
        attrs["mc_code"],
        parameters,
        sizes,
        tuple(inputs),
        tuple(outputs),
    )


def _port(tensor, op, where):
    if "reg_id" not in tensor.attrs or "ddr_addr" not in tensor.attrs:
        raise UserError(f"{where}: tensor {tensor.name} has no reg_id and ddr_addr")
    return Port(
        tensor.name,
        op,
        f"REG_{tensor.attrs['reg_id']}",
        tensor.attrs["ddr_addr"],
        tuple(tensor.shape[1:]),
        tensor.fix_point,
        _strides(tensor, where),
    )


def _strides(tensor, where):
    """Bytes between neighbours per dimension, without the batch's; () when the file does not say."""
    stored = tensor.attrs.get("stride")
    if stored is None:
        return ()
    if len(stored) != len(tensor.shape) or min(stored, default=0) < 0:
        shape = list(tensor.shape)
        raise UserError(f"{where}: tensor {tensor.name} of shape {shape} has the strides {stored}")
    return tuple(stored[1:])
