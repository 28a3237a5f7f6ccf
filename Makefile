# Two commands: `make demo` runs the main job on the built-in model, `make test` passes the tests.
# Each target sets up .venv by itself; nothing but Python 3.11+ and make is needed.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# One thread a test process: two on shared cores run several times slower.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.PHONY: demo test check format lint types layers test-fast docs bench bench-methods clean

demo: $(VENV)/.installed
	$(BIN)/tunesmith demo

test: $(VENV)/.installed-dev
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS)

check: format lint types layers test-fast

format: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

layers: $(VENV)/.installed-dev
	$(BIN)/lint-imports

test-fast: $(VENV)/.installed-dev
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) -m "not slow"

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/memory_tables.py
	$(TEST_ENV) $(BIN)/python -m tests.support.planted_page

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.first_step
	$(BIN)/python -m benchmarks.data_structure
	$(BIN)/python -m benchmarks.data_tokens
	$(BIN)/python -m benchmarks.data_duplicates
	$(BIN)/python -m benchmarks.plan
	$(BIN)/python -m benchmarks.memory_exact
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.train_cpu
	$(BIN)/python -m benchmarks.kills
	$(BIN)/python -m benchmarks.evaluate
	$(BIN)/python -m benchmarks.methods

# Every method, in full and with LoRA, on the built-in model: writes the table of docs/methods.md.
bench-methods: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.methods

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist

# Debian splits venv from python3; where it is missing and we may install, install it.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (make PYTHON=...)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); }

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some minutes the first time."
	$(PIP) --editable '.[gguf]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[gguf,dev]'
	touch $@
