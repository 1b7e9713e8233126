# Each target does its own set-up and is safe to repeat. Needs only Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
DEV    := $(VENV)/.stamp-dev
SPARK  := $(VENV)/.stamp-spark

.PHONY: demo test services soak lint check fmt lock notebook wheel clean help
.DEFAULT_GOAL := help

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 16

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements-dev.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(SPARK): requirements-spark.lock $(DEV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-spark.lock
	@touch $@

demo: $(STAMP) ## Make a small synthetic hospital in ./demo, run the bridge on it, answer the founding question
	$(BIN)/bridge demo ./demo

test: $(DEV) ## Every test that needs no external server
	$(BIN)/python -m pytest -n 2 -m "not service"

services: $(DEV) $(SPARK) ## The tests against real peers (Orthanc, DCMTK, HAPI FHIR, PostgreSQL, Chromium, Spark, an S3 store); installs them where it can
	tests/services/install.sh
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m service

soak: $(DEV) ## Faults by seed for half an hour, with at least 500 kills; writes bench/results/soak.json
	$(BIN)/python -m tests.faults.soak

lint: $(DEV) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint ## lint, and the fast tests: under a minute
	$(BIN)/python -m pytest -q -n 2 -m "not service" --deselect tests/unit/test_kill.py --deselect tests/unit/test_kill_results.py --deselect tests/unit/test_sandbox.py tests

fmt: $(DEV) ## Format and sort imports
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench-flatten bench-founding bench-questions: $(SPARK)
bench-%: $(DEV) ## Run bench/NAME.py and write bench/results/NAME.json
	$(BIN)/python -m bench.$*

lock: ## Renew the lock files from pyproject.toml (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --extra build-backend pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --extra dev pyproject.toml -o requirements-dev.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --extra build-backend --extra postgres --extra s3 --extra otel --extra sr pyproject.toml -o requirements-image.lock

notebook: $(DEV) ## Execute docs/cohort.ipynb anew
	$(BIN)/python -m tests.notebook

wheel: $(DEV) ## Build the wheel into dist/
	$(BIN)/python -m build --no-isolation --wheel

clean: ## Remove the environment, the demo and caches
	rm -rf $(VENV) demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
