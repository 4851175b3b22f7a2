# Ocular: `make demo` shows a real slide in the browser, `make test` runs the tests. Both set everything up themselves
# on Debian or Ubuntu with Python 3.11 or newer, git and make; run again, they cost nothing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
DEMO_LIBRARY ?= demo-library
# Package index to take PyTorch from, where the default one offers only the CUDA build.
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: help demo demo-library setup test test-fast slow lint bench wheel clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(STAMPS)/serve $(STAMPS)/frontend ## set up, put a real slide into a demo library and serve it
	@$(BIN)/ocular demo --library $(DEMO_LIBRARY) $(if $(PORT),--port $(PORT))

test: $(STAMPS)/dev $(STAMPS)/frontend $(STAMPS)/browser ## set up and run all tests but the slow ones
	$(BIN)/python -m pytest -q

slow: $(STAMPS)/dev $(STAMPS)/cluster $(STAMPS)/frontend $(STAMPS)/browser ## run the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

lint: $(STAMPS)/dev ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMPS)/dev $(STAMPS)/frontend ## run every benchmark and write benchmarks/results/
	$(BIN)/python -m benchmarks.run_all

wheel: $(STAMPS)/dev $(STAMPS)/frontend ## build dist/ocular_wsi-*.whl with templates, static files and weights
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

setup: $(STAMPS)/dev $(STAMPS)/frontend ## install everything a developer needs

clean: ## remove what set-up and builds made (not the demo library)
	rm -rf $(VENV) node_modules static/vendor build dist *.egg-info

# -- set-up, each step once ------------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@echo "==> Python environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Ocular needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "The venv module is missing; install it with: sudo apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "pip is missing; install it with: sudo apt-get install python3-venv"; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: constraints.txt | $(STAMPS)/venv
	@echo "==> PyTorch, CPU build (about 200 MB, once)"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@touch $@

$(STAMPS)/serve: setup.cfg pyproject.toml | $(STAMPS)/torch
	@echo "==> Ocular and what it needs to serve"
	@$(PIP) --editable '.[serve]'
	@touch $@

$(STAMPS)/dev: setup.cfg pyproject.toml | $(STAMPS)/torch
	@echo "==> Ocular and what tests, training and benchmarks need"
	@$(PIP) --editable '.[serve,train,dev]'
	@touch $@ $(STAMPS)/serve

$(STAMPS)/cluster: setup.cfg pyproject.toml | $(STAMPS)/dev
	@echo "==> Ray, which tests of inference over a cluster need (about 240 MB, once)"
	@$(PIP) --editable '.[cluster]' && touch $@ || echo "    Ray cannot be installed here; its tests will be skipped"

$(STAMPS)/frontend: package.json package-lock.json scripts/frontend.py | $(STAMPS)/venv
	@echo "==> Front-end packages"
	@$(BIN)/python scripts/frontend.py
	@touch $@

$(STAMPS)/browser: | $(STAMPS)/venv
	@sh scripts/browser.sh
	@touch $@
