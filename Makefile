# Bare `make` prints the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
LOCKS := runtime demo dev
UV ?= uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links --group build

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## build .venv with all that the service and the demo need (PYTHON=... picks the interpreter)
	@deploy/install.sh demo
	@echo "Installed. Next: make demo, or $(BIN)/session-consumer --help"

# In a terminal the demo is a job of its own (set -m), so that Ctrl-C ends it, and not make with an error.
demo: ## see the whole service work, no Salesforce or Kafka needed (FOR=20 ends after 20 seconds)
	@deploy/install.sh demo
	@if [ -t 0 ] && [ -t 1 ]; then set -m; fi; $(BIN)/session-consumer demo $(if $(FOR),--for $(FOR))

test: ## install the development set and run the whole suite (TESTS=tests/unit runs a part)
	@deploy/install.sh dev
	@$(BIN)/python -m pytest $(TESTS)

check: ## formatting, lint, types, layers, generated stubs, known vulnerabilities
	@deploy/install.sh dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python proto/generate.py --check
	@$(MAKE) audit

audit: ## ask the advisory service about the locked packages (part of check)
	@deploy/install.sh dev
	$(BIN)/python deploy/audit.py

bench: ## run the README's benchmarks, each a ratio against its baseline in the same run (BENCH=13 runs parts)
	@deploy/install.sh dev
	@$(BIN)/python -m tests.bench $(BENCH)

lock: ## resolve the dependencies again and write deploy/requirements (needs uv)
	@command -v $(UV) >/dev/null || { echo "lock: uv was not found: install it, or name it with UV=/path/to/uv." >&2; exit 1; }
	$(COMPILE) pyproject.toml --extra demo --group dev $(UPGRADE) -o deploy/requirements/dev.txt
	$(COMPILE) pyproject.toml --extra demo --constraint deploy/requirements/dev.txt -o deploy/requirements/demo.txt
	$(COMPILE) pyproject.toml --constraint deploy/requirements/dev.txt -o deploy/requirements/runtime.txt

clean: ## remove .venv and everything that tools and builds leave behind
	@rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

.PHONY: help install demo test check audit bench lock clean
