"""The report in a real headless Chromium: no errors, links, sorting, phone width, colour schemes, print."""

import base64
import json

import chromium
import numpy as np
import pytest
from made_up_runs import make_sweep

from dpuflow.report.sweep import write_sweep

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium.find() is None:
        pytest.skip(f"needs a Chromium: none of {', '.join(chromium.NAMES)} is installed (make test-tools)")
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def page(browser, toy_report):
    browser.problems.clear()
    browser.open(toy_report / "accuracy.html")
    return browser


def test_no_errors_and_no_requests(page, tmp_path):
    decode = "i => { i.loading = 'eager'; return i.decode(); }"
    decoded = page.evaluate(f"Promise.all([...document.images].map({decode})).then(a => a.length)")
    assert decoded > 100
    page.evaluate("new Promise(done => { scrollTo(0, document.body.scrollHeight); setTimeout(done, 200); })")
    assert page.problems == []


def test_the_recorder_of_problems_works(browser, tmp_path):
    # otherwise the test above could not fail
    browser.problems.clear()
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><script>undefined.x</script>")
    browser.open(bad)
    browser.evaluate("new Promise(done => setTimeout(done, 200))")
    assert any("TypeError" in problem for problem in browser.problems)
    assert any("127.0.0.1" in problem for problem in browser.problems)


def test_every_link_has_its_target(page):
    assert page.evaluate("document.links.length") > 20
    assert (
        page.evaluate(
            "[...document.links].filter(a => !document.getElementById(a.hash.slice(1))).map(a => a.href)"
        )
        == []
    )


def test_a_link_into_a_folded_run_opens_it(page):
    folded = "document.querySelectorAll('details.run')[2].open"
    assert page.evaluate(folded) is False
    page.evaluate("location.hash = '#run-3-errors', new Promise(done => setTimeout(done, 1500))")
    assert page.evaluate(folded) is True
    assert abs(page.evaluate("document.getElementById('run-3-errors').getBoundingClientRect().top")) < 900


def column(page, index):
    return page.evaluate(
        f"[...document.querySelectorAll('.stages tbody tr')].map(r => r.cells[{index}].dataset.sort)"
    )


def test_tables_sort_by_click_and_by_key(page):
    press = "document.querySelectorAll('.stages th button')[1]"
    before = column(page, 1)
    assert [float(value) for value in before] == sorted(map(float, before), reverse=True)
    page.evaluate(f"{press}.click()")
    heading = f"{press}.closest('th').getAttribute('aria-sort')"
    assert page.evaluate(heading) == "descending"
    page.evaluate(f"{press}.focus()")
    for kind in ("keyDown", "keyUp"):
        page.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key="Enter",
            code="Enter",
            text="\r",
            windowsVirtualKeyCode=13,
        )
    assert page.evaluate(heading) == "ascending"
    after = column(page, 1)
    assert [float(value) for value in after] == sorted(map(float, before))
    assert after != before
    page.evaluate("document.querySelectorAll('.stages th button')[0].click()")
    assert column(page, 0) == ["toy baseline / reference / zcu104 / lab"] + [
        f"toy {model} / reference / zcu104 / emulator" for model in ("optimal", "signnet")
    ]
    assert page.evaluate(heading) is None


def test_per_class_tables_sort_too(page):
    script = """(() => { const table = document.querySelector('#run-1-classes table');
        table.querySelectorAll('th button')[4].click();
        return [...table.tBodies[0].rows].map(r => Number(r.cells[4].dataset.sort)); })()"""
    values = page.evaluate(script)
    assert len(values) == 24 and values == sorted(values) and values[0] < values[-1]


def test_stages_of_the_confusion_matrix_switch(page):
    shown = "[...document.querySelectorAll('#run-1-confusion .tabs > section')].map(s => s.offsetHeight > 0)"
    assert page.evaluate(shown) == [False, False, False, True]
    page.evaluate("document.querySelector('label[for=run-1-stage-1]').click()")
    assert page.evaluate(shown) == [True, False, False, False]


