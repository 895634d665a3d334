# Every target sets up .venv first if needed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint gpu

setup: .venv/ready

.venv/ready: requirements.txt setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	touch $@

demo: setup
	$(BIN)/python scripts/demo.py

# A lost worker ends the run and names its test: with another worker in its place xdist may wait for ever.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --max-worker-restart 0

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# On a machine with a CUDA GPU: tests, benchmark, and training in pieces of nine minutes.
gpu: setup
	$(BIN)/python scripts/gpu.py
