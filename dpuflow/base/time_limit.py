"""A bound on the processor time that a library may take while it reads somebody's file."""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dpuflow.base.errors import UserError

Result = TypeVar("Result")

SECONDS = 120.0
"""Of processor time, which the load of the machine does not change: a hundred times what a network takes."""
LOOK_S = 0.2
"""Seconds between two looks at the clock."""


def in_bounded_time(source: object, work: Callable[[], Result], stop: Callable[[], None]) -> Result:
    """`work()`; UserError about `source` when it takes more than SECONDS of this process's processor time.

    For libraries that compute what a file asks for, however much it may be, and that let other threads run
    meanwhile: Python cannot interrupt them. The work goes on in a thread of its own, which `stop` asks to end
    and which ends with the process in any case (whose status is then 1). What `work` raises is raised here.
    """
    outcome: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            errors.append(error)

    begun = time.process_time()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_S)
        if thread.is_alive() and time.process_time() - begun > SECONDS:
            stop()
            atexit.register(_leave, thread)
            raise UserError(
                f"{source}: reading it takes more than {SECONDS:g} s of processor time: it computes "
                "something huge from constants, as no network for a DPU does; export it with them folded"
            )
    if errors:
        raise errors[0]
    return outcome[0]


def _leave(thread: threading.Thread) -> None:
    """End the process without taking apart the library that still computes in the thread: it would crash."""
    if thread.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
