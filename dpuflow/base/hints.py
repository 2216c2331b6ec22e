"""What a mistyped name was probably meant to be, for error messages."""

import difflib


def nearest(name, valid, most=1):
    """Up to `most` of the valid names that resemble `name`, best first; case does not count."""
    lower = {str(candidate).lower(): str(candidate) for candidate in valid}
    return [lower[match] for match in difflib.get_close_matches(str(name).lower(), lower, most, 0.5)]


def did_you_mean(name, valid, most=1):
    """End of a message: "did you mean seed?", or all valid names in their order where none is near."""
    close = nearest(name, valid, most)
    return f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(map(str, valid))}"


def no_entry(config, section, name):
    """Message about a name that a section of the configuration does not have."""
    return f"{section} has no entry {name!r}; {did_you_mean(name, config[section])}"
