"""Configuration files that cannot be read are said with file, line and column."""

import pytest

from dpuflow.base.errors import UserError
from dpuflow.workflow.configfiles import check_command_line, check_file, named_files


@pytest.mark.fault("configuration", "file of {id}", "message")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: {c: 1\n  d: 2\n", "line 3, column 4: no YAML: did not find expected ',' or '}'"),
        (b"a: 1\nb: {c: 1\n  d: 2\n", "while parsing a flow mapping that begins in line 2\n    d: 2\n     ^"),
        (b"a:\n\tb: 1\n", "line 2, column 1: no YAML: found character that cannot start any token"),
        (b"a:\n\tb: 1\n", "indent with spaces, not with tabs"),
        (b"a: 'x\n", "no YAML: found unexpected end of stream"),
        (b"a: *b\n", "line 1, column 4: no YAML: found undefined alias"),
        (b"a: 1\nb: 2\na: 3\n", "line 3: the key a stands here a second time (before in line 1)"),
        (b"m:\n  x: {k: 1, k: 2}\n", "line 2: the key k stands here a second time"),
        (b"", "empty; expected keys and values"),
        (b"- a\n", "a list and no mapping"),
        (b"a: \xff\n", "no text in UTF-8 (byte 3 is 0xff)"),
        (b"a: 1\x00\n", "no YAML"),
        (b"a: 2026-13-45\n", "no YAML (month must be in 1..12"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        check_file(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "a: 1\nb: &x {c: 1}\nd: {<<: *x, e: 1}\n",
        '\ufeffa: "ä"\n',
        '{"a":\n\t[1]}',
        "__use_yte__: true\n?if x:\n  a: 1\n?if y:\n  a: 2\n",
    ],
    ids=["merge", "byte order mark", "JSON", "template"],
)
def test_what_snakemake_reads_passes(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_text(content, encoding="utf-8")
    check_file(path)


def test_a_list_that_holds_itself_ends(tmp_path):
    (tmp_path / "c.yaml").write_text("a: &x [*x]\n")
    check_file(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["all", "--configfile", "a.yaml", "b.yaml", "-n"], ["a.yaml", "b.yaml"]),
        (["--configfiles=a.yaml", "all"], ["a.yaml"]),
        (["--configf", "a.yaml", "--cores", "2"], ["a.yaml"]),
        (["--config", "images=x", "all"], []),
        (["-n", "all"], []),
    ],
)
def test_the_files_of_a_command_line(words, names):
    assert [str(path) for path in named_files(words)] == names


def test_all_faults_are_said_at_once_and_end_the_process(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("a: [\n")
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    with pytest.raises(SystemExit) as caught:
        check_command_line(["--configfile", "mien.yaml", "mine.yaml"])
    assert caught.value.code == 1
    first, second = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert first.startswith("error: config/config.yaml: line 2, column 1: no YAML:")
    assert second == "error: configuration file mien.yaml: no such file or folder; did you mean mine.yaml?"
