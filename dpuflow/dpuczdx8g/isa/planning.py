"""Follows a program instruction by instruction and works out its steps.

Raises MachineCodeError for what the DPU could not execute or would execute on rubbish:
unsupported or reserved settings, banks and DDR addresses out of range, a CONV within one
image group, an operand that nothing has written. Rules: facts isa.md sections 1 to 4.
"""

import numpy as np

from dpuflow.dpuczdx8g.isa import addressing
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH
from dpuflow.dpuczdx8g.isa.plan import MachineCodeError, Step, Transfer

MAX_POOL, AVERAGE_POOL, HARD_SIGMOID = 3, 2, 7
DEPTHWISE, DEPTHWISE_NO_BIAS = 0, 6
EXEC_MODES = {DEPTHWISE, DEPTHWISE_NO_BIAS, AVERAGE_POOL, MAX_POOL, HARD_SIGMOID}
ALU_ACTIVATIONS = {0, 1, 4}
CONV_ACTIVATIONS = {0, 1, 3, 4}
SHIFT_BIAS_MAX = 20
SHIFT_CUT_MAX = 31
"""Far beyond any real shift (the vendor's quantizers stop at 16); keeps sums within 64 bits."""
FILL = 7
"""LOAD.broadcast: write const_value instead of reading DDR."""