def test_a_repeated_matrix_looks_like_its_original(page, tmp_path):
    assert page.evaluate("document.querySelectorAll('#run-1-confusion svg')[1].firstChild.tagName") == "use"
    pictures = []
    for number in (1, 2, 3):
        page.evaluate(f"document.querySelector('label[for=run-1-stage-{number}]').click()")
        box = page.evaluate(
            f"(e => [e.left + scrollX, e.top + scrollY, e.width, e.height])"
            f"(document.querySelectorAll('#run-1-confusion svg')[{number - 1}].getBoundingClientRect())"
        )
        page.screenshot(tmp_path / "matrix.png", box[1], box[3], box[0], box[2])
        pictures.append((tmp_path / "matrix.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize("width", [320, 390, 768, 1000, 1280])
def test_the_page_never_scrolls_sideways(browser, toy_report, width):
    browser.open(toy_report / "accuracy.html", width=width, height=844)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelector('.stages').scrollWidth") <= width
    # the stage table fits its card, so no column hides behind a scroll bar
    assert (
        browser.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('#stages .scroll'))")
        <= 0
    )


def test_light_and_dark_have_contrast(browser, toy_report):
    # WCAG 2: at least 4.5 to 1 for text; every pair of a text colour and its background
    script = """(() => {
        const probe = document.body.appendChild(document.createElement('p'));
        const light = (name) => {
            probe.style.color = `var(${name})`;
            const rgb = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
        };
        const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
        const pairs = ['ink', 'soft', 'blue', 'orange', 'green', 'purple'].map(n => [`--${n}`, '--card'])
            .concat([['--ink', '--page'], ['--soft', '--page'], ['--soft', '--wash'],
                     ['--on-fill', '--blue-fill'], ['--on-orange', '--orange-fill']]);
        return [getComputedStyle(document.body).backgroundColor,
                Object.fromEntries(pairs.map(p => [p.join(' on '), ratio(...p)]))];
    })()"""
    backgrounds = set()
    for scheme in ("light", "dark"):
        browser.open(toy_report / "accuracy.html", scheme=scheme)
        background, ratios = browser.evaluate(script)
        backgrounds.add(background)
        assert min(ratios.values()) >= 4.5, (scheme, min(ratios, key=ratios.get), ratios)
    assert len(backgrounds) == 2


def test_prints_with_all_runs_and_without_navigation(page, tmp_path):
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('.nav')).display") == "none"
    page.call("Emulation.setEmulatedMedia", media="")
    page.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert page.evaluate("[...document.querySelectorAll('details.run')].every(d => d.open)")


def test_a_long_table_of_classes_prints_its_worst_forty_whole(page):
    page.evaluate("""(body => { for (let i = 0; i < 90; i += 1) body.append(body.rows[0].cloneNode(true)); })(
        document.querySelector('#run-1-classes-table').tBodies[0])""")
    table = "document.querySelector('#run-1-classes-table')"
    shown = f"[...{table}.tBodies[0].rows].filter(r => r.offsetHeight).length"
    assert page.evaluate(shown) > 90
    page.call("Emulation.setEmulatedMedia", media="print")
    found = page.evaluate(f"[{shown}, {table}.parentNode.scrollHeight - {table}.parentNode.clientHeight]")
    page.call("Emulation.setEmulatedMedia", media="")
    assert found == [40, 0]


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_no_column_of_the_chief_tables_is_out_of_sight(browser, toy_report, width):
    browser.open(toy_report / "accuracy.html", width=width, height=844)
    boxes = "[...document.querySelectorAll('.stacked')].map(t => t.parentNode)"
    beyond = browser.evaluate(f"{boxes}.filter(b => b.clientWidth).map(b => b.scrollWidth - b.clientWidth)")
    assert len(beyond) >= 3 and max(beyond) <= 0
    cells = "[...document.querySelectorAll('.stacked td')].filter(c => !c.dataset.label && c.colSpan === 1)"
    assert browser.evaluate(f"{cells}.length") == 0


def test_the_sweep_page_filters_and_sorts(browser, tmp_path):
    entries = make_sweep(tmp_path, 48)
    write_sweep(entries, tmp_path / "sweep.html")
    browser.problems.clear()
    browser.open(tmp_path / "sweep.html", width=390, height=844)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    rows = "[...document.querySelectorAll('#data-1-table tbody tr')]"
    typed = """(() => { const box = document.querySelector('input[data-filter]'); box.value = 'wide kv260';
        box.dispatchEvent(new Event('input')); return document.querySelector('output').value; })()"""
    assert browser.evaluate(typed) == "6 of 48 runs"
    assert browser.evaluate(f"{rows}.filter(r => r.offsetHeight > 0).length") == 6
    browser.evaluate("document.querySelector('#data-1-table thead th:nth-child(12) button').click()")
    latencies = browser.evaluate(f"{rows}.map(r => Number(r.cells[11].dataset.sort))")
    assert latencies == sorted(latencies) and latencies[0] == 120 and latencies[-1] == 1800
    assert browser.problems == []


def test_any_two_runs_can_be_laid_side_by_side(page):
    """The script's counts are those of the records."""
    words = "document.getElementById('compare-words').textContent"
    rows = "[...document.querySelectorAll('#compare-table tbody tr')].map(r => r.cells[4].textContent)"
    choices = page.evaluate("[...document.querySelectorAll('#compare-a option')].map(o => o.text)")
    assert len(choices) >= 2
    page.evaluate(
        "(a => { a.selectedIndex = 1; a.dispatchEvent(new Event('change')); })"
        "(document.getElementById('compare-a'))"
    )
    content = json.loads(page.evaluate("document.getElementById('answers').textContent"))
    first = page.evaluate("Number(document.getElementById('compare-a').value)")
    second = page.evaluate("Number(document.getElementById('compare-b').value)")
    unpack = lambda text: np.frombuffer(base64.b64decode(text), "<u2")  # noqa: E731
    truth = unpack(content["data"][0]["labels"])
    before, after = (unpack(content["runs"][index]["answers"]) for index in (first, second))
    changed = before != after
    lost, gained = (changed & (before == truth)).sum(), (changed & (after == truth)).sum()
    said = page.evaluate(words)
    assert said.startswith(f"{changed.sum()} of {len(truth)} images of toy, test split")
    assert f"{lost} lost, {gained} gained" in said
    assert page.evaluate(rows).count("lost") == lost > 0
