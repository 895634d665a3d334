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

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# On a machine with a CUDA GPU: tests, benchmark, and training in pieces of nine minutes.
gpu: setup
	$(BIN)/python scripts/gpu.py
