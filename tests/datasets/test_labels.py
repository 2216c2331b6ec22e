"""Labels: no letter off by one."""

import pytest

from dpuflow.base.errors import UserError
from dpuflow.datasets.labels import Labels, labels_of, sign_mnist_labels


def test_letters():
    letters = sign_mnist_labels()
    assert letters.outputs == 25
    assert len(letters.present) == 24
    assert 9 not in letters.present
    assert [letters.name(i) for i in (0, 8, 9, 10, 23, 24)] == ["A", "I", "J", "K", "X", "Y"]
    assert labels_of(None) == letters


def test_from_config():
    assert labels_of(["cat", None, "dog"]) == Labels(("cat", "absent 1", "dog"), (0, 2))
    assert labels_of({"0": "cat", 3: "dog"}).present == (0, 3)
    assert labels_of({0: "cat", 3: "dog"}).outputs == 4


@pytest.mark.fault("data", "class names {id}", "refused")
@pytest.mark.parametrize("classes", [[], {}, {"a": "b"}, {-1: "x"}, {256: "x"}, ["x", "x"], [None, None], 5])
def test_faulty(classes):
    with pytest.raises(UserError):
        labels_of(classes)
