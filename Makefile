# Everything a person starts. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# uv where it is there (seconds), else the standard library's venv and pip; both install the same hashed locks.
ifneq ($(shell command -v uv 2>/dev/null),)
  CREATE := uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
  INSTALL := VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet
else
  CREATE := $(PYTHON) -m venv $(VENV)
  INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
endif

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One stamp per lock. Running the lab requires the first only; each of the others adds to it. Python compiles what a first
# run imports; what comes after it is compiled at once, on all cores.
$(VENV)/run.stamp: requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v=sys.version_info; sys.exit(0 if v >= (3, 11) else f"the lab needs Python 3.11 or newer, {sys.executable} is {v.major}.{v.minor}; try make PYTHON=/path/to/python3.12")'
	@echo "Installing the lab into $(VENV) (first time only)"
	@$(CREATE)
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

ADDED_report := matplotlib for reports
ADDED_test := the test tools
ADDED_dev := the development tools
ADDITIONS := $(patsubst %,$(VENV)/%.stamp,report test dev)
$(ADDITIONS): $(VENV)/%.stamp: requirements-%.lock $(VENV)/run.stamp
	@echo "Installing $(ADDED_$*) into $(VENV) (first time only)"
	@$(INSTALL) --require-hashes -r $<
	-@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib
	@touch $@

.PHONY: demo
demo: $(VENV)/run.stamp ## the whole story in 20 seconds: starts the lab, tells it, stops the lab
	@$(BIN)/lab demo $(ARGS)

.PHONY: up
up: $(VENV)/report.stamp ## start the lab and leave it running
	@$(BIN)/lab up --detach $(ARGS)

.PHONY: down
down: $(VENV)/run.stamp ## stop the lab that `make up` started
	@$(BIN)/lab down $(ARGS)

# Where even the end of a test hangs, its process is ended, and the test reported.
BACKSTOP := -o faulthandler_timeout=120 -o faulthandler_exit_on_timeout=true
.PHONY: test
test: $(VENV)/test.stamp ## unit, contract and integration tests, side by side; needs Python only
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(BACKSTOP) $(ARGS)

.PHONY: test-browser
test-browser: $(VENV)/dev.stamp ## the console in Chromium
	@$(BIN)/python -m pytest --suite browser $(ARGS)

.PHONY: test-stack
test-stack: $(VENV)/dev.stamp ## containers, runbooks, dashboards, and whatever takes minutes
	@$(BIN)/python -m pytest --suite stack $(ARGS)

.PHONY: test-all
test-all: test test-browser test-stack ## all three

.PHONY: check
check: $(VENV)/dev.stamp ## what CI runs first: format, lint, types, imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

.PHONY: bench
bench: $(VENV)/run.stamp ## how fast and how exact, as ratios against baselines in the same run
	@$(BIN)/lab bench $(ARGS)

.PHONY: broken
broken: $(VENV)/test.stamp ## builds of the lab with one thing wrong, and which tests catch each
	@$(BIN)/python -m tests.broken_builds

.PHONY: format
format: $(VENV)/dev.stamp ## rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

UPGRADE := --upgrade
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header $(UPGRADE) setup.cfg
.PHONY: lock
lock: ## resolve the dependencies again (needs uv); UPGRADE= keeps the locked versions
	@echo "requirements.lock: build"
	@$(COMPILE) --extra build -o requirements.lock
	@extras=build; smaller=requirements.lock; for added in report test dev,otlp; do \
	  extras=$$extras,$$added; larger=requirements-$${added%,*}.lock; echo "$$larger: $$extras"; \
	  $(COMPILE) --extra $${extras//,/ --extra } -c $$smaller -o $$larger || exit; smaller=$$larger; \
	done
