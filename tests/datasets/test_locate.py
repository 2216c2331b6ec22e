"""Which of the user's own files a data set depends on."""

import pytest

from dpuflow.datasets.locate import given_files


@pytest.fixture
def folder(tmp_path):
    for name in ("a/deep/train.csv.gz", "a/test.csv", "set.zip", "two/train.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def files(**source):
    return given_files({"kind": "files", **source})


def test_files_that_exist_are_given(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert files(zip="~/set.zip") == [f"{folder}/set.zip"]
    assert files(train=f"{folder}/a/test.csv", test=f"{folder}/no") == [f"{folder}/a/test.csv"]
    assert files(folder=f"{folder}/a") == [f"{folder}/a/deep/train.csv.gz", f"{folder}/a/test.csv"]


@pytest.mark.parametrize("place", ["two", "no", "set.zip", "$NOT_SET/a"])
def test_a_mistake_is_left_to_the_job_that_explains_it(folder, place):
    assert files(folder=f"{folder}/{place}") == []


def test_what_is_drawn_or_downloaded_has_no_files():
    assert given_files({"kind": "synthetic", "seed": 1}) == given_files({"kind": "kaggle"}) == []
