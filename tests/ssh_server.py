"""An OpenSSH server on this machine that stands for a board."""

import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from dpuflow.board.connection import Board
from dpuflow.virtual_board.run import environment


def _sshd():
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


def what_is_missing():
    """Why there can be no server on this machine, or None."""
    if shutil.which("ssh-keygen") and _sshd():
        return None
    return "needs OpenSSH's sshd and ssh-keygen (make test-tools installs openssh-server)"


def _free_port():
    """A free port below those that Linux gives to outgoing connections: nobody takes it at a restart."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def make_keys(folder):
    """Fill a folder with host keys (one to change to) and a user's key; returns it."""
    for name in ("host", "other_host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    return folder


class Server:
    """A real sshd on a loopback port whose logins find the virtual board."""

    def __init__(self, folder, keys, target=None, batch=1):
        self.folder, self.keys = folder, keys
        self.port = _free_port()
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
        for _ in range(2000):
            if self.process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def stop(self):
        """Stop listening and cut all connections."""
        self.cut()
        self.process.terminate()
        self.process.wait(100)

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
        return Board(**{**self.entry(), **changes})

    def entry(self):
        """Its entry under `boards` of a runner."""
        return {
            "host": f"{getpass.getuser()}@127.0.0.1",
            "port": self.port,
            "identity": str(self.keys / "user"),
            "ssh_config": "none",
            "known_hosts": str(self.folder / "known_hosts"),
            "python": sys.executable,
            "folder": os.path.relpath(self.home / "dpuflow", Path.home()),  # as the default is
            "lock": str(self.home / "board.lock"),
            "environment": self.variables,
            "connect_timeout_s": 60,
            "backoff_s": 0.05,
        }
