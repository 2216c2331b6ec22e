"""Read JSON of other tools that may lack what the report would like to show."""


def mapping(value):
    """The value if it is a dict, else {}."""
    return value if isinstance(value, dict) else {}


def entries(value):
    """The dicts among the members of a list; [] for anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def number(value):
    """The value if it is a number (no bool), else None."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def text(value):
    """The value if it is a string, else ""."""
    return value if isinstance(value, str) else ""
