"""How far long work is: a line that is overwritten in a terminal, plain lines in a job's log."""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TextIO, TypeVar

log = logging.getLogger("dpuflow")
T = TypeVar("T")

SILENT_SECONDS = 2.0
"""Work that ends sooner shows nothing."""
TERMINAL_SECONDS, LOG_SECONDS = 0.25, 10.0
CLEAR = "\r\x1b[2K"
"""Back to the start of the line, and nothing on it."""


def transient(text: str, stream: TextIO) -> None:
    """Show `text` in place of the terminal's last line, cut to its width."""
    width = shutil.get_terminal_size().columns
    stream.write(CLEAR + text[: width - 1])
    stream.flush()


class Progress:
    """Counts units of work.

    what : the units, in the plural ("pictures"); total : how many there are, None where that is not known.
    The terminal's line needs a terminal; log lines go to the logger "dpuflow" at level DEBUG, so to a
    job's log file only.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.done = what, total, 0
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._clock = clock
        self._start = self._logged = clock()
        self._shown = 0.0
        self._visible = False

    def update(self, count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count
        now = self._clock()
        if now - self._start < SILENT_SECONDS:
            return
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            log.debug("%s", self.sentence(now - self._start))
        if self._tty and now - self._shown >= TERMINAL_SECONDS:
            self._shown, self._visible = now, True
            transient(self.sentence(now - self._start), self._stream)

    def sentence(self, seconds: float) -> str:
        """ "1,200 of 20,000 pictures, 340/s, 55 s left" after `seconds`."""
        rate = self.done / seconds if seconds > 0 else 0.0
        text = f"{self.done:,}" + (f" of {self.total:,}" if self.total else "") + f" {self.what}"
        text += f", {rate:,.0f}/s" if rate >= 10 else f", {rate:.2g}/s"
        if self.total and rate:
            text += f", {duration((self.total - self.done) / rate)} left"
        return text

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._visible:
            self._stream.write(CLEAR)
            self._stream.flush()


def counted(
    items: Iterable[T], what: str, total: int | None, size: Callable[[T], int] = lambda item: 1
) -> Iterator[T]:
    """The items, with their progress shown; size(item) : units in one of them (images of a batch)."""
    with Progress(what, total) as progress:
        for item in items:
            yield item
            progress.update(size(item))


def duration(seconds: float) -> str:
    """ "55 s", "4 min 05 s" or "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
