"""One board over OpenSSH: running commands, telling a dropped connection from a mistake.

The user's own ssh configuration, keys, agent and known_hosts are used. Host keys are
always checked and nothing is ever asked for (BatchMode), so a board must be known and
a key must be in place before.
"""

import json
import logging
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any, TypeVar

from dpuflow.base.errors import UserError
from dpuflow.base.files import sha256

log = logging.getLogger("dpuflow")

T = TypeVar("T")

AGENT = Path(__file__).resolve().parents[1] / "foreign/agent.py"

PERMANENT = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "its host key is not the one in known_hosts. If the board was "
    "set up anew, remove the old key with `ssh-keygen -R HOST` and connect once by hand; if it was not, "
    "somebody may be in between",
    "Host key verification failed": "its host key is not known; connect once by hand with `ssh HOST` and "
    "compare the fingerprint",
    "Permission denied": "it does not accept your key; copy it there with `ssh-copy-id HOST` (passwords are "
    "not used)",
    "Could not resolve hostname": "the name does not resolve; check `host`, or add it to ~/.ssh/config",
    "Bad configuration option": "ssh does not understand its configuration file",
    "Can't open user config file": "the ssh configuration file does not exist",
    "Too many authentication failures": "it refused all keys; name the right one with `identity`",
}
"""What ssh says -> what is wrong; all else that makes ssh itself fail may pass with time."""


class DroppedError(Exception):
    """The connection failed in a way that may pass: refused, timed out, closed."""


@dataclass(frozen=True)
class Board:
    """How to reach a board (an entry of `boards` in the configuration).

    Attributes
    ----------
    host : ssh destination: [user@]name, or a Host of the ssh configuration.
    port, identity, ssh_config, known_hosts : given to ssh when set.
    python : Python of the board with numpy, xir and vart.
    folder : where dpuflow keeps its files there, relative to the home directory.
    environment : variables for the application, {name: text}.
    lock : directory that marks the board as taken; one for all users of the board.
    fingerprint : "0x..." of the DPU, for boards that cannot be asked.
    connect_timeout_s, call_timeout_s, transfer_timeout_s : seconds.
    retries : attempts in a row without progress before giving up; backoff_s : first pause,
        doubled each time.
    """

    host: str
    port: int | None = None
    identity: str | None = None
    ssh_config: str | None = None
    known_hosts: str | None = None
    python: str = "python3"
    folder: str = "dpuflow"
    environment: dict[str, str] = field(default_factory=dict)
    lock: str = "/tmp/dpuflow.lock"
    fingerprint: str | None = None
    connect_timeout_s: int = 10
    call_timeout_s: int = 120
    transfer_timeout_s: int = 900
    retries: int = 6
    backoff_s: float = 1.0

    @classmethod
    def from_config(cls, where: str, entry: Any) -> "Board":
        """A Board from a mapping (or a bare destination); UserError for unknown keys."""
        if isinstance(entry, str):
            entry = {"host": entry}
        if not isinstance(entry, dict) or not isinstance(entry.get("host"), str):
            raise UserError(f"{where}: expected a mapping with `host`, got {entry!r}")
        known = {f.name for f in fields(cls)}
        for key in entry:
            if key in ("password", "passphrase"):
                raise UserError(f"{where}.{key}: passwords are not used; copy a key with ssh-copy-id")
            if key not in known:
                raise UserError(f"{where}.{key}: unknown key; allowed: {', '.join(sorted(known))}")
        if entry["host"].startswith("-") or not entry["host"].strip():
            raise UserError(f"{where}.host: {entry['host']!r} is not a host")
        return cls(**entry)

    def ssh_command(self, *more: str) -> list[str]:
        """The ssh command line up to the destination, with `more` options."""
        command = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        command += ["-o", f"ConnectTimeout={self.connect_timeout_s}", "-o", "ClearAllForwardings=yes"]
        command += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4"]
        if self.ssh_config:
            command += ["-F", self.ssh_config]
        if self.known_hosts:
            command += ["-o", f"UserKnownHostsFile={self.known_hosts}"]
        if self.identity:
            command += ["-i", self.identity, "-o", "IdentitiesOnly=yes"]
        if self.port:
            command += ["-p", str(self.port)]
        return [*command, *more, "--", self.host]


