"""Follows a program instruction by instruction and works out its steps.

Raises MachineCodeError for what the DPU could not execute or would execute on rubbish:
unsupported or reserved settings, banks and DDR addresses out of range, input overwritten
while it is read, an operand that nothing has written. Rules: docs/reference/instruction-set.md,
and docs/reference/instruction-set.md, "Rules that are none" on what the vendor's compiler does.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dpuflow.dpuczdx8g.isa import addressing
from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine
from dpuflow.dpuczdx8g.isa.settings import (
    ALU_ACTIVATIONS,
    CONV_ACTIVATIONS,
    DEPTHWISE,
    DEPTHWISE_NO_BIAS,
    EXEC_MODES,
    FILL,
    LEAKY_ACTIVATION,
    MAX_REDUCE,
    POINTWISE,
    PRELU,
    SHIFT_BIAS_MAX,
    SHIFT_CUT_MAX,
)
from dpuflow.dpuczdx8g.isa.steps import MachineCodeError, Region, Step, Transfer


def derive_steps(
    instructions: Sequence[Instruction], machine: Machine, regions: Mapping[str, Region]
) -> tuple[list[Step], dict[str, np.ndarray]]:
    """(list of Step for a program, "REG_n" -> [bytes] bool: what of it holds data at the end).

    Parameters
    ----------
    instructions : list of Instruction.
    machine : the Machine it was made for.
    regions : "REG_n" -> Region.
    """
    planner = _Planner(machine, regions)
    steps, offset = [], 0
    for index, instruction in enumerate(instructions):
        step = Step(index, offset, instruction)
        planner.follow(step)
        steps.append(step)
        offset += instruction.size
    if not steps or steps[-1].instruction.name != "END":
        raise MachineCodeError(f"the machine code ends at offset {offset} without END")
    for step in steps[:-1]:
        if step.instruction.name == "END":
            raise step.error("code goes on after END")
    return steps, planner.written


class _Planner:
    """State of the walk: engine registers, and which bytes hold data.

    `valid[entry]` has bit b set when byte b of a bank entry has been written with a
    meaningful value; `written[region]` does the same per byte of DDR. `from_data` marks
    entries of the weight and bias banks that came from a data region: they differ per image.
    """

    def __init__(self, machine: Machine, regions: Mapping[str, Region]) -> None:
        self.machine = machine
        self.whole_entry = (1 << machine.channels) - 1
        self.valid = np.zeros(machine.banks * BANK_DEPTH, np.uint32)
        self.regions = regions
        self.written: dict[str, np.ndarray] = {}
        for name, region in regions.items():
            self.written[name] = np.zeros(region.size, bool)
            for start, stop in region.filled:
                self.written[name][start:stop] = True
        self.state: dict[str, Instruction | None] = {"CONVINIT": None, "ALUINIT": None}
        self.operands: list[Instruction] = []
        self.from_data = np.zeros(machine.banks * BANK_DEPTH, bool)
        self.last_conv: Step | None = None
        self.read_by_last = np.zeros(machine.banks * BANK_DEPTH, bool)

    def follow(self, step: Step) -> None:
        instruction = step.instruction
        if instruction.reserved:
            raise step.error(f"bits outside all fields are set: {instruction.reserved}")
        handler = getattr(self, f"_{instruction.name.lower()}", None)
        if handler is None:
            raise step.error("this instruction set has no engine for it")
        try:
            handler(step, instruction)
        except ValueError as error:
            raise step.error(str(error)) from None

    # LOAD, SAVE

    def _load(self, step, op):
        machine = self.machine
        if op["bank_id"] >= machine.banks:
            raise step.error(f"bank {op['bank_id']} does not exist, {machine.name} has {machine.banks}")
        if op["broadcast"] not in (0, FILL) or op["mode_avg"]:
            raise step.error("broadcast must be 0 or 7 and mode_avg 0")
        if op["pad_idx"] > op["length"]:
            raise step.error(f"pad_idx {op['pad_idx']} exceeds length {op['length']}")
        groups = machine.groups(op["channel"])
        step.outputs = addressing.run_of_entries(
            op["bank_id"], op["bank_addr"], op["jump_write"], op["length"], groups
        )
        step.masked = addressing.load_padding(machine, op)
        if op["broadcast"] == 0:
            region = f"REG_{op['reg_id']}"
            step.transfer = Transfer(
                region, op["ddr_addr"], op["jump_read"], op["length"], op["channel"], step.masked
            )
            self._check_range(step)
            if not self.written[step.transfer.region][step.transfer.touched].all():
                raise step.error(f"reads bytes of {step.transfer.region} that hold no data yet")
            step.per_image = op["bank_id"] >= machine.image_banks and op["reg_id"] != 0
        self.from_data[step.outputs] = step.per_image
        self._write(step, np.full(step.outputs.shape, self.whole_entry, np.uint32))

    def _save(self, step, op):
        machine = self.machine
        self._check_image_bank(step, op["bank_id"])
        groups = machine.groups(op["channel"])
        width = op["channel"] if op["argmax"] == 0 else 1
        step.transfer = Transfer(f"REG_{op['reg_id']}", op["ddr_addr"], op["jump_write"], op["length"], width)
        self._check_range(step)
        if step.transfer.region == "REG_0":
            raise step.error("writes to REG_0, the parameters")
        if op["argmax"] == 1:
            raise step.error("argmax 1 is not defined")
        if op["argmax"] and not machine.argmax:
            raise step.error(f"argmax, which this {machine.name} lacks by its fingerprint")
        step.outputs = addressing.run_of_entries(
            op["bank_id"], op["bank_addr"], op["jump_read"], op["length"], groups
        )
        if not op["const_en"]:
            unused = groups * machine.channels - op["channel"]
            self._need(step, step.outputs, "saves", unused, step.outputs[..., -1])
            step.reads = addressing.distinct(step.outputs)
        self.written[step.transfer.region][step.transfer.index] = True

    def _check_range(self, step):
        transfer = step.transfer
        region = self.regions.get(transfer.region)
        if region is None:
            raise step.error(f"{transfer.region} is not among the registers {', '.join(self.regions)}")
        touched = transfer.touched
        if len(touched) and touched.max() >= region.size:
            raise step.error(
                f"bytes {touched.min()}..{touched.max()} are outside {transfer.region} ({region.size} bytes)"
            )

    # CONV

    def _convinit(self, step, op):
        if op["act_type"] not in CONV_ACTIVATIONS:
            raise step.error(f"act_type {op['act_type']} does not exist on this DPU")
        if op["act_type"] == LEAKY_ACTIVATION and not self.machine.leaky_relu:
            raise step.error(f"leaky ReLU, which this {self.machine.name} lacks by its fingerprint")
        self._check_shifts(step, op)
        if op["valid_pixel_parallel"] > self.machine.pixels:
            raise step.error(f"{op['valid_pixel_parallel']} rows exceed the {self.machine.pixels} pixels")
        if op["stride_offset_in"] >= op["stride_h"] or op["stride_offset_out"] >= op["stride_out"]:
            raise step.error("a stride_offset is not below its stride")
        self.state["CONVINIT"] = op

    def _conv(self, step, op):
        machine = self.machine
        init = step.init = self._need_init(step, "CONVINIT")
        groups, rows, length = op["channel_group"], init["valid_pixel_parallel"], op["length"]
        self._check_image_bank(step, op["bank_id_in"])
        self._check_image_bank(step, op["bank_id_out"])
        step.window = addressing.input_window(machine, init, op, rows, length, groups)
        step.outputs = addressing.output_entries(machine, init, op, rows, length)
        self._check_overwriting(step, step.window.index, in_place=False)
        taps = init["kernel_h"] * init["kernel_w"] * groups
        if taps > BANK_DEPTH:
            raise step.error(f"{taps} weight entries per output channel exceed the bank's {BANK_DEPTH}")
        banks = machine.weight_bank + np.arange(machine.channels)
        step.weights = addressing.flat(banks, op["bank_addr_weights"] + np.arange(taps)[:, None])
        step.bias = addressing.flat(machine.bias_bank, np.array([op["bank_addr_bias"]]))
        self._need(step, step.window.reads, "reads", op["channel_offset"], step.window.index[..., -1])
        # An output channel counts only if all its weights and its bias were loaded: code
        # for 10 channels leaves the other 6 weight banks as they are (docs/reference/instruction-set.md).
        loaded = (self.valid[step.weights] == self.whole_entry).all(axis=0)
        bits = int((1 << np.arange(machine.channels))[loaded].sum()) & int(self.valid[step.bias[0]])
        if not bits:
            raise step.error("no output channel has both weights and bias")
        step.reads = np.concatenate([step.window.reads, step.weights[:, loaded].ravel(), step.bias])
        step.per_image = bool(self.from_data[step.weights].any() or self.from_data[step.bias].any())
        self._compare_input(step)
        self._write(step, np.full(step.outputs.shape, bits, np.uint32))

    def _compare_input(self, step):
        """Set `same_input`, and remember this CONV for the next one."""
        last, op = self.last_conv, step.instruction
        if last and last.window and np.array_equal(last.window.index, step.window.index):
            step.same_input = last.instruction["channel_offset"] == op["channel_offset"]
        self.read_by_last[:] = False
        self.read_by_last[step.window.reads] = True
        self.last_conv = step

    # ALU

    def _aluinit(self, step, op):
        if op["exec_mode"] not in EXEC_MODES:
            known = ", ".join(map(str, sorted(EXEC_MODES)))
            raise step.error(f"exec_mode {op['exec_mode']} is not supported by this simulator, only {known}")
        if op["exec_mode"] in POINTWISE:
            window = [op[name] for name in ("kernel_w", "kernel_h", "stride_w", "stride_h")]
            if window != [1, 1, 1, 1]:
                raise step.error(
                    f"exec_mode {op['exec_mode']} with a window {window}; it works on single pixels"
                )
        if op["act_type"] not in ALU_ACTIVATIONS:
            raise step.error(f"act_type {op['act_type']} does not exist on this DPU's ALU")
        self._check_shifts(step, op)
        if op["stride_offset_in"] >= op["stride_h"] or op["stride_offset_out"] >= op["stride_out"]:
            raise step.error("a stride_offset is not below its stride")
        self.state["ALUINIT"] = op

    def _alu(self, step, op):
        machine = self.machine
        init = step.init = self._need_init(step, "ALUINIT")
        mode, groups = init["exec_mode"], init["channel_group"]
        rows, length = op["valid_pixel_parallel"], init["length"]
        if rows > machine.alu_pixels:
            raise step.error(f"{rows} rows exceed the ALU's {machine.alu_pixels}")
        if op["kernel_d"] != 1:
            raise step.error("kernel_d must be 1")
        self._check_image_bank(step, op["bank_id_in"])
        self._check_image_bank(step, op["bank_id_out"])
        step.window = addressing.input_window(machine, init, op, rows, length, groups)
        step.outputs = addressing.output_entries(machine, init, op, rows, length, groups)
        self._check_overwriting(step, step.window.index, in_place=init["kernel_h"] * init["kernel_w"] == 1)
        reads, valid = [step.window.reads], self._window_validity(step, init["channel_offset"])
        if mode == MAX_REDUCE and (step.window.index == addressing.PADDING).any():
            raise step.error("a maximum by reduction has no padding")
        if mode == PRELU:
            slopes = op["bank_addr_weights"] + np.arange(groups)
            step.weights = addressing.flat(machine.depthwise_bank, slopes[None])
            valid = valid & self.valid[step.weights[0]]
            reads.append(step.weights.ravel())
            step.per_image = bool(self.from_data[step.weights].any())
        if mode in (DEPTHWISE, DEPTHWISE_NO_BIAS):
            taps = np.arange(init["kernel_h"] * init["kernel_w"])[:, None] * init["jump_read_weights"]
            step.weights = addressing.flat(
                machine.depthwise_bank, op["bank_addr_weights"] + taps + np.arange(groups)
            )
            valid = valid & np.bitwise_and.reduce(self.valid[step.weights], axis=0)
            reads.append(step.weights.ravel())
            step.per_image = bool(self.from_data[step.weights].any())
        if mode == DEPTHWISE:
            step.bias = addressing.flat(machine.bias_bank, op["bank_addr_bias"] + np.arange(groups))
            valid = valid & self.valid[step.bias]
            reads.append(step.bias)
            step.per_image |= bool(self.from_data[step.bias].any())
        step.reads = addressing.distinct(np.concatenate(reads))
        self._write(step, np.broadcast_to(valid, step.outputs.shape))

    def _window_validity(self, step, offset):
        """Which bytes of every output entry come from data alone: uint32, like `step.outputs`.

        Each byte of an output depends on the same byte of the entries in its window, so that an
        entry of which only some bytes hold data may be read; one without any may not. The last
        `offset` channels are replaced by the padding value.
        """
        index = step.window.index
        valid = self.valid[index]
        valid[index == addressing.PADDING] = self.whole_entry
        self._check_offset(step, offset)
        valid[..., -1] |= self.whole_entry & ~(self.whole_entry >> offset)
        if (valid == self.whole_entry).all():
            return np.full(step.outputs.shape, self.whole_entry, np.uint32)
        self._none_empty(step, index, valid)
        result = np.full(step.outputs.shape, self.whole_entry, np.uint32)
        for _, rows, columns in step.window.taps(*step.outputs.shape[:2]):
            result &= valid[rows, columns]
        return result

    # ELEW

    def _elewinit(self, step, op):
        if op["id"] != len(self.operands):
            raise step.error(f"operand id {op['id']} where {len(self.operands)} is next")
        self._check_image_bank(step, op["bank_id_in"])
        self.operands.append(op)

    def _elew(self, step, op):
        machine, rows, groups = self.machine, op["valid_pixel_parallel"], op["channel_group"]
        if rows > machine.alu_pixels:
            raise step.error(f"{rows} rows exceed the {machine.alu_pixels} of the elementwise engine")
        if op["num"] != len(self.operands):
            raise step.error(f"num is {op['num']}, but {len(self.operands)} ELEWINIT precede it")
        if op["elew_type"] > 1 or (op["elew_type"] == 1 and op["num"] != 2):
            raise step.error("elew_type must be 0 (add) or 1 (multiply, two operands)")
        step.operands, self.operands = self.operands, []
        self._check_image_bank(step, op["bank_id_out"])
        step.inputs = [
            addressing.elementwise_input(machine, operand, rows, op["length"], groups)
            for operand in step.operands
        ]
        step.outputs = addressing.elementwise_output(machine, op, rows, op["length"], groups)
        step.reads = addressing.distinct(np.concatenate([index.ravel() for index in step.inputs]))
        for index in step.inputs:
            self._none_empty(step, index, self.valid[index])
            self._check_overwriting(step, index, in_place=True)
        valid = np.bitwise_and.reduce([self.valid[index] for index in step.inputs])
        self._write(step, valid)

    def _end(self, step, op):
        if self.operands:
            raise step.error("ELEWINIT without ELEW before it")

    # shared

    def _check_shifts(self, step, op):
        for name, limit in (("shift_bias", SHIFT_BIAS_MAX), ("shift_cut", SHIFT_CUT_MAX)):
            if op[name] > limit:
                raise step.error(f"{name} {op[name]} exceeds {limit}")

    def _need_init(self, step, name):
        if self.state[name] is None:
            raise step.error(f"no {name} before it")
        return self.state[name]

    def _check_image_bank(self, step, bank):
        if bank >= self.machine.image_banks:
            raise step.error(f"bank {bank} is none of the {self.machine.image_banks} image banks")

    def _check_overwriting(self, step, index, in_place):
        """No entry of the input `index` is overwritten, unless `in_place` by its own output.

        Reading and writing one image group is common in the vendor's code, overwriting
        entries that are yet to be read would make the result depend on the hardware's timing.
        In place, pixel by pixel, only ELEW (and an ALU without a window) works.
        """
        if not self._same_group(index, step.outputs):
            return
        overwritten = np.isin(index, step.outputs)
        if not overwritten.any():
            return
        same_shape = in_place and index.shape == step.outputs.shape
        if same_shape and np.array_equal(index[overwritten], step.outputs[overwritten]):
            return
        bank, address = divmod(int(index[overwritten][0]), BANK_DEPTH)
        raise step.error(
            f"bank hazard: overwrites entries of its own input ({int(overwritten.sum())},"
            f" the first in bank {bank} at {address})"
        )

    def _same_group(self, index, outputs):
        group = self.machine.pixels * BANK_DEPTH
        # one instruction stays within one group on either side; the greatest index is no padding
        return len(outputs.ravel()) and int(index.max()) // group == int(outputs.max()) // group

    def _check_offset(self, step, offset):
        if offset >= self.machine.channels:
            raise step.error(f"{offset} unused channels leave nothing of an entry of {self.machine.channels}")

    def _none_empty(self, step, index, valid):
        """Every entry of `index` holds data in at least one byte of `valid`, of the same shape."""
        if not valid.all():
            self._no_data(step, "reads", index[valid == 0])

    def _no_data(self, step, verb, bad):
        bank, address = divmod(int(bad.ravel()[0]), BANK_DEPTH)
        raise step.error(
            f"{verb} bank entries that hold no data ({bad.size}, the first in bank {bank} at {address})"
        )

    def _need(self, step, entries, verb, offset, last_groups):
        """Every byte read must hold data.

        `offset` channels of the entries `last_groups` (the last channel group of a pixel) may
        hold anything.
        """
        self._check_offset(step, offset)
        missing = (self.valid[entries.ravel()] & self.whole_entry) != self.whole_entry
        if missing.any():
            partly = addressing.distinct(last_groups)
            partly = partly[partly >= 0]
            allowed = self.whole_entry >> offset
            bad = entries.ravel()[missing]
            bad = bad[~np.isin(bad, partly) | ((self.valid[bad] & allowed) != allowed)]
            if len(bad):
                self._no_data(step, verb, bad)

    def _write(self, step, valid):
        self.valid[step.outputs] = valid
        if self.read_by_last[step.outputs].any():
            self.last_conv = None
        step.writes = addressing.distinct(step.outputs)
        if len(step.writes) != step.outputs.size:
            raise step.error("writes a bank entry twice")
