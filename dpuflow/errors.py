"""The one exception class for mistakes that a user can mend."""


class UserError(Exception):
    """Bad input: a file, a row, a config key, a setting.

    The message is all the user sees (no traceback), so it names the file, row or
    key, says what was found and what was expected, and what to do next.
    """
