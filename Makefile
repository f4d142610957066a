# Batchbell: `make help` lists what you can do.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Tests that run at once: many of them wait for processes more than for the processor.
JOBS   ?= 4

# What is compiled once is kept, whatever the shell says: each of the tests' processes needs it.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test judges lint static format check soak bench clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Batchbell needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# What the demo needs and no more, so that a first look takes less than a minute.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing Batchbell and what the demo needs: once, for about half a minute"
	@$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing Batchbell and what its tests need: once, for a minute or two"
	@$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/.demo $@

$(VENV)/.judges: pyproject.toml constraints.txt | $(VENV)/.ready
	@echo "Installing the SDKs of every provider: once"
	@$(INSTALL) --editable '.[dev,judges]'
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --constraint constraints.txt \
	  --no-deps --no-binary anthropic,groq --dest $(VENV)/suites anthropic groq
	@touch $@

setup: $(VENV)/.ready ## Make the virtual environment, with all that tests need

demo: $(VENV)/.demo ## The main job end to end, in a minute: no key, no network
	$(BIN)/batchbell demo

test: setup ## Run every test (SQLite and PostgreSQL), JOBS at once
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

judges: $(VENV)/.judges ## Every provider's own SDK against the sandbox and the gateway
	$(BIN)/python -m pytest tests/judges

lint: static ## ruff, mypy, import floors, docs
	$(BIN)/python -m pytest --numprocesses $(JOBS) tests/docs

static: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.blocking_client --check

format: setup ## Let ruff mend what it can; make the blocking client
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m tools.blocking_client
	$(BIN)/python -m tools.client_reference

check: static test ## What CI runs: lint, then test, which has the docs too

soak: setup ## Random kills and failures for SOAK_MINUTES (10), SOAK_AT_ONCE at once
	$(BIN)/python -m tests.faults.soak

bench: setup ## Speed, memory and scale, as ratios taken in one run; BASELINE=commit beside it
	$(BIN)/python -m bench $(WHICH) $(if $(BASELINE),--baseline $(BASELINE))

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
