"""The matrix of what reruns after which change, for docs/reliability.md."""

import staleness_files as files
import staleness_matrix as matrix


def markdown():
    """The matrix for people: what reruns after which change, and what follows from it."""
    kinds = {}
    for row in matrix.ROWS:
        if row.key != "models":  # an entry that no run uses
            kinds.setdefault(rules_of(row.reruns), []).append(f"`{row.key}`")
    for place, table in (("scripts/", files.SCRIPTS), ("envs/", files.ENVIRONMENTS), ("", files.OTHERS)):
        suffix = {"scripts/": ".py", "envs/": ".yaml"}.get(place, "")
        for name, rules in table.items():
            kinds.setdefault(rules_of(rules), []).append(f"`{place}{name}{suffix}`")
    lines = ["| change | reruns |", "| --- | --- |"]
    for rules, changes in sorted(kinds.items(), key=lambda entry: (not entry[0], entry[1])):
        lines.append(f"| {', '.join(shortened(dict.fromkeys(changes)))} | {rules or 'nothing'} |")
    lines.append(
        f"| a comment or more text in {', '.join(f'`{name}`' for name in files.NOTHING)} | nothing |"
    )
    lines += ["", "| module or data of `dpuflow/` | reruns |", "| --- | --- |"]
    kinds = {}
    for path, rules in files.modules(files.REPO).items():
        kinds.setdefault(rules_of(rules), []).append(f"`{path.removeprefix('dpuflow/')}`")
    for rules, paths in sorted(kinds.items(), key=lambda entry: (not entry[0], entry[1])):
        lines.append(f"| {', '.join(shortened(paths, '/'))} | {rules or 'nothing: no script needs it'} |")
    lines += ["", "| when this reruns | so does this, and what follows from it |", "| --- | --- |"]
    lines += [f"| `{rule}` | {rules_of('; '.join(matrix.readers(rule)))} |" for rule in matrix.FLOW]
    return "\n".join(lines) + "\n"


def rules_of(text):
    """The rules of "rule wildcard=value; ..." in alphabetical order, as Markdown."""
    return ", ".join(f"`{rule}`" for rule in sorted({part.split()[0] for part in text.split("; ") if part}))


def shortened(names, mark="."):
    """`a.b`, `a.c`, `a.d` as `a.{b, c, d}`."""
    families = {}
    for name in names:
        family, dot, last = name.strip("`").rpartition(mark)
        families.setdefault(family + dot, []).append(last)
    return [
        f"`{family}{{{', '.join(members)}}}`" if len(members) > 1 else f"`{family}{members[0]}`"
        for family, members in families.items()
    ]
