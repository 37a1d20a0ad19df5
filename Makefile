# What a developer types. Every target sets up what it needs; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DISTS := $(patsubst %/pyproject.toml,%,$(wildcard core/pyproject.toml hud_*/pyproject.toml plugins/*/pyproject.toml))
PACKAGES := hud $(notdir $(filter-out core,$(DISTS)))
TESTS := $(wildcard $(addsuffix /tests,$(DISTS))) tests
FAST := not slow and not soak and not docker and not registry and not benchmark
FULL := not soak and not benchmark
export PYTHONSAFEPATH := 1
# The workspace's own tests want every plugin loaded the same way on every machine.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD := 1
PYTEST := $(BIN)/python -m pytest -p pytest_timeout -p xdist -p _hypothesis_pytestplugin -p anyio

.PHONY: help setup system demo demo-docker test test-fast bench lint format docs soak clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## make the virtual environment and install every distribution, editable

# constraints.txt holds the whole closure of third-party packages; ours are installed from their folders, alone.
$(VENV)/.installed: constraints.txt $(addsuffix /pyproject.toml,$(DISTS))
	@command -v $(PYTHON) >/dev/null || { echo "missing: python3 (3.11 to 3.13)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "missing: Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) -V)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install -q "$$(grep '^uv==' constraints.txt)"
	@$(BIN)/uv pip install -q --python $(BIN)/python -r constraints.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation $(addprefix -e ./,$(DISTS))
	@touch $@

system: ## install the system packages the tests use (needs root; says what is missing otherwise)
	@bash tests/system-packages

demo: setup system ## run the examples with the oracle agent and print the table of results
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/examples/demo

demo-docker: setup system ## build the coding example into an image and run it in containers
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/examples/demo-docker

lint: setup ## formatting, lint, types, import directions, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/codespell $(DISTS) tests docs README.md CONTRIBUTING.md CHANGELOG.md
	$(BIN)/mypy $(addprefix -p ,$(PACKAGES))
	@set -e; for folder in $(TESTS); do echo "mypy $$folder"; $(BIN)/mypy --namespace-packages --explicit-package-bases $$folder; done

format: setup ## format and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Tests rewrite modules within a second, which Python's bytecode does not notice.
test test-fast soak: export PYTHONDONTWRITEBYTECODE := 1

test: setup system lint ## every check and every test, as CI runs them
	$(PYTEST) -m "$(FULL)" -n 2 --dist loadgroup --durations 15 -rs $(TESTS)

test-fast: setup ## the tests for daily use, under a minute
	$(PYTEST) -m "$(FAST)" -n 2 --dist loadgroup -q $(TESTS)

bench: setup ## print the table of figures, each beside its floor of the same run
	env -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX=$(CURDIR)/$(VENV)/pycache $(BIN)/python tests/benchmarks/table.py $(BENCH)

soak: setup ## minutes to an hour: a million mutated frames, random kills, faults
	$(PYTEST) -m soak -s $(TESTS)

docs: setup ## generate the reference pages into docs/reference (not committed)
	$(BIN)/python docs/generate.py

clean: ## remove what the other targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache docs/reference .hud
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
