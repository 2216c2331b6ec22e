"""Values at which parsers break."""

NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**20,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32 - 1,
    2**62,
)
"""Integers at which something ends: a type, a count, a size."""
TEXTS = (
    b"",
    b"0",
    b"-1",
    b"1e9",
    b"NaN",
    b"\xff",
    b"\0",
    b"\r\n",
    b"\n",
    b",",
    b'"',
    b"9" * 40,
    b"A" * 300,
    b"\xef\xbb\xbf",
)