def plan(instructions, machine, regions):
    """List of Step for a program.

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
    meaningful value; `written[region]` does the same per byte of DDR.
    """

    def __init__(self, machine, regions):
        self.machine = machine
        self.whole_entry = (1 << machine.channels) - 1
        self.valid = np.zeros(machine.banks * BANK_DEPTH, np.uint32)
        self.regions = regions
        self.written = {}
        for name, region in regions.items():
            self.written[name] = np.zeros(region.size, bool)
            for start, stop in region.filled:
                self.written[name][start:stop] = True
        self.state = {"CONVINIT": None, "ALUINIT": None}
        self.operands = []
        self.last_conv = None
        self.read_by_last = np.zeros(machine.banks * BANK_DEPTH, bool)

    def follow(self, step):
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
        if op["broadcast"] == 0:
            step.transfer = Transfer(
                f"REG_{op['reg_id']}", op["ddr_addr"], op["jump_read"], op["length"], op["channel"]
            )
            self._check_range(step)
            if not self.written[step.transfer.region][step.transfer.index].all():
                raise step.error(f"reads bytes of {step.transfer.region} that hold no data yet")
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
        step.outputs = addressing.run_of_entries(
            op["bank_id"], op["bank_addr"], op["jump_read"], op["length"], groups
        )
        if not op["const_en"]:
            self._need(step, step.outputs, groups * machine.channels - op["channel"], "saves")
            step.reads = np.unique(step.outputs)
        self.written[step.transfer.region][step.transfer.index] = True

    def _check_range(self, step):
        transfer = step.transfer
        region = self.regions.get(transfer.region)
        if region is None:
            raise step.error(f"{transfer.region} is not among the registers {', '.join(self.regions)}")
        if transfer.stop > region.size:
            raise step.error(
                f"bytes {transfer.address}..{transfer.stop - 1} are outside {transfer.region}"
                f" ({region.size} bytes)"
            )

    # CONV

    def _convinit(self, step, op):
        if op["act_type"] not in CONV_ACTIVATIONS:
            raise step.error(f"act_type {op['act_type']} does not exist on this DPU")
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
        self._check_groups(step, op["bank_id_in"], op["bank_id_out"])
        step.window = addressing.input_window(machine, init, op, rows, length, groups)
        step.outputs = addressing.output_entries(machine, init, op, rows, length)
        taps = init["kernel_h"] * init["kernel_w"] * groups
        if taps > BANK_DEPTH:
            raise step.error(f"{taps} weight entries per output channel exceed the bank's {BANK_DEPTH}")
        banks = machine.weight_bank + np.arange(machine.channels)
        step.weights = addressing.flat(banks, op["bank_addr_weights"] + np.arange(taps)[:, None])
        step.bias = addressing.flat(machine.bias_bank, np.array([op["bank_addr_bias"]]))
        self._need(step, step.window.reads, 0, "reads", op["channel_offset"], step.window.index[..., -1])
        # An output channel counts only if all its weights and its bias were loaded: code
        # for 10 channels leaves the other 6 weight banks as they are (isa.md 3.4).
        loaded = (self.valid[step.weights] == self.whole_entry).all(axis=0)
        bits = int((1 << np.arange(machine.channels))[loaded].sum()) & int(self.valid[step.bias[0]])
        if not bits:
            raise step.error("no output channel has both weights and bias")
        step.reads = np.concatenate([step.window.reads, step.weights[:, loaded].ravel(), step.bias])
        self._compare_input(step)
        self._write(step, np.full(step.outputs.shape, bits, np.uint32))

    def _compare_input(self, step):
        """Set `same_input`, and remember this CONV for the next one."""
        last, op = self.last_conv, step.instruction
        if last is not None and np.array_equal(last.window.index, step.window.index):
            step.same_input = last.instruction["channel_offset"] == op["channel_offset"]
        self.read_by_last[:] = False
        self.read_by_last[step.window.reads] = True
        self.last_conv = step

    # ALU

    def _aluinit(self, step, op):
        if op["exec_mode"] not in EXEC_MODES:
            raise step.error(f"exec_mode {op['exec_mode']} is not supported by this simulator")
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
        self._check_groups(step, op["bank_id_in"], op["bank_id_out"])
        step.window = addressing.input_window(machine, init, op, rows, length, groups)
        step.outputs = addressing.output_entries(machine, init, op, rows, length, groups)
        self._need(step, step.window.reads, 0, "reads", init["channel_offset"], step.window.index[..., -1])
        reads, valid = [step.window.reads], np.full(groups, self.whole_entry, np.uint32)
        if mode in (DEPTHWISE, DEPTHWISE_NO_BIAS):
            taps = np.arange(init["kernel_h"] * init["kernel_w"])[:, None] * init["jump_read_weights"]
            step.weights = addressing.flat(
                machine.depthwise_bank, op["bank_addr_weights"] + taps + np.arange(groups)
            )
            valid &= np.bitwise_and.reduce(self.valid[step.weights], axis=0)
            reads.append(step.weights.ravel())
        if mode == DEPTHWISE:
            step.bias = addressing.flat(machine.bias_bank, op["bank_addr_bias"] + np.arange(groups))
            valid &= self.valid[step.bias]
            reads.append(step.bias)
        step.reads = np.unique(np.concatenate(reads))
        self._write(step, np.broadcast_to(valid, step.outputs.shape))

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
        step.init, self.operands = self.operands, []
        for operand in step.init:
            self._check_groups(step, operand["bank_id_in"], op["bank_id_out"])
        step.inputs = [
            addressing.elementwise_input(machine, operand, rows, op["length"], groups)
            for operand in step.init
        ]
        step.outputs = addressing.elementwise_output(machine, op, rows, op["length"], groups)
        step.reads = np.unique(np.concatenate([index.ravel() for index in step.inputs]))
        valid = np.bitwise_and.reduce([self.valid[index] for index in step.inputs])
        if not valid.all():
            raise step.error("reads bank entries that hold no data")
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

    def _check_groups(self, step, bank_in, bank_out):
        self._check_image_bank(step, bank_in)
        self._check_image_bank(step, bank_out)
        if bank_in // self.machine.pixels == bank_out // self.machine.pixels:
            raise step.error(
                f"bank hazard: reads and writes image group {bank_in // self.machine.pixels};"
                " input and output must lie in different groups"
            )

    def _need(self, step, entries, unused, verb, offset=0, last_groups=None):
        """Every byte read must hold data.

        `unused` bytes at the end of the last column of `entries`, or `offset` channels of
        the entries `last_groups` (the last channel group of a pixel), may hold anything.
        """
        if last_groups is None:
            last_groups, offset = entries[..., -1], unused
        if offset >= self.machine.channels:
            raise step.error(f"{offset} unused channels leave nothing of an entry of {self.machine.channels}")
        missing = (self.valid[entries.ravel()] & self.whole_entry) != self.whole_entry
        if missing.any():
            partly = np.unique(last_groups)
            partly = partly[partly >= 0]
            allowed = self.whole_entry >> offset
            bad = entries.ravel()[missing]
            bad = bad[~np.isin(bad, partly) | ((self.valid[bad] & allowed) != allowed)]
            if len(bad):
                bank, address = divmod(int(bad[0]), BANK_DEPTH)
                raise step.error(
                    f"{verb} bank entries that hold no data"
                    f" ({len(bad)}, the first in bank {bank} at {address})"
                )

    def _write(self, step, valid):
        self.valid[step.outputs] = valid
        if self.read_by_last[step.outputs].any():
            self.last_conv = None
        step.writes = np.unique(step.outputs)
        if len(step.writes) != step.outputs.size:
            raise step.error("writes a bank entry twice")
