"""Targets that draw the workflow."""

import pytest

pytestmark = pytest.mark.rules


def test_rules_and_jobs_are_drawn_for_the_configuration_in_use(fresh):
    fresh.run("rulegraph", "dag_svg")
    rules = fresh.path("results/rulegraph.svg").read_text()
    jobs = fresh.path("results/dag.svg").read_text()
    assert "quantize_reference" in rules and "train - model: small" not in rules
    assert "train - model: small" in jobs and "compile_reference - target: zcu104" in jobs
