"""Damage in xmodels of our own: refused when read, or the content is the same to the last bit."""

import numpy as np
import pytest

from dpuflow.base import protobuf_seal as seal
from dpuflow.base.errors import UserError
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.emulator import Emulator
from dpuflow.xir import Graph, schema
from tests.hand_network import hand_network

FLIPS = 2000


@pytest.fixture(scope="module")
def xmodel(tmp_path_factory):
    """A compiled model as dpuflow writes it."""
    path = tmp_path_factory.mktemp("seal") / "hand.xmodel"
    lower(hand_network(), get_target("kv260")).save(path)
    return path


def flipped(path, count, seed=1):
    """The file's bytes with one bit flipped, `count` times, the seal's own bits among them."""
    data = path.read_bytes()
    random = np.random.default_rng(seed)
    places = random.permutation(len(data))[:count].tolist() + list(range(len(data) - seal.SIZE, len(data)))
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        yield place, bytes(changed)


@pytest.mark.fault("xmodel", "one bit flipped at 2,000 places, weights and seal among them", "refused")
def test_a_flipped_bit_in_an_xmodel_never_changes_it(xmodel):
    whole, refused = Graph.load(xmodel).to_bytes(), 0
    for _, data in flipped(xmodel, FLIPS):
        try:
            graph = Graph.from_bytes(data, "f.xmodel")
        except UserError as error:
            assert "f.xmodel" in str(error)
            refused += 1
            continue
        # a flip in the seal's own label: what remains is the content, and a field that nobody reads
        graph.proto.DiscardUnknownFields()
        assert graph.to_bytes() == whole
    assert refused > FLIPS * 0.98


@pytest.mark.fault("xmodel", "one bit of a weight flipped, before the emulator runs the file", "refused")
def test_a_flipped_weight_is_refused_by_the_emulator(xmodel, tmp_path):
    data = bytearray(xmodel.read_bytes())
    arrays = [op.array() for op in Graph.load(xmodel).ops if op.type.startswith("const")]
    weights = next(array for array in arrays if array.ndim == 4)
    place = bytes(data).find(weights.tobytes())
    assert place > 0
    data[place + 5] ^= 0x40
    path = tmp_path / "flipped.xmodel"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"flipped\.xmodel: damaged: .*remove it and run again"):
        Emulator(path)
    # without its seal it would pass: that is what the seal is for
    path.write_bytes(data[: -seal.SIZE])
    Emulator(path)


def test_vendor_files_have_no_seal_and_are_taken(shared):
    data = shared("golden/vendor/zcu102_mnist_3.0.xmodel").read_bytes()
    assert seal.unsealed(data, "x") == data
    again = seal.sealed(data)
    assert Graph.from_bytes(again).proto == Graph.from_bytes(data).proto


def test_protobuf_reads_the_content_without_knowing_of_seals(xmodel):
    graph = schema.message("Graph").FromString(xmodel.read_bytes())
    graph.DiscardUnknownFields()
    assert graph == Graph.load(xmodel).proto
