"""ALU modes that no file of ours or of the wild uses: leaky ReLU, PReLU, maximum by reduction."""

import numpy as np
import pytest

from dpuflow.dpuczdx8g.isa.code import encode, make
from dpuflow.dpuczdx8g.isa.program import DpuProgram, Port
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.isa.steps import MachineCodeError

FINGERPRINT, PIXELS, CHANNELS, DEPTHWISE_BANK = 0x101000056010407, 5, 24, 32
LOAD, MISC, SAVE = 0b0001, 0b1000, 0b0010


def program(
    length=PIXELS, weights=0, pad_left=0, parameters=bytes(CHANNELS), argmax=0, made_for=FINGERPRINT, **init
):
    """One row of 24 channels through the ALU, opposite image groups; slopes in the depthwise bank."""
    slopes = make(
        "LOAD", LOAD, LOAD, bank_id=DEPTHWISE_BANK, bank_addr=7, jump_write=1, jump_read=CHANNELS,
        length=1, channel=CHANNELS, pad_idx=1, reg_id=0,
    )  # fmt: skip
    row = make(
        "LOAD", LOAD, LOAD | MISC, bank_id=0, jump_write=2, jump_read=CHANNELS, length=PIXELS,
        channel=CHANNELS, pad_idx=1, reg_id=2,
    )  # fmt: skip
    init = {"channel_offset": 8, "jump_read": 2, "jump_write": 2, **init}
    code = [
        slopes,
        row,
        make("ALUINIT", MISC, MISC, length=length, channel_group=2, **init),
        make(
            "ALU", LOAD | MISC, MISC | SAVE, bank_id_out=8, bank_addr_weights=weights,
            bank_addr_in=-2 * pad_left % 2048, pad_left=pad_left,
            pad_right=init.get("kernel_w", 1) - 1,
        ),
        make(
            "SAVE", MISC | SAVE, SAVE, bank_id=8, jump_read=2, jump_write=CHANNELS, length=length,
            channel=CHANNELS, reg_id=3, argmax=argmax,
        ),
        make("END", SAVE, SAVE),
    ]  # fmt: skip
    channels = 1 if argmax else CHANNELS
    size = length * CHANNELS
    return DpuProgram(
        "modes", made_for, encode(code), parameters,
        {"REG_0": len(parameters), "REG_2": PIXELS * CHANNELS, "REG_3": size},
        (Port("x", "x", "REG_2", 0, (1, PIXELS, CHANNELS), 4),),
        (Port("y", "y", "REG_3", 0, (1, length, channels), 4, (size, CHANNELS, 1)),),
    )  # fmt: skip


def row():
    return np.random.default_rng(4).integers(-128, 128, (6, 1, PIXELS, CHANNELS)).astype(np.int8)


def rounded(values):
    return np.clip(np.floor(values + 0.5), -128, 127)


def test_leaky_relu():
    """Slope -26 / 2**6 below 0, half above: codes from 32 on divide, those below multiply."""
    x = row()
    (y,) = Simulator(program(exec_mode=4, multi_factor=256 - 26, shift_prelu_n=38, shift_prelu_p=33)).run([x])
    np.testing.assert_array_equal(y, rounded(np.where(x < 0, x * -26.0 / 64, x / 2)))
    (y,) = Simulator(program(exec_mode=4, multi_factor=3, shift_prelu_n=1, shift_prelu_p=2)).run([x])
    np.testing.assert_array_equal(y, rounded(np.where(x < 0, x * 6.0, x * 4.0)))


def test_prelu_has_a_slope_for_each_channel():
    x, slopes = row(), np.random.default_rng(5).integers(-128, 128, CHANNELS).astype(np.int8)
    given = {"weights": 7, "parameters": slopes.tobytes()}
    (y,) = Simulator(program(exec_mode=1, shift_prelu_n=39, shift_prelu_p=32, **given)).run([x])
    np.testing.assert_array_equal(y, rounded(np.where(x < 0, x * slopes.astype(float) / 128, x)))


def test_a_maximum_by_reduction():
    x = row()
    (y,) = Simulator(program(1, exec_mode=5, kernel_w=PIXELS, shift_cut=9)).run([x])
    np.testing.assert_array_equal(y, rounded(x.max(axis=2, keepdims=True) / 2))


def test_argmax_of_a_save():
    """The place of the largest of a pixel's values, the first of equal ones, or the value."""
    x = row() // 16
    plain = {"exec_mode": 4, "multi_factor": 1, "shift_prelu_n": 32, "shift_prelu_p": 32}
    (place,) = Simulator(program(argmax=2, **plain)).run([x])
    (value,) = Simulator(program(argmax=3, **plain)).run([x])
    np.testing.assert_array_equal(place[..., 0], x.argmax(-1))
    np.testing.assert_array_equal(value[..., 0], x.max(-1))
    with pytest.raises(MachineCodeError, match="argmax, which this B4096 lacks by its fingerprint"):
        Simulator(program(argmax=2, made_for=0x101000016010407, **plain))


BROKEN = {
    "window": ({"exec_mode": 4, "kernel_w": 2, "length": 4}, "exec_mode 4 with a window"),
    "padding": ({"exec_mode": 5, "kernel_w": 2, "pad_left": 1}, "a maximum by reduction has no padding"),
    "slopes not loaded": ({"exec_mode": 1, "weights": 900}, "saves bank entries that hold no data"),
    "sixteen bits": ({"exec_mode": 8}, "exec_mode 8 is not supported by this simulator, only 0, 1, 2, 3"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_the_modes_cannot_do_is_said(what):
    settings, message = BROKEN[what]
    with pytest.raises(MachineCodeError, match=message):
        Simulator(program(**settings))
