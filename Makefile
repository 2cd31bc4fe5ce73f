PYTHON ?= python3
VENV ?= .venv
PORT ?= 5000
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
ANSWER = experiments/results/answer-hours.csv.xz
TORCH = $(shell grep -o '^torch==.*' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help install quickstart test mutants lint bench bench-gpu answer ui docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 14

install: $(VENV)/.installed  ## make the virtual environment

# Without an NVIDIA GPU the CPU build of PyTorch will do, which is several GB smaller.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "Installing into $(VENV) (some minutes, once)"
	$(PYTHON) -m venv $(VENV)
	command -v nvidia-smi > /dev/null || [ "$$(uname)" != Linux ] \
		|| $(PIP) --no-deps --retries 1 --timeout 20 --index-url https://download.pytorch.org/whl/cpu $(TORCH) 2> /dev/null \
		|| $(PIP) $(TORCH)
	$(PIP) --editable '.[dev]'
	touch $@

quickstart: install  ## train a small model on real text, and show what it learned
	$(BIN)/aunet fit -c experiments/quickstart.yaml

test: install  ## pass the test suite
	$(BIN)/python -m pytest

mutants: install  ## plant faults in a copy of the tree: each makes a test fail
	$(BIN)/python -m tests.mutants

lint: install  ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install  ## measure every bar of speed: make bench COMPARE=commit
	$(BIN)/python -m benchmarks.speed $(if $(COMPARE),--compare $(COMPARE))

bench-gpu: install  ## measure the published configurations on a GPU
	$(BIN)/python -m benchmarks.speed.gpu

answer: install  ## draw the reports of docs/answer.md again, from the kept results of its study
	$(BIN)/aunet compare --results $(ANSWER) --out build/answer
	$(BIN)/aunet compare --results $(ANSWER) --out build/answer-flat --reference 'flat bytes with n-grams'
	$(BIN)/aunet compare --results $(ANSWER) --out build/answer-fixed --reference fixed
	$(BIN)/aunet compare --results experiments/results/answer-longer.csv.xz --out build/answer-longer
	$(BIN)/aunet compare --results experiments/results/answer-narrative.csv.xz --out build/answer-narrative

ui: install  ## open MLflow on the local runs
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --workers 1 --port $(PORT) --backend-store-uri sqlite:///runs/mlflow.db

docs: install  ## build the documentation as a site, build/site, and check its links
	$(PIP) --editable '.[docs]'
	$(BIN)/mkdocs build --quiet

clean:  ## delete the virtual environment and built files
	rm -rf $(VENV) build *.egg-info
