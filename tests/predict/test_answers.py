import base64
import io
import re

import numpy as np
from PIL import Image

from dpuflow.datasets.picture_files import Picture
from dpuflow.predict.answers import SHOWN, answers_csv, answers_page, best_classes

NAMES = ["A", "B", "C", "D"]
SCORES = np.array([[0.1, 0.6, 0.25, 0.05], [0.25, 0.25, 0.25, 0.25]], np.float32)


def pictures(count, size=(400, 300)):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0]), dtype=np.uint8))
    return [Picture(image, (50, 0, 350, 300), np.full((28, 28, 1), i, np.uint8)) for i in range(count)]


def page(count, **options):
    answers = best_classes(np.tile(SCORES[:1], (count, 1)), NAMES, 3)
    names = [f"{i}.png" for i in range(count)]
    settings = {"softmax": True, "invert": False} | options
    return answers_page(names, pictures(count), answers, {"model": "small"}, **settings)


def test_the_best_classes_come_in_order_and_ties_by_label():
    first, tie = best_classes(SCORES, NAMES, 3)
    assert [(a["rank"], a["label"], a["name"]) for a in first] == [(1, 1, "B"), (2, 2, "C"), (3, 0, "A")]
    assert abs(first[0]["score"] - 0.6) < 1e-6
    assert [a["label"] for a in tie] == [0, 1, 2]
    assert len(best_classes(SCORES, NAMES, 9)[0]) == 4


def test_the_table_has_a_row_per_picture_and_rank():
    text = answers_csv(["x.png", "y, z.jpg"], best_classes(SCORES, NAMES, 2))
    assert text.splitlines() == [
        "image,rank,label,name,score",
        "x.png,1,1,B,0.6",
        "x.png,2,2,C,0.25",
        '"y, z.jpg",1,0,A,0.25',
        '"y, z.jpg",2,1,B,0.25',
    ]


def test_the_page_shows_original_crop_input_and_answers():
    text = page(1)
    assert "left:12.50%;top:0.00%;width:75.00%;height:100.00%" in text
    original, seen = re.findall(r'<img [^>]*src="data:image/(?:jpeg|png);base64,([^"]+)"', text)
    assert Image.open(io.BytesIO(base64.b64decode(original))).size == (360, 270)
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(seen)))).shape == (28, 28)
    assert "softmax of the emulated INT8 network" in text and "60.0" in text
    assert "400×300" in text and "28×28" in text and "light and dark swapped" not in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)


def test_scores_that_are_no_softmax_are_not_called_shares():
    text = page(1, softmax=False, invert=True)
    assert "does not end in a softmax" in text and "60.0" not in text
    assert "light and dark swapped" in text


def test_names_are_escaped():
    answers = best_classes(SCORES[:1], NAMES, 1)
    text = answers_page(["<b>.png"], pictures(1), answers, {}, True, False)
    assert "&lt;b&gt;.png" in text and "<b>.png" not in text


def test_a_long_page_says_what_it_leaves_out():
    text = page(SHOWN + 5)
    assert text.count("<article") == SHOWN and f"The first {SHOWN} of {SHOWN + 5} pictures" in text
