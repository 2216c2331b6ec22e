"""How much work something is, without a clock: the same on every machine and under every load."""

import sys


def counted_calls(function, *arguments):
    """(what the function gives, how many calls of Python's and C's functions that took)."""
    count = 0

    def note(_, event, __):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        found = function(*arguments)
    finally:
        sys.setprofile(before)
    return found, count
