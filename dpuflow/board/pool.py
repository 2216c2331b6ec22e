"""Several boards: a job takes the first free one, and no two jobs ever share a board.

Two locks are held while a job has a board: a flock on this machine (quick, and gone
with the process) and a directory on the board (seen from all machines, kept fresh by
the job, taken over when stale).
"""

import fcntl
import getpass
import hashlib
import logging
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.board.connection import Board, Connection

log = logging.getLogger("dpuflow")

STALE_AFTER_S = 60.0
PAUSE_S = 2.0


@contextmanager
def _flock(board):
    """Yield True while this process holds the machine's lock of a board, else False."""
    folder = Path(tempfile.gettempdir()) / f"dpuflow-boards-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    key = hashlib.sha256(f"{board.host}:{board.port}:{board.lock}".encode()).hexdigest()[:16]
    with open(folder / f"{key}.lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def take(
    boards: Sequence[Board],
    job: str,
    wait_s: float = 3600.0,
    stale_after_s: float = STALE_AFTER_S,
    pause_s: float = PAUSE_S,
) -> Iterator[tuple[Connection, str]]:
    """Yield (Connection, token) for the first of `boards` that is free; both locks are held meanwhile.

    boards : list of Board. job : identifier of the job, the same in a repeated run.
    UserError when none becomes free within `wait_s` seconds, or when none can be reached.
    """
    token = secrets.token_hex(8)
    owner = f"{getpass.getuser()}@{socket.gethostname()} process {os.getpid()}"
    deadline, told = time.monotonic() + wait_s, False
    while True:
        busy, failed = [], []
        for board in boards:
            with _flock(board) as ours:
                if not ours:
                    busy.append(f"{board.host}: taken by another job on this machine")
                    continue
                connection = Connection(board)
                request = {"lock": board.lock, "token": token, "folder": board.folder}
                try:
                    answer = connection.call(
                        "lock", owner=owner, job=job, stale_after=stale_after_s, **request
                    )
                except UserError as error:
                    connection.close()
                    if len(boards) == 1:
                        raise
                    failed.append(str(error))
                    continue
                if not answer["held"]:
                    connection.close()
                    age = answer["age"]
                    busy.append(f"{board.host}: taken by {answer['owner']} (heard of {age:.0f} s ago)")
                    continue
                if answer["taken_over"]:
                    log.info("board %s: took over the stale lock of %s", board.host, answer["taken_over"])
                try:
                    yield connection, token
                finally:
                    with suppress(UserError):  # the lock goes stale on its own
                        connection.call("unlock", lock=board.lock, token=token)
                    connection.close()
                return
        if not busy:
            raise UserError("no board can be reached:\n  " + "\n  ".join(failed))
        if time.monotonic() >= deadline:
            raise UserError(f"no board was free within {wait_s:g} s:\n  " + "\n  ".join(busy + failed))
        if not told:
            log.info("waiting for a board: %s", "; ".join(busy))
            told = True
        time.sleep(pause_s)
