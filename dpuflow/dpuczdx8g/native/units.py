"""The operations of a Job as the schedule sees them, and who reads which map.

What runs in phases (transposed and dilated convolutions), or in slices of its channels because not even one
pixel fits, is several units; their outputs are views of one map in DDR.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dpuflow.dpuczdx8g.isa.machine import Machine
from dpuflow.dpuczdx8g.native import pooling
from dpuflow.dpuczdx8g.native.assembled import assemble
from dpuflow.dpuczdx8g.native.operations import (
    INPUT,
    KINDS,
    OUTPUT,
    PARAMETERS,
    WORKSPACE,
    FeatureMap,
    Job,
    Operation,
)
from dpuflow.dpuczdx8g.native.tiling import channel_slices
from dpuflow.dpuczdx8g.native.transposed import phases
from dpuflow.dpuczdx8g.native.weight_loads import reads


@dataclass
class Units:
    """Units of a Job.

    Attributes
    ----------
    operations : in program order.
    spill : gives a map its place in DDR; called for the maps of which there are views.
    """

    machine: Machine
    job: Job
    spill: Callable[[FeatureMap], None]
    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._parents: dict[int, FeatureMap] = {id(view): source for view, source in self.job.views}
        self._in_ddr: set[int] = {id(source) for _, source in self.job.views}
        self._readers: dict[int, list[int]] = {}
        self._views: list[FeatureMap] = []
        self._joined: dict[int, FeatureMap] = {}
        assemble(self.job, self.machine)
        for op in self.job.operations:
            self._in_ddr.update(id(part.feature_map) for part in op.output.parts)
        for op in reversed(self.job.operations):
            if op.kind == "concat" and not op.output.parts:
                self._join(op)
        for op in self.job.operations:
            for step in pooling.steps(op, self.machine):
                self._expand(step)
        for number, op in enumerate(self.operations):
            op.reads = reads(op, self.machine, self.job.parameters)
            if op.factors is not None:
                self._in_ddr.add(id(self.parent(op.factors)))
            for feature_map in op.inputs:
                self._readers.setdefault(id(feature_map), []).append(number)

    def _join(self, op):
        """Inputs that go to DDR anyway are written to their place in a concat's output at once."""
        self.spill(op.output)
        self._in_ddr.add(id(op.output))
        channel = 0
        for feature_map in op.inputs:
            free = feature_map.region == WORKSPACE and id(feature_map) not in self._in_ddr
            if free and self.parent(feature_map) is feature_map and id(feature_map) not in self._joined:
                feature_map.lies_in(op.output, channel)
                self._joined[id(feature_map)] = op.output
            channel += feature_map.shape[2]

    def _apart(self, op):
        """What must still be moved for a concat, each input by itself."""
        channel, moves = 0, []
        for feature_map in op.inputs:
            count = feature_map.shape[2]
            target = op.output.channels(channel, count)
            if self._joined.get(id(feature_map)) is not op.output or feature_map.address != target.address:
                moves.append(replace(op, inputs=[feature_map], output=target))
            channel += count
        return moves

    def written_with(self, feature_map: FeatureMap) -> list[FeatureMap]:
        """The maps whose bytes are written with a map's: whose view it is, and what that is joined to."""
        found = [self.parent(feature_map)]
        while id(found[-1]) in self._joined:
            found.append(self._joined[id(found[-1])])
        return found

    def _expand(self, op):
        if op.output.parts:
            return
        if KINDS[op.kind].phases_as:
            cut = [part for phase in self._pieces(op, phases) for part in channel_slices(phase, self.machine)]
        elif op.kind == "concat":
            cut = self._apart(op)
        elif len(channel_slices(op, self.machine)) > 1:
            cut = self._pieces(op, lambda op: channel_slices(op, self.machine))
        else:
            cut = [op]
        for part in cut:
            self.operations.append(part)
            if part is op:
                continue
            self._view(part.output, op.output)
            if op.kind == "concat":
                continue
            for mine, whole in zip(part.inputs, op.inputs, strict=True):
                if mine is not whole:
                    self._view(mine, whole)
            if part.factors is not None and part.factors is not op.factors:
                self._view(part.factors, op.factors)

    def _pieces(self, op, cut):
        """Views copy their map's address, so that must be settled before."""
        for feature_map in (op.output, *op.inputs, op.factors):
            if feature_map is not None:
                source = self.parent(feature_map)
                self.spill(source)
                self._in_ddr.add(id(source))
        return list(cut(op))

    def _view(self, view, whole):
        view.spilled = True
        self._parents[id(view)] = self.parent(whole)
        self._views.append(view)  # keeps its id

    def parent(self, feature_map: FeatureMap) -> FeatureMap:
        """The map whose bytes a view shows; any other map itself."""
        return self._parents.get(id(feature_map), feature_map)

    def sources(self, feature_map: FeatureMap) -> list[FeatureMap]:
        """The maps in DDR that it is loaded from."""
        return [self.parent(part.feature_map) for part in feature_map.parts] or [self.parent(feature_map)]

    def readers(self, feature_map: FeatureMap) -> list[int]:
        """Numbers of the units that read a map itself, not a view of it."""
        return self._readers.get(id(feature_map), [])

    def given(self, feature_map: FeatureMap) -> bool:
        """Whether a map is in DDR from the beginning."""
        return feature_map.region in (INPUT, PARAMETERS)

    def goes_to_ddr(self, feature_map: FeatureMap) -> bool:
        """Whether a map is needed in DDR, whoever else reads it."""
        parent = self.parent(feature_map)
        inside = parent is not feature_map or id(parent) in self._joined
        return inside or parent.region == OUTPUT or id(parent) in self._in_ddr
