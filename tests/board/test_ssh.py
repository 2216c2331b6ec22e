"""The remote run against a real sshd whose logins find the virtual board."""

import json
import os
import signal
import threading
import time

import numpy as np
import pytest
from small_model import CLASSES, small_images
from ssh_server import Server

from dpuflow.base.errors import UserError
from dpuflow.base.files import sha256
from dpuflow.board import application, bundle, pool, ssh
from dpuflow.board.compare import board_record, network_outputs, read_board_predictions
from dpuflow.board.connection import Connection
from dpuflow.device.targets import get_target, load_targets
from dpuflow.emulator import Emulator

pytestmark = pytest.mark.slow

QUICK = {"options": {"runs": 1, "warmup": 0}}
NOW = ssh.Patience(wait_s=0)


def wait_until(condition, seconds=200):
    """Wait for a condition; fail when it does not come."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return answer


class Background(threading.Thread):
    """Runs a function in a thread; `result()` gives its value or raises its error."""

    def __init__(self, function, *arguments, **named):
        super().__init__(daemon=True)
        self.call, self.value, self.error = (function, arguments, named), None, None
        self.start()

    def run(self):
        function, arguments, named = self.call
        try:
            self.value = function(*arguments, **named)
        except Exception as error:
            self.error = error

    def result(self):
        self.join(300)
        assert not self.is_alive(), "did not end"
        if self.error:
            raise self.error
        return self.value


@pytest.fixture(scope="module")
def large_bundle(xmodel, tmp_path_factory):
    """A bundle whose transfer takes a while: 20,000 images, 2.9 MB."""
    path = tmp_path_factory.mktemp("large") / "kv260.tar"
    images, labels = small_images(20_000)
    bundle.build(path, xmodel, images, labels, CLASSES, get_target("kv260"), "test")
    return path


def check_results(out, tar):
    """The board's outputs equal the emulator's on all images."""
    content = bundle.Bundle.open(tar)
    labels, predictions, outputs = read_board_predictions(out / "predictions.csv")
    expected = network_outputs(Emulator(content.graph), content.meta, content.images)
    assert np.array_equal(labels, content.labels)
    assert np.array_equal(outputs, expected)
    assert np.array_equal(predictions, expected.argmax(axis=1))


def test_deploy_run_fetch(server, bundle_tar, tmp_path):
    out = tmp_path / "out"
    report = ssh.run(bundle_tar, [server.board()], out, options={"runs": 2, "dump": 3})
    check_results(out, bundle_tar)
    assert report["emulated"] and report["images"] == 90 and report["runs"] == 2
    assert report["board"]["runtime"]["vart"] == "virtual board (emulated)"
    record = board_record(out, bundle_tar, runner="ssh")
    assert record["agreement_with_emulator"]["equal"] == 90
    assert record["layers"]["image"] == 3 and record["layers"]["first_different"] is None
    assert "conv_2" in record["layers"]["compared"]
    # the board is left clean: no lock, no job, no part; the bundle is kept for the next run
    assert not (server.home / "board.lock").exists()
    assert os.listdir(server.home / "dpuflow" / "jobs") == []
    assert os.listdir(server.home / "dpuflow" / "parts") == []
    assert os.listdir(server.home / "dpuflow" / "bundles") == [sha256(bundle_tar)]


def test_the_bundle_is_not_copied_again(server, bundle_tar, tmp_path, monkeypatch):
    ssh.run(bundle_tar, [server.board()], tmp_path / "one", **QUICK)
    sent = []
    once = Connection.once

    def spy(self, words, stdin=None, timeout=None):
        sent.append(words[-2])
        return once(self, words, stdin, timeout)

    monkeypatch.setattr(Connection, "once", spy)
    ssh.run(bundle_tar, [server.board()], tmp_path / "two", **QUICK)
    assert "receive" not in sent and "start" in sent
    one, two = ((tmp_path / name / "predictions.csv").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.fault("board", "connection killed while copying", "resume")
def test_a_connection_killed_while_copying(fast_server, large_bundle, tmp_path, monkeypatch):
    part = fast_server.home / "dpuflow" / "parts" / sha256(large_bundle)
    offsets, once = [], Connection.once

    def held_up(self, words, stdin=None, timeout=None):
        """The first transfer gets 1 MB and no end, so that the cut falls into it."""
        if words[-2] == "receive":
            offsets.append(json.loads(words[-1])["offset"])
        if words[-2] != "receive" or len(offsets) > 1:
            return once(self, words, stdin, timeout)
        reader, writer = os.pipe()
        data = stdin.read(1_000_000)
        Background(os.write, writer, data)
        cutter = Background(
            lambda: wait_until(lambda: part.exists() and part.stat().st_size > 500_000) and fast_server.cut()
        )
        with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb"):
            try:
                return once(self, words, stream, timeout)
            finally:
                assert cutter.result() > 0

    monkeypatch.setattr(Connection, "once", held_up)
    options = {"runs": 1, "warmup": 0, "threads": 1}
    ssh.run(large_bundle, [fast_server.board()], tmp_path / "out", options)
    assert len(offsets) == 2 and offsets[0] == 0 and offsets[1] > 500_000  # went on, did not start anew
    check_results(tmp_path / "out", large_bundle)


LONG = {"runs": 8, "warmup": 0, "threads": 1}
"""Takes a second or two for the large bundle on a fast server."""


def text_of(path):
    """What a file holds that comes and goes; None while it is not there."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def running_job(server):
    """Wait for the application; the content of its process.json."""

    def ask():
        found = map(text_of, (server.home / "dpuflow" / "jobs").glob("*/process.json"))
        return next(filter(None, found), None)

    return json.loads(wait_until(ask))


