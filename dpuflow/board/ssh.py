"""The whole remote run: copy the bundle, check the board, run the application, fetch the results.

Nothing here depends on one connection: the bundle's transfer continues where it broke
off, the application runs detached and is polled, the results carry checksums. A job's
name follows from the bundle and the options, so that a repeated call finds the job of
an interrupted one and goes on with it.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.files import sha256, write_bytes
from dpuflow.board import application, pool
from dpuflow.board.bundle import Bundle
from dpuflow.board.connection import Board, DroppedError
from dpuflow.device.targets import Target, describe_fingerprint
from dpuflow.records import read_record

log = logging.getLogger("dpuflow")

KEEP_BUNDLES = 3


def boards_from_config(entries: Any) -> list[Board]:
    """List of Board from the configuration's `boards` (destinations or mappings)."""
    if not isinstance(entries, list) or not entries:
        raise UserError(f"boards: expected a list of at least one board, got {entries!r}")
    return [Board.from_config(f"boards[{index}]", entry) for index, entry in enumerate(entries)]


@dataclass(frozen=True)
class Patience:
    """How long the remote run waits, and how often it tries.

    wait_s : longest wait for a free board; timeout_s : longest run, both in seconds.
    restarts : how often an application that dies is started again.
    poll_s : seconds between reports of progress.
    stale_after_s : age from which a lock that nobody refreshes is stale, see `agent.lock`.
    """

    wait_s: float = 3600.0
    timeout_s: float = 3600.0
    restarts: int = 1
    poll_s: float = 10.0
    stale_after_s: float = pool.STALE_AFTER_S


def run(
    bundle: Path | str,
    boards: Sequence[Board],
    out: Path | str,
    options: Mapping[str, Any] | None = None,
    targets: Mapping[str, Target] | None = None,
    patience: Patience | None = None,
) -> dict[str, Any]:
    """Run a bundle on the first free board of `boards` and put the results into `out`.

    Parameters
    ----------
    bundle : the tar of `dpuflow.board.bundle`.
    boards : list of Board.
    out : folder for predictions.csv, board.json (and dump/), written when all is there.
    options : options of the application, see `application.arguments`.
    targets : all Targets, to name fingerprints in messages (default: those of the targets file).
    patience : a Patience, or None for the usual one.

    Returns
    -------
    The parsed board.json. Raises UserError for every expected failure.
    """
    meta, digest = Bundle.open(bundle).meta, sha256(bundle)
    arguments = application.arguments(options)
    job = job_name(digest, arguments)
    patience = patience or Patience()
    waiting = {"wait_s": patience.wait_s, "stale_after_s": patience.stale_after_s}
    with pool.take(boards, job, **waiting) as (connection, token):
        _transfer(connection, Path(bundle), digest, token)
        _check_board(connection, meta, digest, targets)
        _run_job(connection, token, job, digest, arguments, patience)
        _fetch(connection, job, Path(out))
        folder = connection.board.folder
        connection.call("clean", job=job, digest=digest, keep=KEEP_BUNDLES, folder=folder)
    return read_record(Path(out) / "board.json", "board.schema.yaml")


def job_name(digest: str, arguments: Sequence[str]) -> str:
    """Name of the job that runs a bundle (by its SHA-256) with these arguments."""
    return hashlib.sha256(json.dumps([digest, arguments]).encode()).hexdigest()[:16]


def _transfer(connection, bundle, digest, token):
    """Copy and unpack the bundle; what has arrived before a broken connection is kept."""
    board, size = connection.board, bundle.stat().st_size
    reached = [0]

    def attempt() -> bool:
        have = connection.call("received", folder=board.folder, digest=digest)
        if have["complete"]:
            return True
        offset = have["size"]
        if offset >= size or (offset and have["sha256"] != _prefix_sha256(bundle, offset)):
            offset = 0
        reached[0] = max(reached[0], offset)
        if offset:
            log.info("board %s: going on with the bundle at byte %d of %d", board.host, offset, size)
        request = {"folder": board.folder, "digest": digest, "offset": offset, "size": size}
        words = connection.words("receive", lock=board.lock, token=token, **request)
        # unbuffered: ssh takes the descriptor over, with its position
        with open(bundle, "rb", buffering=0) as stream:
            stream.seek(offset)
            answer = json.loads(connection.once(words, stdin=stream, timeout=board.transfer_timeout_s))
        if not answer["complete"]:
            raise DroppedError("the bundle arrived damaged")
        return True

    connection.retry(attempt, progress=lambda: reached[0])


