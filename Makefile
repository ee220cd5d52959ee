# The project's commands; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
# The tests start hundreds of processes: without compiled files, each compiles the lab and its tests again.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin

# Use uv if it is installed (seconds), otherwise venv and pip; both install the same hashed locks.
ifneq ($(shell command -v uv 2>/dev/null),)
  CREATE := uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
  INSTALL := VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet
else
  CREATE := $(PYTHON) -m venv $(VENV)
  INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
endif

.PHONY: help
help: ## list all targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One stamp per lock. Running the lab requires only the first; each of the others builds on it. Python compiles the lab's
# own dependencies on first import; those of the other locks are compiled right away, on all cores.
$(VENV)/run.stamp: requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v=sys.version_info; sys.exit(0 if v >= (3, 11) else f"the lab requires Python 3.11+, but {sys.executable} is {v.major}.{v.minor}; try make PYTHON=/path/to/python3.12")'
	@echo "Installing the lab into $(VENV) (first time only)"
	@$(CREATE)
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

ADDED_report := matplotlib for reports, database drivers for probes, and what the simulation runs on
ADDED_test := the test tools
ADDED_dev := the development tools
ADDITIONS := $(patsubst %,$(VENV)/%.stamp,report test dev)
$(ADDITIONS): $(VENV)/%.stamp: requirements-%.lock $(VENV)/run.stamp
	@echo "Installing $(ADDED_$*) into $(VENV) (first time only)"
	@$(INSTALL) --require-hashes -r $<
	-@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib
	@touch $@

.PHONY: demo
demo: $(VENV)/run.stamp ## run a 30-second tour on a temporary lab
	@$(BIN)/lab demo $(ARGS)

.PHONY: up
up: $(VENV)/report.stamp ## start the lab and leave it running
	@$(BIN)/lab up --detach $(ARGS)

.PHONY: down
down: $(VENV)/run.stamp ## stop the lab that `make up` started
	@$(BIN)/lab down $(ARGS)

# If a test hangs even after its timeout, kill the test process and report the test.
BACKSTOP := -o faulthandler_timeout=120 -o faulthandler_exit_on_timeout=true
.PHONY: test
test: $(VENV)/test.stamp ## run unit, contract and integration tests in parallel; requires only Python
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(BACKSTOP) $(ARGS)

.PHONY: test-browser
test-browser: $(VENV)/dev.stamp ## run the console tests in Chromium
	@$(BIN)/python -m pytest --suite browser -n 2 --dist loadgroup $(ARGS)

.PHONY: test-stack
test-stack: $(VENV)/dev.stamp ## run the tests of containers, runbooks and dashboards, and slow tests
	@PATH=$(CURDIR)/build/tools:$$PATH $(BIN)/python -m pytest --suite stack -n 3 --dist loadgroup $(ARGS)

.PHONY: test-all
test-all: test test-browser test-stack ## run all three test suites

.PHONY: check
check: $(VENV)/dev.stamp ## check formatting, lint, types and imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

.PHONY: bench
bench: $(VENV)/run.stamp ## measure performance and accuracy as ratios to baselines
	@$(BIN)/lab bench $(ARGS)

.PHONY: broken
broken: $(VENV)/test.stamp ## check that tests catch builds with one deliberate bug each
	@$(BIN)/python -m tests.broken_builds

.PHONY: docs
docs: $(VENV)/dev.stamp ## write the generated parts of the documents
	@$(BIN)/python docs/generate.py

.PHONY: chart
chart: $(VENV)/dev.stamp ## write the manifests that tests expect of the Helm chart (requires .ci/tools)
	@PATH=$(CURDIR)/build/tools:$$PATH $(BIN)/python -m tests.support.chart

.PHONY: format
format: $(VENV)/dev.stamp ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

UPGRADE := --upgrade
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header $(UPGRADE) setup.cfg
.PHONY: lock
lock: ## update the lock files (requires uv); UPGRADE= keeps the locked versions
	@echo "requirements.lock: build"
	@$(COMPILE) --extra build -o requirements.lock
	@extras=build; smaller=requirements.lock; for added in report,probe,simulation test dev,otlp; do \
	  extras=$$extras,$$added; larger=requirements-$${added%%,*}.lock; echo "$$larger: $$extras"; \
	  $(COMPILE) --extra $${extras//,/ --extra } -c $$smaller -o $$larger || exit; smaller=$$larger; \
	done