class Connection:
    """Calls of the agent on a board, each repeated while the connection drops."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.agent = f"{board.folder}/agent-{sha256(AGENT)[:16]}.py"
        self._installed = False
        self._master: subprocess.Popen[bytes] | None = None

    def _share(self):
        """Have a master connection that all calls go through: a login takes a board long.

        It runs `cat` on the board, fed by a pipe from here, so that it ends with this process
        however that ends.
        """
        if self._master and self._master.poll() is None and self.socket.exists():
            return
        self.close()
        self._folder = tempfile.TemporaryDirectory(prefix="dpuflow-ssh-")
        messages = Path(self._folder.name) / "messages"
        with open(messages, "wb") as stderr:
            self._master = subprocess.Popen(
                [*self.board.ssh_command("-M", "-S", str(self.socket)), "cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        deadline = time.monotonic() + self.board.connect_timeout_s + 5
        while not self.socket.exists():
            if self._master.poll() is not None or time.monotonic() > deadline:
                self._master.kill()
                message = messages.read_text(errors="replace").strip()
                self._permanent(message)
                raise DroppedError(message.splitlines()[-1] if message else "no connection")
            time.sleep(0.01)

    @property
    def socket(self) -> Path:
        """Path of the master connection's control socket."""
        return Path(self._folder.name) / "socket"

    def close(self) -> None:
        """End the master connection."""
        if self._master:
            if self._master.stdin:
                self._master.stdin.close()
            try:
                self._master.wait(2)
            except subprocess.TimeoutExpired:
                self._master.kill()
                self._master.wait()
            self._master = None
            self._folder.cleanup()

    def once(
        self, words: Sequence[str], stdin: IO[bytes] | None = None, timeout: float | None = None
    ) -> bytes:
        """Run a command (list of words) on the board; its standard output. Raises DroppedError."""
        remote = " ".join(shlex.quote(word) for word in words)
        try:
            self._share()
            done = subprocess.run(
                [*self.board.ssh_command("-o", "ControlMaster=no", "-S", str(self.socket)), remote],
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                capture_output=True,
                timeout=timeout or self.board.call_timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            if self._master:
                self._master.kill()  # it hangs, and all that goes through it
            raise DroppedError(f"no answer in {error.timeout:g} s") from None
        except FileNotFoundError:
            raise UserError("the program `ssh` (OpenSSH) is not installed on this machine") from None
        message = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode == 0:
            return done.stdout
        if done.returncode == 255:
            self._permanent(message)
            raise DroppedError(message.splitlines()[-1] if message else "connection closed")
        place = f"board {self.board.host}"
        if done.returncode in (126, 127):
            raise UserError(f"{place}: cannot run {self.board.python!r} there ({message}); set `python`")
        if done.returncode > 128 or done.returncode < 0:
            raise DroppedError(f"the command was killed (status {done.returncode})")
        last = message.splitlines()[-1] if message else f"status {done.returncode}"
        raise UserError(f"{place}: the step {words[-2]!r} failed there: {last}")

    def _permanent(self, message):
        for words, meaning in PERMANENT.items():
            if words in message:
                raise UserError(f"board {self.board.host}: {meaning.replace('HOST', self.board.host)}")

    def retry(self, action: Callable[[], T], progress: Callable[[], float] | None = None) -> T:
        """`action()` again after a dropped connection, with growing pauses.

        `progress()`, if given, is a number that grows with progress; growth starts the
        count of attempts anew.
        """
        attempts, mark = 0, progress() if progress else None
        while True:
            try:
                return action()
            except DroppedError as error:
                if progress and progress() != mark:
                    attempts, mark = 0, progress()
                attempts += 1
                if attempts >= self.board.retries:
                    raise UserError(
                        f"board {self.board.host}: gave up after {attempts} attempts ({error}); "
                        "is it switched on and on the network?"
                    ) from None
                pause = self.board.backoff_s * 2 ** (attempts - 1)
                log.info("board %s: %s; again in %g s", self.board.host, error, pause)
                time.sleep(pause)

    def install(self) -> None:
        """Put the agent on the board, unless the same one is there (its name holds its checksum)."""
        folder, name = shlex.quote(self.board.folder), shlex.quote(self.agent)
        script = (
            f"umask 077; test -s {name} || "
            f"{{ mkdir -p {folder} && cat > {name}.$$ && mv -f {name}.$$ {name}; }}"
        )

        def send() -> None:
            with open(AGENT, "rb") as stream:
                self.once(["sh", "-c", script], stdin=stream)

        if not self._installed:
            self.retry(send)
            self._installed = True

    def words(self, command: str, **request: Any) -> list[str]:
        """Command line of an agent's command."""
        variables = [f"{name}={value}" for name, value in self.board.environment.items()]
        return ["env", *variables, self.board.python, self.agent, command, json.dumps(request)]

    def call(self, command: str, **request: Any) -> dict[str, Any]:
        """Run an agent's command; its JSON answer as a dict. Repeats while the connection drops."""
        self.install()
        words = self.words(command, **request)
        return json.loads(self.retry(lambda: self.once(words)))
