"""The cycle estimate: what an instruction costs, and what waits for what."""

import pytest

from dpuflow.dpuczdx8g.isa.code import decode, make
from dpuflow.dpuczdx8g.isa.cycles import (
    NOTHING,
    durations,
    estimate_cycles,
    schedule,
    transfer_bytes,
)
from dpuflow.dpuczdx8g.isa.formats import ENGINES
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.timing import HOST, TIMING, Timing
from dpuflow.xir import Graph

LOAD, SAVE, CONV, MISC = (1 << number for number in range(4))


def load(length=1, channel=16, jump=16, address=0, on=LOAD, by=LOAD):
    return make("LOAD", on, by, length=length, channel=channel, jump_read=jump, ddr_addr=address, pad_idx=1)


@pytest.mark.parametrize(
    ("length", "channel", "jump", "address", "lines"),
    [
        (1, 32, 64, 0, 1),
        (1, 32, 64, 16, 2),  # a run across two lines
        (10, 16, 16, 0, 5),  # pixels that touch are one run
        (10, 21, 3, 0, 2),  # so are those that overlap: 48 bytes
        (10, 16, 32, 0, 10),  # a gap behind each pixel
        (10, 16, 32, 24, 20),
        (3, 1, 1000, 0, 3),
    ],
)
def test_bytes_come_in_lines(length, channel, jump, address, lines):
    assert transfer_bytes(load(length, channel, jump, address), 32) == 32 * lines
    save = make("SAVE", SAVE, SAVE, length=length, channel=channel, jump_write=jump, ddr_addr=address)
    assert transfer_bytes(save, 32) == 32 * lines


def test_durations():
    timing = Timing(bytes_per_cycle=16, transfer_cycles=10, issue_cycles=5, alu_cycles=2)
    program = [
        load(4, 32, 32),
        make("CONVINIT", CONV, CONV, kernel_w=3, kernel_h=2),
        make("CONV", CONV, CONV, length=7, channel_group=5),
        make("ALUINIT", MISC, MISC, kernel_w=3, kernel_h=3, length=4, channel_group=2),
        make("ALU", MISC, MISC),
        make("ELEW", MISC, MISC, num=2, length=6, channel_group=3),
        make("LOAD", LOAD, LOAD, length=9, broadcast=7),
        make("END", SAVE, SAVE),
    ]
    assert durations(program, timing) == [10 + 8, 0, 5 + 7 * 6 * 5, 0, 5 + 2 * 4 * 9 * 2, 5 + 36, 10 + 9, 0]


def test_engines_overlap_until_a_token_holds_one():
    """A CONV that waits for its LOAD, the next LOAD beside it, and a LOAD that waits for the CONV."""
    init = make("CONVINIT", CONV, CONV, kernel_w=1, kernel_h=1)
    convolve = make("CONV", CONV | LOAD, CONV | LOAD, length=100, channel_group=1)
    program = [load(by=LOAD | CONV), init, convolve, load(), load(on=LOAD | CONV)]
    one = TIMING.transfer_cycles + 32 / TIMING.bytes_per_cycle
    all_of_it = 100 + TIMING.issue_cycles
    made = schedule(program)
    assert made.start == pytest.approx([0, 0, one, one, one + all_of_it])
    assert made.end == pytest.approx([one, 0, one + all_of_it, 2 * one, 2 * one + all_of_it])
    assert made.ready == pytest.approx([0, 0, 0, one, 2 * one])
    assert made.waits_for == [NOTHING, NOTHING, 0, NOTHING, 2]
    assert made.cycles == pytest.approx(2 * one + all_of_it)
    assert made.busy() == pytest.approx([3 * one, 0, all_of_it, 0])
    record = estimate_cycles(program)
    assert record["cycles"] == round(2 * one + all_of_it)
    assert record["sequential"] == round(3 * one + all_of_it)
    assert list(record["busy"]) == list(ENGINES)
    # every other core at work makes transfers longer, and nothing else
    slower = one * TIMING.stretch(3)
    assert TIMING.stretch(3) == pytest.approx(3 * 22 * 0.3 / (0.45 * 17.1))
    assert schedule(program, cores=3).cycles == pytest.approx(2 * slower + all_of_it)


def test_two_saves_of_a_pair_take_turns():
    """Whether their ports share the way to DDR is unknown: the two together move no more than one."""
    first = make("SAVE", SAVE, 0, length=4, channel=32, jump_write=32)
    second = make("SAVE", 0, SAVE, length=4, channel=32, jump_write=32)
    made = schedule([first, second])
    assert made.start == pytest.approx([0, made.end[0]]) and made.cycles == pytest.approx(2 * made.end[0])


def test_an_empty_program():
    assert schedule([]).cycles == 0 and estimate_cycles([])["cycles"] == 0


def test_the_vendors_code_takes_what_the_board_takes(shared):
    """MobileNetV2 as the vendor's compiler made it; published: 336.82 frames/s on one core at 300 MHz."""
    path = shared("golden/wild/mobilenetv2_224_pt_b4096_3.5.xmodel")
    (program,) = read_programs(Graph.load(path))
    cycles = estimate_cycles(decode(program.code))["cycles"]
    microseconds = cycles / 300 + HOST.job_us + HOST.fetching(1000, 1)
    assert 1e6 / microseconds == pytest.approx(336.82, rel=0.08)