def _prefix_sha256(path, length):
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while length > 0 and (block := stream.read(min(length, 1 << 20))):
            digest.update(block)
            length -= len(block)
    return digest.hexdigest()


def _check_board(connection, meta, digest, targets):
    """Compare the board with the bundle before anything runs on the DPU."""
    board = connection.board
    answer = connection.call("query", folder=board.folder, digest=digest)
    if "error" in answer:
        raise UserError(f"board {board.host}: asking what it is failed there:\n{answer['error']}")
    found = answer["board"]
    for name in ("xir", "vart"):
        if found["runtime"][name].startswith("missing"):
            raise UserError(
                f"board {board.host}: {board.python} cannot import {name} ({found['runtime'][name]}); "
                "use an image with the Vitis AI runtime, or set `python` and `environment`"
            )
    fingerprint = found["fingerprint"] or board.fingerprint
    if fingerprint is None:
        raise UserError(
            f"board {board.host}: its fingerprint is unknown (no `xdputil` or `show_dpu` there, or no DPU "
            "loaded); load the DPU, or give `fingerprint` in the board's entry"
        )
    if int(fingerprint, 16) != int(meta["fingerprint"], 16):
        known = describe_fingerprint(int(fingerprint, 16), targets) or "not one that dpuflow knows"
        raise UserError(
            f"board {board.host} has a DPU with fingerprint {fingerprint} ({known}), but the bundle is "
            f"compiled for {meta['fingerprint']} ({meta['dpu']}, release {meta['release']}). "
            "Nothing was run. Set `dpu` and `release` of the target to the board's and compile again."
        )
    if not meta["instructions"] and not found["emulated"]:
        raise UserError(
            f"the model of target {meta['target']} holds no DPU instructions, so a real board cannot run it; "
            "compile it with `compiler: native`, or with the vendor's vai_c_xir from the quantized xmodel"
        )


def _run_job(connection, token, job, digest, arguments, patience):
    """Start the application (or find it running) and wait for its end."""
    board = connection.board
    request = {"folder": board.folder, "job": job}
    answer = connection.call("start", digest=digest, options=arguments, **request)
    if not answer["started"]:
        log.info("board %s: found this job %s from an earlier call", board.host, answer["state"])
    deadline, shown, restarts = time.monotonic() + patience.timeout_s, None, patience.restarts
    while True:
        wait = max(0.0, min(patience.poll_s, deadline - time.monotonic()))
        answer = connection.call("poll", lock=board.lock, token=token, wait=wait, **request)
        if not answer["held"]:
            raise UserError(f"board {board.host}: another job took the board over; run again")
        status = answer["status"]
        if status.get("state") == "done":
            return
        if status.get("state") == "failed":
            raise UserError(f"board {board.host}: the application failed: {status['error']}")
        if not answer["alive"]:
            if restarts <= 0:
                raise UserError(f"board {board.host}: the application died; its last words:\n{answer['log']}")
            restarts -= 1
            log.info("board %s: the application died; starting it again", board.host)
            connection.call("start", digest=digest, options=arguments, **request)
        if time.monotonic() >= deadline:
            connection.call("stop", **request)
            raise UserError(
                f"board {board.host}: the run took longer than {patience.timeout_s:g} s and was stopped"
            )
        progress = (status.get("run"), status.get("done"))
        if progress != shown and status.get("total"):
            log.info(
                "board %s: run %d, %d of %d images", board.host, progress[0] + 1, progress[1], status["total"]
            )
            shown = progress


def _fetch(connection, job, out):
    """Fetch the results, check them, and only then put them into `out`."""
    words = connection.words("results", folder=connection.board.folder, job=job)

    def attempt() -> dict[str, bytes]:
        data = connection.once(words, timeout=connection.board.transfer_timeout_s)
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                members = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
                files = {name: stream.read() for name, stream in members.items() if stream}
            sums = json.loads(files.pop("MANIFEST.json"))
        except (tarfile.TarError, KeyError, ValueError):
            raise DroppedError("the results arrived damaged") from None
        if {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} != sums:
            raise DroppedError("the results arrived damaged")
        return files

    files = connection.retry(attempt)
    for name in ("predictions.csv", "board.json"):
        if name not in files:
            raise UserError(f"board {connection.board.host}: the application left no {name}")
    shutil.rmtree(out / "dump", ignore_errors=True)
    for name, data in files.items():
        path = out / name
        if not path.resolve().is_relative_to(out.resolve()) or os.path.isabs(name):
            raise UserError(f"board {connection.board.host}: the results hold the foreign path {name!r}")
        write_bytes(path, data)
