"""Differences between two graphs, op by op."""

import math

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.xir.describe import abridged
from dpuflow.xir.graph import Graph


def differences(old: Graph, new: Graph) -> list[str]:
    """List of lines, one per difference from `old` to `new`; empty when they hold the same.

    Ops and subgraphs are matched by name; constants are compared value by value.
    """
    lines = _attributes("graph", old.attrs, new.attrs)
    if old.name != new.name:
        lines.insert(0, f"graph name: {old.name!r} -> {new.name!r}")
    lines += [f"op removed: {op.name} ({op.type})" for op in old.ops if op.name not in new]
    lines += [f"op added: {op.name} ({op.type})" for op in new.ops if op.name not in old]
    common = [op for op in old.ops if op.name in new]
    for op in common:
        lines += _op(op, new.op(op.name))
    order = [op.name for op in common]
    if order != [op.name for op in new.ops if op.name in old]:
        lines.append("order of the ops differs")
    return lines + _subgraphs(old, new)


def _op(old, new):
    place = f"op {old.name}"
    lines = []
    if old.type != new.type:
        lines.append(f"{place}: type {old.type} -> {new.type}")
    if old.inputs != new.inputs:
        lines.append(f"{place}: inputs {old.inputs} -> {new.inputs}")
    if old.tensor.name != new.tensor.name:
        lines.append(f"{place}: tensor {old.tensor.name} -> {new.tensor.name}")
    before, after = (f"{list(t.shape)} {t.data_type}{t.bit_width}" for t in (old.tensor, new.tensor))
    if before != after:
        lines.append(f"{place}: output {before} -> {after}")
    if old.attrs.kind("data") == new.attrs.kind("data") == "bytes":
        lines += _data(place, old, new)
        lines += _attributes(place, old.attrs, new.attrs, skip=("data",))
    else:
        lines += _attributes(place, old.attrs, new.attrs)
    return lines + _attributes(f"{place}: tensor", old.tensor.attrs, new.tensor.attrs)


def _data(place, old, new):
    if old.attrs["data"] == new.attrs["data"]:
        return []
    try:
        a, b = old.array(), new.array()
    except UserError:  # of a damaged file, one side does not fill its tensor
        a = b = None
    if a is None or b is None or a.shape != b.shape:
        return [f"{place}: data {len(old.attrs['data'])} bytes -> {len(new.attrs['data'])} bytes"]
    change = np.abs(b.astype(np.float64) - a.astype(np.float64))
    count = np.count_nonzero(change)
    return [f"{place}: {count} of {a.size} values differ, by up to {change.max():g}"]


def _attributes(place, old, new, skip=()):
    lines = []
    for name in sorted({*old, *new} - set(skip)):
        before, after = (_value(attrs, name) for attrs in (old, new))
        if before != after and not _both_nan(before, after):
            lines.append(f"{place}: {name} {_text(before)} -> {_text(after)}")
    return lines


def _both_nan(before, after):
    """Whether two numbers of one kind are NaN, which equals nothing."""
    if None in (before, after) or before[0] != after[0]:
        return False
    return all(isinstance(value, float) and math.isnan(value) for _, value in (before, after))


def _value(attrs, name):
    """(kind, value), None when absent: 8 as int32 and 8 as int64 are different things to XIR."""
    return (attrs.kind(name), attrs[name]) if name in attrs else None


def _text(found):
    if found is None:
        return "absent"
    kind, value = found
    return f"{kind} {abridged(value)}"


def _subgraphs(old, new):
    before, after = (_paths(graph.root) for graph in (old, new))
    lines = [f"subgraph removed: {name}" for name in before if name not in after]
    lines += [f"subgraph added: {name}" for name in after if name not in before]
    for name in before:
        if name in after:
            if before[name].op_names != after[name].op_names:
                lines.append(f"subgraph {name}: holds other ops")
            lines += _attributes(f"subgraph {name}", before[name].attrs, after[name].attrs)
    return lines


def _paths(subgraph, prefix=""):
    """Path of names -> subgraph; a superlayer may be called like the subgraph around it."""
    path = f"{prefix}{subgraph.name}"
    found = {path: subgraph}
    for child in subgraph.children:
        found.update(_paths(child, f"{path}/"))
    return found
