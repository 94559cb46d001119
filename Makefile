# The project's commands. Each makes .venv on its first run and uses it from then on.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install train test test-long test-all chaos chaos-sweep traffic check docs clean

install: .venv/installed

train: .venv/installed
	$(BIN)/python jobs/train.py sample

test: .venv/installed
	$(BIN)/python -m pytest

test-long: .venv/installed
	$(BIN)/python -m pytest -m long

test-all: test test-long

# Kills workers, jobs and nodes of training runs, and more: make chaos ARGS='--kills 200'
chaos: .venv/installed
	PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

# Kills a sweep, its trials, workers and nodes at random moments: make chaos-sweep ARGS='--kills 20 --trials 16'
chaos-sweep: .venv/installed
	PYTHONPATH=tests $(BIN)/python -m chaos.sweeps $(ARGS)

# Counts a run's control messages on 1 to 32 Ray nodes on this machine: make traffic ARGS='--nodes 1 2 4'
traffic: .venv/installed
	PYTHONPATH=tests $(BIN)/python -m traffic $(ARGS)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site of docs/, in site/; fails on whatever is not linked or not found. The theme's makers are kept from advertising.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:
	rm -rf .venv

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv: about two minutes, 2.5 GB without CUDA."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[sample,dev,docs]'
	touch $@
