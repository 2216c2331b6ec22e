"""Progress of long work: words, rates, and who sees them."""

import io
import logging

import pytest

from dpuflow.base.progress import CLEAR, Progress, counted, duration


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (65, "1 min 05 s"), (7812, "2 h 10 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_terminal_gets_count_rate_and_time_left_on_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    clock, stream = Clock(), Terminal()
    with Progress("pictures", 20000, stream, clock) as progress:
        clock.now = 1.0
        progress.update(500)
        assert stream.getvalue() == ""  # may be over at once
        clock.now = 4.0
        progress.update(700)
        assert stream.getvalue() == CLEAR + "1,200 of 20,000 pictures, 300/s, 1 min 03 s left"
        clock.now = 4.1
        progress.update(1)  # not at every step
        assert stream.getvalue().count(CLEAR) == 1
    assert stream.getvalue().endswith(CLEAR)


def test_a_log_gets_a_line_every_ten_seconds(caplog):
    clock, stream = Clock(), io.StringIO()
    with caplog.at_level(logging.DEBUG, logger="dpuflow"):
        logging.getLogger("dpuflow").propagate = True
        progress = Progress("layers", None, stream, clock)
        for _ in range(25):
            clock.now += 1.0
            progress.update()
    assert [record.message for record in caplog.records] == ["10 layers, 1/s", "20 layers, 1/s"]
    assert stream.getvalue() == ""


def test_counted_hands_on_every_item():
    assert list(counted([[1, 2], [3]], "images", 3, len)) == [[1, 2], [3]]
