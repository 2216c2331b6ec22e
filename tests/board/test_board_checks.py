"""What is asked of a board and of its entry before anything runs; no server is needed."""

import pytest

from dpuflow.base.errors import UserError
from dpuflow.board import ssh
from dpuflow.board.connection import Board, Connection, DroppedError


@pytest.mark.fault("board", "wrong entry of a board", "refused")
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"host": "board", "password": "secret"}, "passwords are not used"),
        ({"host": "board", "prot": 22}, "unknown key"),
        ({"host": "-oProxyCommand=evil"}, "not a host"),
        ({"port": 22}, "host"),
        (7, "host"),
    ],
)
def test_wrong_entries(entry, words):
    with pytest.raises(UserError, match=words):
        ssh.boards_from_config([entry])
    with pytest.raises(UserError, match="at least one"):
        ssh.boards_from_config([])


def test_the_command_line_respects_the_users_configuration():
    words = Board.from_config("b", "kv260").ssh_command()
    assert words[-2:] == ["--", "kv260"] and "-F" not in words and "-i" not in words
    assert "StrictHostKeyChecking=yes" in words and "BatchMode=yes" in words


class Answering:
    """A connection to a board that answers `query` so."""

    def __init__(self, **answer):
        self.board = Board("bench", fingerprint=answer.pop("configured", None))
        known = {
            "fingerprint": "0x101000056010407",
            "emulated": False,
            "runtime": {"xir": "3.0", "vart": "3.0"},
        }
        self.answer = {**known, **answer}

    def call(self, command, **request):
        assert command == "query"
        return {"error": self.answer["error"]} if "error" in self.answer else {"board": self.answer}


META = {
    "fingerprint": "0x101000056010407",
    "dpu": "DPUCZDX8G_ISA1_B4096",
    "release": "3.0",
    "target": "kv260",
}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"runtime": {"xir": "3.0", "vart": "missing: no libvart"}}, "cannot import vart"),
        ({"fingerprint": None}, "its fingerprint is unknown"),
        ({"fingerprint": "0x101000016010406"}, "B3136, release 2.5"),
        ({"fingerprint": "0x1"}, "not one that dpuflow knows"),
        ({"fingerprint": None, "configured": "0x101000016010407"}, "B4096, release 2.5"),
        ({"error": "Traceback: boom"}, "boom"),
    ],
)
def test_boards_that_do_not_fit(answer, words):
    with pytest.raises(UserError, match=words):
        ssh._check_board(Answering(**answer), {**META, "instructions": 1000}, "digest", None)


def test_a_real_board_needs_instructions():
    with pytest.raises(UserError, match="holds no DPU instructions"):
        ssh._check_board(Answering(), {**META, "instructions": 0}, "digest", None)
    ssh._check_board(Answering(emulated=True), {**META, "instructions": 0}, "digest", None)
    ssh._check_board(Answering(), {**META, "instructions": 1000}, "digest", None)
    configured = Answering(fingerprint=None, configured="0x0101000056010407")
    ssh._check_board(configured, {**META, "instructions": 1000}, "digest", None)


def test_retries_start_anew_after_progress():
    connection = Connection(Board("nowhere", retries=3, backoff_s=0.0))
    calls = []

    def action():
        calls.append(None)
        if len(calls) < 8:
            raise DroppedError("gone")
        return "done"

    assert connection.retry(action, progress=lambda: len(calls) // 2) == "done"
    calls.clear()
    with pytest.raises(UserError, match="3 attempts"):
        connection.retry(action)
