"""Executes the machine code of DPU programs, image batch by image batch, and checks it first.

Functional and bit-exact, in program order or in a random one that the dependency masks
allow; `ordering.check` proves that every such order gives the same result. Not a timing model
(`cycles` estimates that).
"""

from collections.abc import Callable, Sequence

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.threads import single_threaded_blas
from dpuflow.dpuczdx8g.isa import engines, ordering
from dpuflow.dpuczdx8g.isa.code import decode
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, machine_for
from dpuflow.dpuczdx8g.isa.program import DpuProgram, Port
from dpuflow.dpuczdx8g.isa.step_derivation import derive_steps
from dpuflow.dpuczdx8g.isa.steps import MachineCodeError, Region, Step

MAX_REGION_BYTES = 2**27
"""Of DDR besides the parameters; the checks take about eight bytes for each (`ordering.Accesses`)."""
IMAGES_AT_ONCE = 128
BATCH_BYTES = 2**28
"""Bounds of a batch: images, and bytes of their simulated banks and DDR regions."""


Watch = Callable[[Step, engines.Memory, int], None]
"""Called as watch(step, memory, first image of the batch)."""


class Simulator:
    """One DPU subgraph's program, planned and checked, ready to run any number of images.

    Attributes
    ----------
    program : program.DpuProgram.
    machine : the Machine its fingerprint names.
    steps : list of steps.Step.
    clocks : ordering.Clocks of the program.
    weights_per_image : whether it computes weights (squeeze and excitation).
    """

    def __init__(self, program: DpuProgram) -> None:
        self.program = program
        self.machine = machine_for(program.fingerprint, program.name)
        self.regions = _regions(program)
        data = sum(region.size for name, region in self.regions.items() if name != "REG_0")
        if data > MAX_REGION_BYTES:
            raise UserError(
                f"{program.name}: its registers point to {data} bytes;"
                f" the simulator takes up to {MAX_REGION_BYTES}"
            )
        try:
            self.steps, written = derive_steps(decode(program.code, program.name), self.machine, self.regions)
            self.clocks = ordering.check(self.steps, self.machine, self.regions)
        except UserError as error:
            raise type(error)(f"{program.name}: {error}") from None
        self.weights_per_image = any(step.per_image for step in self.steps)
        for port in program.outputs:
            if not port.view(written[port.region][None]).all():
                raise MachineCodeError(f"{program.name}: the code never writes all of output {port.name}")

    def run(
        self,
        inputs: Sequence[np.ndarray],
        seed: int = 0,
        interleave: int | None = None,
        maps: Sequence[Port] = (),
        watch: Watch | None = None,
    ) -> list[np.ndarray]:
        """Execute the program.

        Parameters
        ----------
        inputs : one int8 array per input port of the program, [images, ...] with the
            port's shape (without its batch dimension) behind.
        seed : of the noise that banks and regions hold at the start.
        interleave : None for program order; a seed for a random order among those the
            dependency masks allow.
        maps : further Ports (`program.feature_maps`) to read when the program has ended.
        watch : called as watch(step, memory, first) behind every step of every batch, `first`
            being the number of the batch's first image; it may change memory.

        Returns
        -------
        One int8 array per output port, then one per map, [images, ...]. A map whose bytes
        the program uses for another one later on holds that.
        """
        ports = self.program.inputs
        if len(inputs) != len(ports):
            raise UserError(f"{self.program.name}: got {len(inputs)} inputs, it has {len(ports)}")
        inputs = [self._checked(array, port) for array, port in zip(inputs, ports, strict=True)]
        steps = self.steps
        if interleave is not None:
            steps = [
                self.steps[i]
                for i in ordering.interleaving([step.instruction for step in self.steps], interleave)
            ]
        parts, memory, size = [], None, self._images_at_once()
        for start in range(0, len(inputs[0]), size):
            batch = [array[start : start + size] for array in inputs]
            if memory is None or memory.images != len(batch[0]):
                memory = engines.Memory(
                    self.machine,
                    len(batch[0]),
                    self.regions,
                    self.program.parameters,
                    seed,
                    self.weights_per_image,
                )
            wanted = (*self.program.outputs, *maps)
            with single_threaded_blas():  # an instruction's matrix product has 16 columns
                parts.append(self._run_batch(batch, memory, steps, wanted, watch, start))
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _images_at_once(self):
        machine = self.machine
        banks = machine.banks if self.weights_per_image else machine.image_banks
        banks *= BANK_DEPTH * machine.channels
        regions = sum(region.size for name, region in self.regions.items() if name != "REG_0")
        return max(1, min(IMAGES_AT_ONCE, BATCH_BYTES // (banks + regions)))

    def _checked(self, array, port):
        array = np.asarray(array)
        if array.dtype != np.int8 or array.ndim < 1 or not len(array):
            raise UserError(f"{self.program.name}: input {port.name} must be int8 with at least one image")
        if array.shape[1:] != port.shape:
            raise UserError(
                f"{self.program.name}: input {port.name} has the shape {array.shape[1:]},"
                f" expected {port.shape}"
            )
        return array

    def _run_batch(self, inputs, memory, steps, wanted, watch, first):
        # banks and workspace keep what the batch before left in them, as on a DPU
        for array, port in zip(inputs, self.program.inputs, strict=True):
            port.view(memory.regions[port.region])[:] = array
        for step in steps:
            engines.execute(step, memory)
            if watch is not None:
                watch(step, memory, first)
        return [port.view(memory.regions[port.region]).copy() for port in wanted]


def _regions(program):
    filled: dict[str, list[tuple[int, int]]] = {name: [] for name in program.region_sizes}
    for port in (*program.inputs, *program.outputs):
        if port.region not in filled or port.stop > program.region_sizes[port.region]:
            raise UserError(f"{program.name}: tensor {port.name} lies outside its region {port.region}")
    for port in program.inputs:
        filled[port.region] += port.runs
    if "REG_0" in filled:
        filled["REG_0"].append((0, len(program.parameters)))
    sizes = dict(program.region_sizes)
    if "REG_0" in sizes:
        sizes["REG_0"] = len(program.parameters)
    return {name: Region(size, tuple(filled[name])) for name, size in sizes.items()}
