"""Which classes a network takes for one another, where a matrix of all of them has no room."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LARGEST_GROUP = 10
"""Classes of a group: as many as a small matrix shows well."""
SHOWN_GROUPS = 6


def confused_groups(matrix: np.ndarray, groups: int = SHOWN_GROUPS) -> list[np.ndarray]:
    """Groups of classes that are most often taken for one another, the most mistakes first.

    matrix : (classes, classes) counts, rows true. The pairs of classes are joined by their mutual mistakes,
    the commonest pair first, into groups of at most LARGEST_GROUP classes; pairs of equal counts in the
    order of their labels. Returns at most `groups` increasing arrays of labels; none without mistakes.
    """
    errors = matrix + matrix.T
    np.fill_diagonal(errors, 0)
    rows, columns = np.nonzero(np.triu(errors))
    order = np.argsort(-errors[rows, columns], kind="stable")
    group_of: dict[int, list[int]] = {}
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        first, second = group_of.setdefault(i, [i]), group_of.setdefault(j, [j])
        if first is not second and len(first) + len(second) <= LARGEST_GROUP:
            first.extend(second)
            group_of |= dict.fromkeys(second, first)
    found = {id(group): sorted(group) for group in group_of.values() if len(group) > 1}
    scored = [(int(errors[np.ix_(group, group)].sum()) // 2, group) for group in found.values()]
    scored.sort(key=lambda entry: (-entry[0], entry[1]))
    return [np.array(group) for _, group in scored[:groups]]


def group_views(matrix: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each group: `labels`, `matrix` of its classes, `names`, `mistakes` within it and `images` of it."""
    views = []
    for group in confused_groups(matrix):
        part = matrix[np.ix_(group, group)]
        views.append(
            {
                "labels": group,
                "matrix": part,
                "names": [names[int(label)] for label in group],
                "mistakes": int(part.sum() - np.trace(part)),
                "images": int(matrix[group].sum()),
            }
        )
    return views
