# Linux and macOS. The same steps for Windows are spelled out in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.installed
# A worker a core, each with one thread; tests that share the small study stay together (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n auto --dist loadgroup

.PHONY: setup demo test test-fast test-long test-cpus figures check lint types clean

setup: $(DONE)

$(DONE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mien needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	@# Without a connection to npm everything but the live page works; `mien serve` then names this command.
	-$(BIN)/mien serve setup
	@touch $@

demo: setup
	$(BIN)/mien quickstart --out out/quickstart
	$(BIN)/mien recognize $$($(BIN)/python -c "from importlib.resources import files; print(files('skimage') / 'data' / 'astronaut.png')")

test: setup
	$(PYTEST)

# Units and contracts, of which nothing trains and little takes a second: for every save.
test-fast: setup
	$(PYTEST) tests/unit tests/contract -m "not trains and not slow and not long"

# Soaks and whatever needs further tools, one of which missing is a failure.
test-long: setup
	$(PYTEST) -m long --no-skip

# The unit tests under the code paths that other processors take.
test-cpus: setup
	$(BIN)/python tests/cpus.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

# After a new JSON in docs/results: the figures in the texts.
figures: setup
	$(BIN)/python tests/helpers/figures.py --write

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .hypothesis
