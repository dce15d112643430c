# make demo      set everything up in .venv; watch a learner learn to learn, and a search find a small network
# make test      the same, and the tests
# make check     style, types, imports and generated tables
# make bench     the next unit of every few-shot benchmark (those of searches say in their first lines how to run them);
#                speed is measured only where nothing else runs
# make results   regenerate the tables of RESULTS.md and the README from benchmarks/results/*.json
# make docs      the documentation site, in site/
# make gpu       the tests and benchmarks that need a CUDA device, with the Python that runs here

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check bench results docs gpu setup clean

demo: $(VENV)/.demo
	$(BIN)/quickstudy demo --out demo --force

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/render.py --check

bench: $(VENV)/.bench
	-$(BIN)/python benchmarks/maml_speed.py
	$(BIN)/python benchmarks/sinusoid.py
	$(BIN)/python benchmarks/few_shot.py
	$(BIN)/python benchmarks/few_shot.py --which omniglot

results: $(VENV)/.dev
	$(BIN)/python benchmarks/render.py

docs: $(VENV)/.docs
	$(BIN)/python -m zensical build --strict

gpu:
	PYTHONPATH=src $(PYTHON) -m pytest -m gpu tests
	PYTHONPATH=src $(PYTHON) benchmarks/maml_speed.py --device cuda

setup: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cli,nas]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) demo site
