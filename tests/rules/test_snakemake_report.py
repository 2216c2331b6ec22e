"""`snakemake --report`: one file that works without a network, with captions and categories."""

import re

import pytest

pytestmark = pytest.mark.rules


def test_the_report_holds_our_pages_with_captions_and_categories(finished, tmp_path):
    path = tmp_path / "snakemake_report.html"
    finished.run("--report", str(path))
    text = path.read_text(encoding="utf-8")
    assert "Accuracy of every run at every stage" in text, "the caption of accuracy.html"
    assert '"Accuracy"' in text, "its category"
    assert "This workflow ran 1 entry of" in text, "the workflow's description, rendered"
    # nothing is loaded from elsewhere: no script, style, image or font with an address
    loads = re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["'](https?:[^"']+)""", text)
    assert not loads
