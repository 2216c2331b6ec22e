"""DPU programs of an xmodel: machine code with its registers, parameters and ports."""

from dataclasses import dataclass

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.xir import validate


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
    """

    name: str
    op: str
    region: str
    address: int
    shape: tuple[int, ...]
    fix_point: int | None

    @property
    def stop(self):
        """First byte behind the tensor."""
        return self.address + int(np.prod(self.shape))


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


def read_programs(graph, source="xmodel"):
    """The DpuPrograms of an `xir.Graph`, in execution order.

    UserError when it has no DPU subgraph, one without machine code, or tensors without an
    address.
    """
    if graph.source:
        validate.require(validate.validate(graph, devices=False), source)
    subgraphs = graph.subgraphs("DPU")
    if not subgraphs:
        raise UserError(f"{source}: no DPU subgraph; a compiled xmodel is needed, not the quantized graph")
    return [_read(graph, subgraph, source) for subgraph in subgraphs]


def _read(graph, subgraph, source):
    where = f"{source}: {subgraph.name}"
    attrs = subgraph.attrs
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
        attrs.get("dpu_fingerprint", 0),
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
    )
