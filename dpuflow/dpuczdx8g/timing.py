"""How long a DPUCZDX8G and its board take: the few numbers that both models of time share.

The vendor publishes no timing of the hardware. Numbers marked *fitted* were chosen so that estimates agree
with published measurements of whole networks on real boards (docs/performance.md, "Time on the board", has
the table of errors and what each number rests on). Nothing was measured by dpuflow.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from dpuflow.device.targets import Board


@dataclass(frozen=True)
class Timing:
    """What the estimates take for granted of the DPU itself; cycles are the DPU's own.

    bytes_per_cycle : a core's LOAD and its SAVE engine each move so much; fitted. Its two AXI ports of 128
        bits carry 32 bytes per cycle at most, so this is two thirds of that.
    transfer_cycles : what each LOAD and SAVE takes besides its bytes (address, first response); fitted.
    burst_bytes : least that is moved for a run of bytes, and the alignment of it: one beat of both ports.
    issue_cycles : what each instruction that computes takes besides its steps (to fill and empty the engine);
        fitted. Only machine code tells how many there are; the model by layers leaves it out.
    alu_cycles : of one kernel position of one channel group on the ALU (pooling, depthwise); fitted. On the
        array it takes 1 (docs/reference/instruction-set.md), and so, it is assumed, does an elementwise one.
    overlap : of two neighbouring layers on different engines, the part of the shorter one that runs beside
        the longer one. Like the next two only for the model by layers (machine code says itself); fitted.
    exposed : of computing and moving of one layer, the part of the shorter one that does not run beside the
        longer one (its first weights, its last rows); fitted.
    kept : of the bytes of maps that the banks could hold until their last reader but that not every compiler
        keeps there, the part that stays; fitted (`residency`).
    memory_share : of what the board's DDR moves at best, the part that all cores of the DPU together load,
        and as much that they save; fitted (`stretch`).
    memory_gb_s : of the board's DDR at best, width times transfers per second: 64 bits at 2133 MT/s unless
        the board says another (`on`).
    clock_mhz : of the DPU; of a target without a board 300.
    """

    bytes_per_cycle: float = 22.0
    transfer_cycles: float = 8.0
    issue_cycles: float = 60.0
    burst_bytes: int = 32
    alu_cycles: float = 1.75
    overlap: float = 0.7
    exposed: float = 0.25
    kept: float = 0.5
    memory_share: float = 0.45
    memory_gb_s: float = 17.1
    clock_mhz: float = 300.0

    def on(self, board: Board | None) -> "Timing":
        """The same with a board's clock, and with its DDR where it says what that moves."""
        if board is None:
            return self
        memory = self.memory_gb_s if board.memory_gb_s is None else board.memory_gb_s
        return replace(self, clock_mhz=board.clock_mhz, memory_gb_s=memory)

    def loaded_gb_s(self, cores: int = 1) -> float:
        """GB/s that a core loads, and saves as many, with `cores` at work: by its ports or by the DDR."""
        ports = self.bytes_per_cycle * self.clock_mhz / 1e3
        return min(ports, self.memory_share * self.memory_gb_s / cores)

    def stretch(self, cores: int) -> float:
        """How many times longer a transfer takes with `cores` cores at work than by the core's ports."""
        return self.bytes_per_cycle * self.clock_mhz / 1e3 / self.loaded_gb_s(cores)


@dataclass(frozen=True)
class Host:
    """What the estimates take for granted of the board's processor and its runtime, per image; all fitted.

    job_us : from a job's end on a core to the start of the next: interrupt, driver, runtime.
    fetch_us, fetch_ns : per output, and per byte of output, in which a core waits for its next job.
        The driver serves one core after the other: several wait for each other in all three.
    call_us, input_ns : of a call of the runtime from Python, in all and per byte of its input.
    prepare_us, prepare_ns : of a C++ application, to make the input of a picture: in all, and per byte.
    output_ns : per byte of output, of either: what is done with it once it is there.
    """

    job_us: float = 120.0
    fetch_us: float = 50.0
    fetch_ns: float = 2.0
    call_us: float = 110.0
    input_ns: float = 10.3
    output_ns: float = 5.0
    prepare_us: float = 120.0
    prepare_ns: float = 2.6

    def fetching(self, output_bytes: int, outputs: int) -> float:
        """Microseconds that a core waits for its outputs to be fetched."""
        return outputs * self.fetch_us + output_bytes * self.fetch_ns / 1e3


TIMING, HOST = Timing(), Host()


