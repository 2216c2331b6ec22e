"""Text of whole CSV lines -> uint8 table, by byte-wide NumPy arithmetic that checks every field.

Fields are whole numbers 0..255 written with one to three digits. A field ends at a separator
byte. Its value is computed at *every* byte position from the three bytes before it, with
eight-bit operations on contiguous memory (which NumPy does with SIMD instructions), then
picked at the separators. Several threads gain little: the steps are too short for handing
the interpreter lock over (measured: 0.30 s instead of 0.40 s on two cores).
"""

import numpy as np

COMMA, LF, CR = b",\n\r"
BEFORE = 4
"""Bytes kept before the first field, so that it too has something before it."""


class BlockParser:
    """Parses blocks of lines of one file; its scratch memory is kept from block to block.

    columns : fields in a row. label_table : bool (256,), which values the first field may have.
    """

    def __init__(self, columns: int, label_table: np.ndarray) -> None:
        self.columns = columns
        self.label_table = label_table
        self.size = -1

    def _grow(self, size):
        """Scratch for blocks of up to `size` bytes: fresh memory costs more time than the arithmetic."""
        self.size = size
        self.text, self.digit = np.full((2, size + BEFORE), LF, np.uint8)
        self.is_digit = np.zeros(size + BEFORE, bool)
        self.value, self.head = np.empty((2, size), np.uint8)
        self.wrong, self.more, self.ends = np.empty((3, size), bool)

    def __call__(self, data: bytes) -> np.ndarray | None:
        """Whole lines (LF or CRLF throughout) -> uint8 (rows, columns), or None if anything is faulty."""
        size = len(data)
        if size > self.size:
            self._grow(size)
        self.text[BEFORE : BEFORE + size] = np.frombuffer(data, np.uint8)
        text = self.text[BEFORE : BEFORE + size]
        np.subtract(self.text, np.uint8(48), out=self.digit)
        np.less(self.digit, 10, out=self.is_digit)
        np.multiply(self.digit, self.is_digit.view(np.uint8), out=self.digit)
        ends = np.logical_not(self.is_digit[BEFORE : BEFORE + size], out=self.ends[:size])
        newline = self._newlines(text, ends, data.endswith(b"\r\n"))
        if newline is None or self._any_wrong(size, ends):
            return None
        index = np.flatnonzero(ends)
        if len(index) % self.columns or not np.array_equal(index[self.columns - 1 :: self.columns], newline):
            return None
        # the indices are valid: mode "clip" only spares NumPy a buffer
        fields = np.empty(len(index), np.uint8)
        np.take(self.value[:size], index, out=fields, mode="clip")
        table = fields.reshape(-1, self.columns)
        return table if self.label_table[table[:, 0]].all() else None

    def _newlines(self, text, ends, crlf):
        """Where the last field of each row ends, or None if a byte is neither digit nor separator.

        In files with CRLF a field ends at the CR, and the LF is taken out of `ends`.
        """
        other, terminator = self.more[: len(text)], LF
        if crlf:
            terminator = CR
            np.equal(text, LF, out=other)
            if other[0] or not np.array_equal(other[1:], text[:-1] == CR):
                return None
            np.greater(ends, other, out=ends)
        newline = np.flatnonzero(np.equal(text, terminator, out=other))
        separators = len(newline) + np.count_nonzero(np.equal(text, COMMA, out=other))
        return newline if separators == np.count_nonzero(ends) else None

    def _any_wrong(self, size, ends):
        """Compute `value` at every byte; True if a field is empty, of four digits or above 255."""
        before = [slice(BEFORE - k, BEFORE - k + size) for k in range(BEFORE + 1)]
        digit, is_digit = self.digit, self.is_digit
        value, head, wrong, more = (a[:size] for a in (self.value, self.head, self.wrong, self.more))
        np.multiply(digit[before[2]], np.uint8(10), out=value)
        value += digit[before[1]]
        np.multiply(digit[before[3]], is_digit[before[2]].view(np.uint8), out=head)
        np.greater(head, 2, out=wrong)
        head *= np.uint8(100)
        value += head
        # 200 + 99 wraps around; more than 299 is wrong already
        wrong |= np.less(value, head, out=more)
        np.logical_and(is_digit[before[1]], is_digit[before[2]], out=more)
        more &= is_digit[before[3]]
        more &= is_digit[before[4]]
        wrong |= more
        wrong |= np.logical_not(is_digit[before[1]], out=more)
        wrong &= ends
        return bool(wrong.any())
