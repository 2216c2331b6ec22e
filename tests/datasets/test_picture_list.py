"""Lists of pictures as other people write them, and folders that are parts by another name."""

import pytest

from dpuflow.base.errors import UserError
from dpuflow.datasets.picture_layout import by_folders, by_list
from dpuflow.datasets.picture_list import listed_names
from dpuflow.datasets.picture_source import Source

ITEMS = [("a/1.png", "cat"), ("a/2.png", "sea dog"), ("b/1.png", "cat")]


def source(place="photos", names=tuple(path for path, _ in ITEMS)):
    return Source(str(place), tuple(sorted(names)), (), lambda name: b"")


def listed(header, form):
    return header + "\n" + "".join(form.format(path=path, label=label) + "\n" for path, label in ITEMS)


@pytest.fixture
def read(tmp_path):
    """read(text) -> {part: [(path, label)]} of a list for tmp_path; its names for staleness are the same."""

    def call(text):
        (tmp_path / "list.csv").write_bytes(text.encode())
        parts = by_list(source(tmp_path), tmp_path / "list.csv")
        names = {item.name for items in parts.values() for item in items}
        assert listed_names(tmp_path / "list.csv", tmp_path) == names
        return {part: [(item.path, item.label) for item in items] for part, items in parts.items()}

    return call


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("path,label", "{path},{label}"),
        ("filename,class", "{path},{label}"),
        ("\ufeffPath, Label", "./{path}, {label}\r"),
        ("image;category;width", "{path};{label};50"),
        ("file\ttarget", '"{path}"\t"{label}"'),
        ("class id,filepaths,labels,scientific name", "3,{path},{label},x"),
        # the exact names go before the others
        ("class,path,filename,label", "9,{path},other.png,{label}"),
        # a column that might be the parts by its name but is not by what it holds
        ("path,label,set", "{path},{label},A"),
    ],
)
def test_lists_of_other_people(read, header, form):
    assert read(listed(header, form)) == {"whole": ITEMS}


def test_absolute_paths_below_the_folder(read, tmp_path):
    assert read(listed("path,label", f"{tmp_path}/{{path}},{{label}}")) == {"whole": ITEMS}
    (tmp_path / "link").symlink_to(tmp_path)
    parts = by_list(source(tmp_path / "link"), tmp_path / "list.csv")
    assert [item.name for item in parts["whole"]] == [path for path, _ in ITEMS]


def test_parts_in_a_column_of_another_name(read):
    text = "path,label,data set\na/1.png,cat,Train\na/2.png,dog,valid\nb/1.png,cat,test\n"
    expected = {
        "train": [("a/1.png", "cat")],
        "validation": [("a/2.png", "dog")],
        "test": [("b/1.png", "cat")],
    }
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,image,label\na/1.png,a/1.png,cat\n",
            "line 1: found the columns file, image, label; expected path",
        ),
        ("a/1.png,cat\na/2.png,dog\n", "line 1: found the columns a/1.png, cat; expected path and label"),
        ("path,label\n/elsewhere/a/1.png,cat\n", "line 2: /elsewhere/a/1.png leads out of the folder"),
        ("path,label\na/1.png,cat\n\na/2.png,dog,x\n", "line 4: expected 2 fields"),
        ('path,label\n"a/1.png,cat\n', "line 2: not CSV"),
    ],
)
def test_faults(read, text, message):
    with pytest.raises(UserError, match=message):
        read(text)


@pytest.mark.parametrize(
    "names",
    [
        ["seg_train/seg_train/a/1.png", "seg_test/seg_test/a/1.png", "seg_pred/1/1.png"],
        ["train/x_train/a/1.png", "test/x_test/a/1.png"],
        ["Training set/a/1.png", "Test set/a/1.png"],
    ],
)
def test_parts_by_another_name_are_no_classes(names):
    with pytest.raises(UserError, match="look like parts, not like classes; expected train/CLASS"):
        by_folders(source(names=names))


def test_classes_that_only_sound_like_parts():
    names = ["crash test/1.png", "train station/1.png", "valley/1.png"]
    assert [item.label for item in by_folders(source(names=names))["whole"]] == [name[:-6] for name in names]
