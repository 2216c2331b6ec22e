"""The one exception class for mistakes that a user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input: a file, a row, a config key, a setting.

    The message is all the user sees (no traceback), so it names the file, row or
    key, says what was found and what was expected, and what to do next.
    """


@contextmanager
def about(source: object) -> Iterator[None]:
    """Let every UserError of the block name `source`, the file that it is about."""
    try:
        yield
    except UserError as error:
        if str(source) in str(error):
            raise
        raise type(error)(f"{source}: {error}") from None