def figures(
    dpu_us: float,
    shared_us: float,
    cores: int,
    input_bytes: int,
    output_bytes: int,
    outputs: int,
    jobs: int = 1,
    host: Host = HOST,
) -> dict[str, Any]:
    """What the board gives for a network whose jobs take so long on one core.

    Parameters
    ----------
    dpu_us, shared_us : of one image on a core alone, and with all `cores` of them at work.
    input_bytes, output_bytes, outputs : of one image, int8; how many tensors the outputs are.
    jobs : DPU subgraphs, each of which is a call of its own.

    Returns
    -------
    dict for JSON: `overhead_us` and `latency_us` of one call from Python, and `frames_per_second` of a C++
    application that prepares its pictures: with one thread, with threads enough to keep one core or all cores
    of the board at work.
    """
    starts, fetch = jobs * host.job_us, host.fetching(output_bytes, outputs)
    arrays = (input_bytes * host.input_ns + output_bytes * host.output_ns) / 1e3
    overhead = starts + fetch + jobs * host.call_us + arrays
    prepare = host.prepare_us + (input_bytes * host.prepare_ns + output_bytes * host.output_ns) / 1e3
    return {
        "latency_us": figure(overhead + dpu_us),
        "overhead_us": figure(overhead),
        "frames_per_second": {
            "one_thread": figure(1e6 / (prepare + starts + fetch + dpu_us)),
            "one_core_saturated": figure(1e6 / (starts + fetch + dpu_us)),
            "board": figure(1e6 / between_images(starts + fetch, shared_us, cores)),
        },
    }


def between_images(served_us: float, shared_us: float, cores: int) -> float:
    """Mean microseconds between images when every core is at work or waits to be served.

    That is, for its outputs to be fetched and its next job to be started. One processor serves all cores, one
    after the other: a closed queue of `cores` customers, by mean value analysis (Reiser and Lavenberg 1980).
    Never less than `served_us`, nor than the cores' share of an image's time alone.
    """
    waiting, between = 0.0, served_us + shared_us
    for number in range(1, cores + 1):
        served = served_us * (1 + waiting)
        between = (served + shared_us) / number
        waiting = served / between
    return between


def assumptions(board: Board | None, timing: Timing = TIMING, host: Host = HOST) -> dict[str, Any]:
    """The numbers, and sentences for a report: what the estimate takes for granted.

    timing : as it is on the board (`Timing.on`).
    """
    return {
        **asdict(timing),
        **asdict(host),
        "notes": [
            *_not_told(board, timing),
            "an engine works every cycle of its instructions; pooling and depthwise steps take"
            f" {timing.alu_cycles:g} cycles, all others one",
            f"a core loads and saves {timing.bytes_per_cycle:g} bytes per cycle each, and"
            f" {timing.transfer_cycles:g} cycles more for every instruction; all cores together no more than"
            f" {timing.memory_share:g} of what the board's DDR moves at best ({timing.memory_gb_s:g} GB/s)",
            f"machine code: an instruction that computes takes {timing.issue_cycles:g} cycles more, and each"
            f" run of bytes moves in whole bursts of {timing.burst_bytes}",
            f"a core waits {host.job_us:g} µs for its next job's start, {host.fetch_us:g} µs per output and"
            f" {host.fetch_ns:g} ns per byte of it, and cores wait for each other in that; a call from Python"
            f" {host.call_us:g} µs more and {host.input_ns:g} ns per byte of input; what is done with a byte"
            f" of output {host.output_ns:g} ns",
            f"a C++ application prepares a picture in {host.prepare_us:g} µs and {host.prepare_ns:g} ns a"
            " byte",
            "all numbers hold at every clock, for every size of DPU and for every processor: they are of a"
            " Zynq UltraScale+ with four Cortex-A53",
            "one_thread is one thread of an application that does everything in turn; one_core_saturated and"
            " board need threads enough that no core waits for a picture, two for each core and more",
            "before compiling: a layer takes the longer of computing and moving (loading or saving) and"
            f" {timing.exposed:g} of the shorter one; weights are read once, if need be while the layer"
            " before computes and moves nothing; neighbours on different engines overlap by"
            f" {timing.overlap:g} of the shorter one",
            "before compiling: one LOAD or SAVE moves a row of a map or the weights of one output channel;"
            " a max pool runs along the rows and then along the columns where that is quicker",
            "before compiling: a map stays on chip for the next layer where both fit, and by"
            f" {timing.kept:g} of its bytes where the banks could hold it until its last reader",
            "all of this is fitted to published measurements of whole networks (docs/performance.md), not"
            " measured here; the CPU's layers (softmax, what leaves the DPU) are not counted",
        ],
    }


def _not_told(board, timing):
    """Sentences about what the target says nothing of."""
    told = [] if board else [f"clock {timing.clock_mhz:g} MHz and one core assumed"]
    if board is None or board.memory_gb_s is None:
        told.append(
            f"a DDR of {timing.memory_gb_s:g} GB/s assumed (64 bits at 2133 MT/s); the target's"
            " `board.memory_gb_s` says another: with a slower one layers that wait for it take longer"
        )
    return told


def figure(value: float) -> float:
    """Four significant digits: an estimate has no more."""
    return float(f"{value:.4g}")
