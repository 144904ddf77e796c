# Everything a person or CI runs. Each target installs what it needs by itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: help serve test acceptance check torture mutants bench schemas clean

help: ## what can be run
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/serve.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/serve.stamp

serve: $(VENV)/serve.stamp ## run the server (ARGS="--port 9000" for more)
	$(BIN)/hermes-ws serve $(ARGS)

test: $(VENV)/dev.stamp ## run the tests, on every core
	$(BIN)/python -m pytest -n auto $(ARGS)

acceptance: $(VENV)/dev.stamp ## let clients that we did not write talk to the server (Python and Node)
	HERMES_WS_TESTS_REQUIRE_CLIENTS=1 $(BIN)/python -m pytest -n auto $(ARGS) tests/acceptance

check: $(VENV)/dev.stamp ## ruff, mypy, pyright, import-linter, generated schemas
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/hermes-ws schema --check
	$(BIN)/python -m scripts.settings_doc --check

torture: $(VENV)/dev.stamp ## kill the server again and again: nothing may be lost (ARGS="--seed 7 --kills 1000")
	HERMES_WS_TESTS_LONG=1 $(BIN)/python -m pytest -n auto tests/faults
	$(BIN)/python -m tests.faults.torture --kills 200 --points --proxy $(ARGS)

mutants: $(VENV)/dev.stamp ## take away each guard: a test must notice (ARGS="NAME ..." for some)
	$(BIN)/python -m tests.faults.mutate $(ARGS)

bench: $(VENV)/dev.stamp ## measure, and print ratios (ARGS="--quick" for a short run)
	$(BIN)/python -m bench $(ARGS)

schemas: $(VENV)/dev.stamp ## write schemas/ and the generated tables anew
	$(BIN)/hermes-ws schema --write
	$(BIN)/python -m scripts.settings_doc

clean: ## remove what was built
	rm -rf $(VENV) node_modules tests/acceptance/node/node_modules .pytest_cache .mypy_cache .ruff_cache
