"""Tables that a stage keeps by operator (or by activation, ...): an unknown name raises, a gap is found.

Each stage knows for itself what an operator means to it. Such knowledge stands in a `Total` table, never
in an `if ... else`, whose `else` would take an operator that it has never heard of for another one, and
never in `table.get(op)`, which would pass it in silence. A table names its vocabulary, as a rule
`ops.OPERATORS` or `ops.ACTIVATIONS`; `gaps()` compares all tables with their vocabularies, and
tests/test_totality.py holds that there are none.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from dpuflow.base.errors import UserError

Vocabulary = Collection[Any] | Callable[[], Collection[Any]]

TABLES: list["Total"] = []
"""Every table of the modules that are imported."""


class Total(Mapping):
    """A read-only table with one entry for every name of a vocabulary.

    Parameters
    ----------
    where : module and meaning, for messages: "compiler.workload: operations of a layer".
    vocabulary : the names that need an entry, or a function that gives them; looked at when asked, so
        that a name added later counts.
    entries : name -> what the stage does with it.
    optional : whether the stage may do without a name: no gap then; looking it up is refused all the same.

    Looking up a name without an entry is a UserError, also through `get`.
    """

    def __init__(
        self, where: str, vocabulary: Vocabulary, entries: Mapping[Any, Any], optional: bool = False
    ) -> None:
        self.where = where
        self.optional = optional
        self._vocabulary = vocabulary
        self._entries = dict(entries)
        TABLES.append(self)

    @property
    def vocabulary(self) -> set[Any]:
        """The names that need an entry, as of now."""
        return set(self._vocabulary() if callable(self._vocabulary) else self._vocabulary)

    def __getitem__(self, name: Any) -> Any:
        if name not in self._entries:
            raise UserError(
                f"{name!r}: unknown to dpuflow.{self.where}; known are {', '.join(map(str, self._entries))}"
            )
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def gaps() -> list[str]:
    """What the tables lack or have too much against their vocabularies, a line each."""
    found = []
    for table in TABLES:
        wanted = table.vocabulary
        if not table.optional:
            found += [f"{table.where}: no entry for {name!r}" for name in sorted(wanted - set(table))]
        found += [
            f"{table.where}: {name!r} is no name of its vocabulary" for name in table if name not in wanted
        ]
    return found
