"""A small compiled model, its bundle, and an SSH server that stands for a board."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from dpuflow.board import bundle
from dpuflow.board.connection import Board
from dpuflow.compiler.reference import lower
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.targets import get_target
from dpuflow.virtual_board.run import environment

CLASSES = ["A", "B", "C, quoted", "D", "E"]


def small_network(seed=5):
    """conv - pool - conv - dense - softmax on 12 x 12 images, random int8 parameters."""
    random = np.random.default_rng(seed)

    def window(kernel, pad=0, **more):
        return {"kernel": (kernel, kernel), "stride": (1, 1), "pad": (pad,) * 4, **more}

    conv = {"dilation": (1, 1), "activation": "RELU"}
    layers = [
        Layer("image", "input", [], (12, 12, 1)),
        Layer("conv_1", "conv", ["image"], (12, 12, 8), window(3, 1, **conv)),
        Layer("pool_1", "max_pool", ["conv_1"], (6, 6, 8), {**window(2), "stride": (2, 2)}),
        Layer("conv_2", "conv", ["pool_1"], (4, 4, 12), window(3, **conv)),
        Layer("flat", "flatten", ["conv_2"], (192,)),
        Layer("dense", "dense", ["flat"], (5,), {"activation": "NONE"}),
        Layer("softmax", "softmax", ["dense"], (5,)),
    ]
    shapes = {"conv_1": (8, 3, 3, 1), "conv_2": (12, 3, 3, 8), "dense": (5, 192)}
    weights = {n: (random.integers(-90, 91, s).astype(np.int8), 7) for n, s in shapes.items()}
    biases = {n: (random.integers(-30, 31, s[0]).astype(np.int8), 6) for n, s in shapes.items()}
    for layer in layers:
        if layer.name in weights:
            layer.weights = np.ldexp(weights[layer.name][0].astype(np.float32), -7)
            layer.bias = np.ldexp(biases[layer.name][0].astype(np.float32), -6)
    points = {"image": 7, "conv_1": 5, "pool_1": 5, "conv_2": 4, "flat": 4, "dense": 1}
    scaling = {"subtract": 128.0, "divide": 128.0}
    return QuantizedNetwork(Network("small", layers), points, weights, biases, scaling)


def small_images(count=90, seed=2):
    """uint8 images (count, 12, 12, 1) with every pixel value, and labels."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 12, 12, 1), dtype=np.uint8)
    return images, random.integers(0, len(CLASSES), count)


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
    if not shutil.which("ssh-keygen") or not _sshd():
        pytest.skip("needs OpenSSH's sshd and ssh-keygen (Debian: openssh-server), which are not installed")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("host", "other_host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    return folder


def _sshd():
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


class Server:
    """A real sshd on a loopback port whose logins find the virtual board."""

    def __init__(self, folder, keys, target=None, batch=1):
        self.folder, self.keys = folder, keys
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.home = folder / "board"
        self.home.mkdir()
        self.variables = {**environment(target, batch), "PYTHONDONTWRITEBYTECODE": "1"}
        shutil.copy(keys / "user.pub", folder / "authorized_keys")
        os.chmod(folder / "authorized_keys", 0o600)
        self.write_known_host("host")
        self.process = None
        self.start()

    def write_known_host(self, name):
        """Tell the client which host key to expect."""
        key = (self.keys / f"{name}.pub").read_text().split()
        line = f"[127.0.0.1]:{self.port} {key[0]} {key[1]}\n"
        (self.folder / "known_hosts").write_text(line)

    def start(self, host_key="host"):
        """Start sshd and wait until it listens."""
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.keys / host_key}\n"
            f"PidFile {self.folder / 'sshd.pid'}\nAuthorizedKeysFile {self.folder / 'authorized_keys'}\n"
            "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\n"
            "PermitRootLogin prohibit-password\nMaxStartups 50\nLogLevel ERROR\n"
            "SetEnv SHLVL=2\n"  # bash then leaves the tester's own start-up files alone
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with open(self.folder / "sshd.log", "ab") as log:
            self.process = subprocess.Popen([_sshd(), "-D", "-e", "-f", str(config)], stderr=log)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def stop(self):
        """Stop listening and cut all connections."""
        self.cut()
        self.process.terminate()
        self.process.wait(10)

    def sessions(self):
        """Process ids of the connections that this sshd serves: its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def cut(self):
        """Kill every connection, as a network failure would; returns how many."""
        pids = self.sessions()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    def board(self, **changes):
        """The Board that a user would configure for this server."""
        settings = {
            "host": f"{getpass.getuser()}@127.0.0.1",
            "port": self.port,
            "identity": str(self.keys / "user"),
            "ssh_config": "none",
            "known_hosts": str(self.folder / "known_hosts"),
            "python": sys.executable,
            "folder": os.path.relpath(self.home / "dpuflow", Path.home()),  # as the default is
            "lock": str(self.home / "board.lock"),
            "environment": self.variables,
            "connect_timeout_s": 5,
            "backoff_s": 0.05,
        }
        return Board(**{**settings, **changes})


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
