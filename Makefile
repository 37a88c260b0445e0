# Weir: `make demo` shows it, `make test` proves it, `make up` runs it. Needs Python 3.11+, make,
# a C++ compiler and cmake; `make PYTHON=python3.12 ...` chooses the Python.

PYTHON ?= python3
BIN := .venv/bin
MINUTES ?= 5
SEED ?=
DATA ?= data
# Each worker of `make test` runs whole files, on a Kafka and a PostgreSQL of its own.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo up test test-integration lint fmt gen check bench chaos lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

install: ## make .venv with the locked dependencies and the weir command
	@$(PYTHON) -m infra.build.install

demo: install ## run the main job on the embedded stack, from nothing to a summary
	@$(BIN)/weir demo

up: install ## start the embedded stack in the foreground
	@$(BIN)/weir up --data $(DATA)

test: install lint ## everything: style, types, import rules, all tests
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-integration: install ## only the tests that need the servers
	@$(BIN)/python -m pytest tests/integration

lint: install ## style, types and import rules
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

fmt: install ## format the code and repair what can be repaired
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

gen: install ## write what is derived from the code
	@$(BIN)/python -m infra.gen
	@$(BIN)/python -m tests.docs.tables

check: lint ## lint, and that nothing derived has drifted
	@$(BIN)/python -m infra.gen --check

bench: install ## the figures of docs/performance.md, on this machine
	@$(BIN)/python -m bench

chaos: install ## kill everything at random: make chaos MINUTES=30 SEED=7
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lock: install ## resolve all dependencies anew and pin them by hash
	@$(BIN)/python -m infra.build.lock

clean: ## remove the environment (the caches of the machine stay)
	@rm -rf .venv
