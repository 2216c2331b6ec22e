"""The networks of docs/networks.md: who makes each."""

from benchmarks.networks.keras_makers import APPLICATIONS, OWN

CATALOGUE = {**APPLICATIONS, **OWN}
"""Name -> maker with `kind` (heading of the page) and `network(folder)` -> dpuflow.network.Network."""
