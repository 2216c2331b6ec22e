# Two commands for a newcomer: `make run` and `make test`. Only Python 3.11, make and git are needed.

PYTHON ?= python3.11
VENV ?= .venv
CORES ?= 2
SECONDS ?= 600
SEED ?= 0
CONFIG ?= config/config.yaml
SNAKEMAKE = $(VENV)/bin/snakemake
REPORT = results/report$(patsubst /config,,/$(basename $(notdir $(CONFIG))))/accuracy.html
WITH_CONFIG = --cores $(CORES) --configfile $(CONFIG)
SUDO = $(if $(filter-out 0,$(shell id -u)),sudo)
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install run test test-quick test-tools fuzz-networks reliability lint format networks bench rulegraph dag_svg docs clean

help: ## show the targets
	@grep -hE '^[a-z_ -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z_ -]+):[^#]*## /  make \1\t/' | expand -t 28
	@echo "  CONFIG=FILE chooses another configuration, CORES=N the number of cores."

$(VENV)/run.stamp: requirements.txt constraints.txt pyproject.toml
	@echo "Installing into $(VENV) (once; needs the package index) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet -c constraints.txt -r requirements.txt
	@printf '%s\n' '#!/bin/sh' \
		'PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" exec "$$(dirname "$$0")/python" -m dpuflow "$$@"' \
		> $(VENV)/bin/dpuflow && chmod +x $(VENV)/bin/dpuflow
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp requirements-test.txt
	@$(PIP) install --quiet -c constraints.txt -r requirements-test.txt
	@touch $@

install: $(VENV)/run.stamp ## install what dpuflow runs on into .venv

run: $(VENV)/run.stamp ## data set to accuracy report on the embedded data (CONFIG=... for another)
	@$(SNAKEMAKE) all $(WITH_CONFIG)
	@! test -e $(REPORT) || echo "The report: file://$(CURDIR)/$(REPORT)"

test: $(VENV)/test.stamp ## run all tests
	@$(VENV)/bin/python -m pytest $(TESTS)

test-quick: $(VENV)/test.stamp ## run what needs no service and no network, in less than 4 minutes: before a commit
	@$(VENV)/bin/python -m pytest --quick $(TESTS)

fuzz-networks: $(VENV)/test.stamp ## random networks through everything that executes them (SECONDS=600, SEED=0); goes on where it was
	@$(VENV)/bin/python -m tests.network_fuzz --seconds $(SECONDS) --seed $(SEED)

test-tools: ## install the programs that the full set of tests uses (Debian packages; root or sudo)
	@$(SUDO) apt-get -qq -o Acquire::Retries=5 update
	@DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get -qq -o Acquire::Retries=5 install --yes --no-install-recommends \
		$$(grep -v '^#' requirements-test-debian.txt) > /dev/null

reliability: $(VENV)/test.stamp ## run the tests that break things and write docs/reliability.md
	@$(VENV)/bin/python -m pytest --reliability=docs/reliability.md

lint: $(VENV)/test.stamp ## check style and types: ruff, mypy, snakefmt, snakemake --lint
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/snakefmt --check Snakefile rules
	@$(SNAKEMAKE) --lint $(WITH_CONFIG)

format: $(VENV)/test.stamp ## format the sources
	@$(VENV)/bin/ruff check --fix-only . && $(VENV)/bin/ruff format . && $(VENV)/bin/snakefmt Snakefile rules

rulegraph dag_svg: $(VENV)/run.stamp ## draw the rules (results/rulegraph.svg) or the jobs (results/dag.svg)
	@$(SNAKEMAKE) $@ --quiet rules $(WITH_CONFIG)

docs: $(VENV)/run.stamp ## write config/README.md anew from the schema, docs/operators.md from the reader
	@$(VENV)/bin/python -m dpuflow.workflow.config_docs config/config.schema.yaml > config/README.md
	@$(VENV)/bin/python -m dpuflow.tfgraph.operator_docs > docs/operators.md

$(VENV)/bench.stamp: $(VENV)/run.stamp requirements-bench.txt
	@$(PIP) install --quiet -c constraints.txt -r requirements-bench.txt
	@touch $@

networks: $(VENV)/run.stamp ## real networks through the whole chain -> docs/networks.md (an hour)
	@$(VENV)/bin/python -m benchmarks.networks

bench: $(VENV)/bench.stamp ## run all benchmarks -> benchmarks/results.md (DATA=folder of the real data)
	@$(VENV)/bin/python benchmarks/run_all.py $(if $(DATA),--data $(DATA))

clean: ## remove everything that was computed
	rm -rf results resources logs benchmarks/jobs deploy
