"""The page of own pictures in a real headless Chromium."""

import chromium
import numpy as np
import pytest
from PIL import Image

from dpuflow.datasets.picture_files import read_picture
from dpuflow.predict.answers import answers_page, best_classes

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(browser, path of a page with a wide, a tall and a small picture)."""
    if chromium.find() is None:
        pytest.skip(f"needs a Chromium: none of {', '.join(chromium.NAMES)} is installed (make test-tools)")
    folder = tmp_path_factory.mktemp("pictures")
    names = ["wide.png", "tall with a rather long name, as cameras and people give them.jpg", "small.png"]
    random = np.random.default_rng(4)
    for name, shape in zip(names, [(300, 500, 3), (500, 200, 3), (28, 28, 3)], strict=True):
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    pictures = [read_picture(folder / name, (28, 28, 1)) for name in names]
    answers = best_classes(random.dirichlet(np.ones(25), 3), [chr(65 + i) for i in range(25)], 3)
    path = folder / "predictions.html"
    path.write_text(answers_page(names, pictures, answers, {"model": "small"}, True, False), encoding="utf-8")
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser, path


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (360, "dark")])
def test_no_errors_all_images_decode_and_nothing_overflows(page, width, scheme):
    browser, path = page
    browser.problems.clear()
    browser.open(path, width=width, scheme=scheme)
    decoded = browser.evaluate("Promise.all([...document.images].map(i => i.decode())).then(a => a.length)")
    assert decoded == 6 and browser.problems == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_the_frame_lies_on_the_original_as_the_crop_says(page):
    browser, path = page
    browser.open(path)
    boxes = browser.evaluate(
        "[...document.querySelectorAll('.original')].map(o => ['img', 'span'].map(s => {"
        "const r = o.querySelector(s).getBoundingClientRect(); return [r.left, r.top, r.width, r.height]}))"
    )
    (image, frame), (tall, tall_frame), _ = boxes
    assert abs(frame[2] / image[2] - 300 / 500) < 0.02 and abs(frame[3] - image[3]) < 2
    assert abs((frame[0] - image[0]) / image[2] - 100 / 500) < 0.02
    assert abs(tall_frame[3] / tall[3] - 200 / 500) < 0.02 and abs(tall_frame[2] - tall[2]) < 2
