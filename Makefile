# Every target installs what it needs and can be run again at any time.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run test check bench chaos corpus corpus-passing fuzz fuzz-index lock openapi proto docs clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

run: $(VENV)/.runtime ## Start the product on http://127.0.0.1:8080
	@exec $(BIN)/streamgate serve --mode monolith

test: $(VENV)/.dev tests/node/node_modules/.stamp ## Run every test; those of the product twice: one process, then nine
	@tools/system-packages ffmpeg ffprobe node chromium postgresql redis-server
ifdef TESTS
	$(BIN)/python -m pytest $(TESTS)
else
	@tools/test $(BIN)
endif

check: $(VENV)/.dev ## Formatting, lint, types, import rules, API snapshot, reference docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.openapi --check
	$(BIN)/python -m tools.reference --check
	$(BIN)/python -m tools.proto --check

bench: $(VENV)/.dev tests/node/node_modules/.stamp ## Measure (MEDIA=FILE takes a film of yours); see docs/reference/performance.md
	@tools/system-packages nginx wrk curl postgresql redis-server
	@$(BIN)/python -m benchmarks $(if $(MEDIA),--media "$(MEDIA)")

bench-%: $(VENV)/.dev tests/node/node_modules/.stamp
	@tools/system-packages nginx wrk curl postgresql redis-server
	@$(BIN)/python -m benchmarks $* $(if $(MEDIA),--media "$(MEDIA)")

chaos: $(VENV)/.dev tests/node/node_modules/.stamp ## Rounds of faults in nine processes (ROUNDS=…, SEED=…; OUTAGE="half-open s3 40": one long fault)
	@tools/system-packages ffmpeg postgresql redis-server
	@nice -n 5 $(BIN)/python -m tests.chaos --seed $(or $(SEED),1) $(if $(OUTAGE),--outage "$(OUTAGE)",--all --rounds $(or $(ROUNDS),3))

corpus: $(VENV)/.dev ## A folder of media files (DIR=…) through ingest and packaging: a table, file by file
	@tools/system-packages ffprobe
	@$(BIN)/python -m tools.corpus "$(DIR)"

corpus-passing: $(VENV)/.dev ## What of a folder of media files (DIR=…) passes through as uploaded, why, and whether it is the same
	@$(BIN)/python -m tools.corpus_passing "$(DIR)"

fuzz: $(VENV)/.dev ## Ten thousand mutated films (COUNT=…, SEED=…)
	@$(BIN)/python -m tools.fuzz --count $(or $(COUNT),10000) --seed $(or $(SEED),1)

fuzz-index: $(VENV)/.dev ## Ten thousand mutated films of MP4, Matroska and MPEG-TS (COUNT=…, SEED=…)
	@$(BIN)/python -m tools.fuzz_index --count $(or $(COUNT),10000) --seed $(or $(SEED),1)

openapi: $(VENV)/.dev ## Write the packaged OpenAPI snapshot
	$(BIN)/python -m tools.openapi

proto: $(VENV)/.dev ## Write the .proto files of the contracts
	$(BIN)/python -m tools.proto

docs: $(VENV)/.dev ## Write the reference pages that are made from the code
	$(BIN)/python -m tools.reference

lock: ## Pin every dependency anew, by version and hash (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --extra all pyproject.toml requirements/build.in -o requirements/runtime.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --extra all --group dev pyproject.toml requirements/build.in -o requirements/dev.lock

clean: ## Remove what the targets installed (not ./data)
	rm -rf $(VENV) tests/node/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@tools/system-packages python
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python requirements/runtime.lock pyproject.toml
	@test -e $(VENV)/.dev || tools/install $(VENV) requirements/runtime.lock
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python requirements/dev.lock pyproject.toml
	@tools/install $(VENV) requirements/dev.lock
	@touch $@ $(VENV)/.runtime

tests/node/node_modules/.stamp: tests/node/package-lock.json
	@tools/system-packages node npm
	@cd tests/node && npm ci --no-audit --no-fund --loglevel=error
	@touch $@