def test_a_connection_killed_while_running(fast_server, large_bundle, tmp_path):
    longer = {**LONG, "runs": 12}
    job = Background(ssh.run, large_bundle, [fast_server.board()], tmp_path / "out", longer)
    process = running_job(fast_server)
    os.kill(process["pid"], signal.SIGSTOP)  # so that it cannot end before the last cut
    for _ in range(3):
        wait_until(fast_server.cut)
        time.sleep(0.1)
        assert os.path.exists(f"/proc/{process['pid']}")  # the application outlives its connection
        assert running_job(fast_server) == process
    os.kill(process["pid"], signal.SIGCONT)
    assert job.result()["images"] == 20_000
    check_results(tmp_path / "out", large_bundle)


def test_a_killed_application_is_started_again(fast_server, large_bundle, tmp_path):
    job = Background(ssh.run, large_bundle, [fast_server.board()], tmp_path / "out", LONG)
    first = running_job(fast_server)
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(lambda: running_job(fast_server) != first)
    assert job.result()["images"] == 20_000
    check_results(tmp_path / "out", large_bundle)


def test_an_application_killed_again_and_again(server, bundle_tar, tmp_path):
    patience = ssh.Patience(restarts=0)
    job = Background(
        ssh.run, bundle_tar, [server.board()], tmp_path / "out", {"runs": 100_000}, patience=patience
    )
    os.kill(running_job(server)["pid"], signal.SIGKILL)
    with pytest.raises(UserError, match="the application died"):
        job.result()
    assert not (tmp_path / "out").exists()
    assert not (server.home / "board.lock").exists()


def test_a_caller_that_died_is_followed_by_its_repetition(fast_server, large_bundle, tmp_path):
    """The second call finds the running job of the first, whose computer went away."""
    board, digest, arguments = fast_server.board(), sha256(large_bundle), application.arguments(LONG)
    job, connection = ssh.job_name(digest, arguments), Connection(fast_server.board())
    ssh._transfer(connection, large_bundle, digest, "gone")
    request = {"lock": board.lock, "token": "gone", "folder": board.folder}
    assert connection.call("lock", owner="another computer", job=job, stale_after=60, **request)["held"]
    connection.call("start", folder=board.folder, job=job, digest=digest, options=arguments)
    process = running_job(fast_server)
    os.kill(process["pid"], signal.SIGSTOP)  # so that it cannot end before it is followed
    patience = ssh.Patience(stale_after_s=0.1)
    repetition = Background(ssh.run, large_bundle, [board], tmp_path / "out", LONG, patience=patience)
    owner = fast_server.home / "board.lock" / "owner.json"
    wait_until(lambda: "another" not in (text_of(owner) or "another"))
    assert running_job(fast_server) == process
    os.kill(process["pid"], signal.SIGCONT)
    assert repetition.result()["images"] == 20_000
    check_results(tmp_path / "out", large_bundle)


@pytest.mark.fault("board", "changed host key", "refused")
def test_a_changed_host_key_is_refused(server, bundle_tar, tmp_path):
    server.write_known_host("other_host")
    with pytest.raises(UserError, match="host key is not the one in known_hosts") as error:
        ssh.run(bundle_tar, [server.board()], tmp_path / "out", **QUICK)
    assert "ssh-keygen -R" in str(error.value)
    assert not (server.home / "dpuflow").exists()


@pytest.mark.fault("board", "unknown host key", "refused")
def test_an_unknown_host_key_is_refused(server, bundle_tar, tmp_path):
    (server.folder / "known_hosts").write_text("")
    with pytest.raises(UserError, match="host key is not known"):
        ssh.run(bundle_tar, [server.board()], tmp_path / "out", **QUICK)


@pytest.mark.fault("board", "wrong key", "refused")
def test_a_wrong_key_is_refused(server, bundle_tar, tmp_path):
    board = server.board(identity=str(server.keys / "other_host"))
    with pytest.raises(UserError, match="does not accept your key"):
        ssh.run(bundle_tar, [board], tmp_path / "out", **QUICK)


def test_a_board_that_is_off(server, bundle_tar, tmp_path):
    server.stop()
    with pytest.raises(UserError, match="gave up after 3 attempts"):
        ssh.run(bundle_tar, [server.board(retries=3)], tmp_path / "out", **QUICK)


@pytest.mark.fault("board", "no Python on the board", "refused")
def test_a_missing_python(server, bundle_tar, tmp_path):
    with pytest.raises(UserError, match="set `python`"):
        ssh.run(bundle_tar, [server.board(python="/no/python3")], tmp_path / "out", **QUICK)


