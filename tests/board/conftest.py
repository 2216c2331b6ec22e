"""A small compiled model, its bundle, and an SSH server that stands for a board."""

import pytest
from small_model import CLASSES, small_images, small_network
from ssh_server import Server, make_keys, what_is_missing

from dpuflow.board import bundle
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target


@pytest.fixture(scope="session")
def xmodel(tmp_path_factory):
    """A compiled model for the target kv260 of release 3.0."""
    path = tmp_path_factory.mktemp("model") / "small.xmodel"
    lower(small_network(), get_target("kv260")).save(path)
    return path


@pytest.fixture(scope="session")
def bundle_tar(xmodel, tmp_path_factory):
    """Its bundle."""
    path = tmp_path_factory.mktemp("bundle") / "kv260.tar"
    images, labels = small_images()
    bundle.build(path, xmodel, images, labels, CLASSES, get_target("kv260"), "test")
    return path


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """Folder with host keys (one to change to) and a user's key."""
    if missing := what_is_missing():
        pytest.skip(missing)
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def server(tmp_path, keys):
    """A running Server."""
    running = Server(tmp_path, keys)
    yield running
    running.stop()


@pytest.fixture
def fast_server(tmp_path, keys):
    """A Server whose device takes 64 images per call, so that many images take little time."""
    running = Server(tmp_path, keys, batch=64)
    yield running
    running.stop()
