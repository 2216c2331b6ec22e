"""The networks of docs/networks.md: who makes each."""

from benchmarks.networks import keras_makers, torch_makers

CATALOGUE = {
    **keras_makers.APPLICATIONS,
    **torch_makers.CLASSIFIERS,
    **keras_makers.OWN,
}
"""Name -> maker with `kind` (heading of the page) and `network(folder)` -> dpuflow.network.Network."""