def test_a_fingerprint_mismatch_stops_before_anything_runs(tmp_path, keys, bundle_tar):
    older = load_targets(extra={"b": {"dpu": "DPUCZDX8G_ISA1_B4096", "release": "2.5"}})["b"]
    server = Server(tmp_path, keys, older)
    try:
        with pytest.raises(UserError, match="Nothing was run") as error:
            ssh.run(bundle_tar, [server.board()], tmp_path / "out", **QUICK)
    finally:
        server.stop()
    message = str(error.value)
    assert "0x101000016010407 (DPUCZDX8G_ISA1_B4096, release 2.5)" in message
    assert "0x101000056010407 (DPUCZDX8G_ISA1_B4096, release 3.0)" in message
    assert not (server.home / "dpuflow" / "jobs").exists()


def test_a_failing_application_reports_its_error(server, bundle_tar, tmp_path):
    with pytest.raises(UserError, match="no runner for mode 'fly'"):
        ssh.run(bundle_tar, [server.board()], tmp_path / "out", {"mode": "fly"})
    assert not (server.home / "board.lock").exists()


def test_a_run_that_takes_too_long_is_stopped(server, bundle_tar, tmp_path):
    patience = ssh.Patience(timeout_s=0.5)
    with pytest.raises(UserError, match=r"longer than 0\.5 s"):
        ssh.run(bundle_tar, [server.board()], tmp_path / "out", {"runs": 100_000}, patience=patience)
    (place,) = (server.home / "dpuflow" / "jobs").glob("*/process.json")
    assert not os.path.exists(f"/proc/{json.loads(place.read_text())['pid']}/exe")
    assert not (server.home / "board.lock").exists()


def test_two_jobs_never_share_a_board(server, bundle_tar, tmp_path, monkeypatch):
    board = server.board()
    with pool.take([board], "first"):
        with pytest.raises(UserError, match="taken by another job on this machine"):
            ssh.run(bundle_tar, [board], tmp_path / "out", patience=NOW, **QUICK)
        # the same board as another machine sees it: only the lock on the board can tell
        monkeypatch.setattr(pool.tempfile, "gettempdir", lambda: str(tmp_path))
        with pytest.raises(UserError, match=r"taken by .*@.* process \d+"):
            ssh.run(bundle_tar, [board], tmp_path / "out", patience=NOW, **QUICK)
    ssh.run(bundle_tar, [board], tmp_path / "out", patience=NOW, **QUICK)


def test_jobs_at_the_same_time_take_turns(server, bundle_tar, tmp_path):
    boards = [server.board()]
    jobs = [Background(ssh.run, bundle_tar, boards, tmp_path / f"out{n}", **QUICK) for n in range(2)]
    for n, job in enumerate(jobs):
        job.result()
        check_results(tmp_path / f"out{n}", bundle_tar)


def test_a_pool_gives_the_free_board(server):
    busy = server.board()
    free = server.board(folder=str(server.home / "second"), lock=str(server.home / "second.lock"))
    with pool.take([busy, free], "one") as (first, _), pool.take([busy, free], "two") as (second, _):
        assert (first.board, second.board) == (busy, free)
        with pytest.raises(UserError, match="no board was free"), pool.take([busy, free], "three", wait_s=0):
            pass
    assert not (server.home / "second.lock").exists()


def test_a_pool_skips_a_board_that_is_off(server):
    off = server.board(port=1, retries=1)
    with pool.take([off, server.board()], "job") as (connection, _):
        assert connection.board.port == server.port
    with pytest.raises(UserError, match="no board can be reached"), pool.take([off, off], "job"):
        pass


def test_a_stale_lock_is_taken_over(server, caplog):
    board = server.board()
    connection = Connection(board)
    request = {"lock": board.lock, "folder": board.folder, "job": "old", "stale_after": 3600.0}
    assert connection.call("lock", token="dead", owner="dead@machine", **request)["held"]
    assert not connection.call("lock", token="new", owner="me", **request)["held"]
    os.utime(board.lock, (0, 0))  # nobody has refreshed it for long
    answer = connection.call("lock", token="new", owner="me", **request)
    assert answer == {"held": True, "taken_over": "dead@machine"}
    assert connection.call("unlock", lock=board.lock, token="dead") == {}  # the late owner cannot free it
    assert os.path.isdir(board.lock)


@pytest.mark.fault("board", "damaged part of a transfer", "resume")
def test_a_damaged_part_is_sent_anew(server, bundle_tar, tmp_path):
    parts = server.home / "dpuflow" / "parts"
    parts.mkdir(parents=True)
    (parts / sha256(bundle_tar)).write_bytes(b"x" * 1000)
    ssh.run(bundle_tar, [server.board()], tmp_path / "out", **QUICK)
    check_results(tmp_path / "out", bundle_tar)


def test_arguments_are_quoted(server):
    connection = Connection(server.board())
    nasty = "a b'c\"d;$(touch /tmp/never)\n*"
    assert connection.once(["printf", "%s", nasty]).decode() == nasty
