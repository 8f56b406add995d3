# klake. `make` alone prints the targets.
PYTHON ?= python3
ifeq ($(OS),Windows_NT)
  BIN := .venv/Scripts
else
  BIN := .venv/bin
endif
SETUP := $(PYTHON) etc/environment.py
# Two workers: the proofs that run processes of their own stay honest on two cores.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test proof check types bench docs dist clean

help: ## print the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1@/' | awk -F@ '{ printf "%-14s %s\n", $$1, $$2 }'

demo: ## install klake into .venv and run the main job against the sandbox (no key, no network)
	@$(SETUP) demo
	@$(BIN)/klake demo

test: ## install what the tests need and run them all
	@$(SETUP) test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -q -m "not proof"

proof: ## run everything with the long forms of the proofs, property tests at random (hours)
	@$(SETUP) test
	@HYPOTHESIS_PROFILE=proof $(BIN)/python -m pytest -q

check: ## lint, format, import floors
	@$(SETUP) dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: ## both strict type checkers, on the package as users receive it
	@$(SETUP) types
	@$(BIN)/python etc/types_gate.py

bench: ## measure, as ratios to bounds of the same run (ARGS=--full: 12.5 M daily and 7.2 M minute bars)
	@$(SETUP) dev
	@$(BIN)/python -m benchmarks $(ARGS)

docs: ## write the CLI reference from the program
	@$(SETUP) dev
	@$(BIN)/python etc/cli_reference.py

dist: ## build sdist and wheel
	@$(SETUP) dev
	@$(BIN)/python -m build

clean: ## remove what the targets made (never data/)
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
