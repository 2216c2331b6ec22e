"""A job that is killed cannot say so; its parent can: what the job needed, and what to do.

The kernel ends a process that takes the last memory by SIGKILL, which leaves an empty log. So a script does
its work in a child, and the small process that waits for it writes the last line of the log.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent ends."""
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def supervise(say: Callable[[float, bool], object]) -> None:
    """Go on in a child process; the process that called leaves with the child's status.

    say : called if SIGKILL ended the child, with its greatest resident memory in MB and whether the kernel
    has ended a process for want of memory meanwhile. Other signals end the parent in the same way.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent, kills = os.getpid(), out_of_memory_kills()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before prctl was heard
            os._exit(1)
        return
    for forwarded in FORWARDED:
        signal.signal(forwarded, lambda number, frame: os.kill(child, number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child, too
    _, status, usage = os.wait4(child, 0)
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    if number == signal.SIGKILL:
        say(usage.ru_maxrss / 1024, out_of_memory_kills() > kills)
        os._exit(128 + number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(parent, number)
    os._exit(128 + number)


def killed(job: str, megabytes: float, by_kernel: bool) -> str:
    """The message about a job that SIGKILL ended when it had held so many MB."""
    why = (
        "because memory ran out (the kernel's out-of-memory killer)"
        if by_kernel
        else "probably because memory ran out, unless you or a cluster's limit ended it"
    )
    return f"{job} was killed (SIGKILL), {why}. {needs(job, megabytes)}"


def needs(job: str, megabytes: float) -> str:
    """What a job held at most, and what to do if that is too much."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return (
        f"It held {megabytes:,.0f} MB at most; this machine has {total:,} MB. Close other programs, run one "
        f"job at a time (--cores 1), lower batch_size if it trains; on a cluster ask for more, for example "
        f"--set-resources {job}:mem_mb={max(1000, -(-int(2 * megabytes) // 1000) * 1000)}"
    )


def peak_megabytes() -> float:
    """Greatest resident memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def out_of_memory_kills() -> int:
    """How many processes the kernel has ended for want of memory, here and in this control group."""
    total = 0
    for path in (Path("/proc/vmstat"), _control_group() / "memory.events"):
        try:
            words = path.read_text().split()
            total += int(words[words.index("oom_kill") + 1])
        except (OSError, ValueError):
            continue
    return total


def _control_group():
    try:
        return Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().split("::/")[1].split("\n")[0]
    except (OSError, IndexError):
        return Path("/sys/fs/cgroup")
