# make demo    find, evaluate and compare circuits in the bundled model; again: everything is reused
# make test    the tests          make check   format, lint, types, import arrows

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help install demo test test-fast fuzz soak check format bench train-bundled clean

help:
	@sed -n '1,2s/^# //p' Makefile
	@echo "make bench   speed and memory, as ratios      make train-bundled   make the bundled models again"
	@echo "make fuzz    property tests on new cases      make test-fast       the tests without the slow ones"
	@echo "make soak    the long tests; 30 kills         "
	@echo "make format  format and sort imports          make clean           remove what was built (not artifacts/)"

install: $(READY)

# The environment is made from the lock, and made again when the lock or the project's metadata change.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "circuit-grid needs Python 3.11 or newer; say which one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV) (once; some minutes) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	@$(BIN)/circuit-grid run

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

test-fast: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not soak"

fuzz: $(READY)
	CIRCUIT_GRID_TEST_PROFILE=fuzz $(BIN)/python -m pytest tests/data tests/tasks tests/circuits

soak: $(READY)
	$(BIN)/python -m pytest -m soak
	$(BIN)/python -m tests.soak

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks.attribution
	$(BIN)/python -m benchmarks.many_runs
	$(BIN)/python -m benchmarks.sweeps
	$(BIN)/python -m benchmarks.quadrature
	$(BIN)/python -m benchmarks.agreement
	$(BIN)/python -m benchmarks.overheads
	$(BIN)/python -m benchmarks.store_scale

train-bundled: $(READY)
	$(BIN)/python -m training.train_behaviours
	$(BIN)/python -m training.truths

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
