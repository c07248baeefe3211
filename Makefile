# Everything that is typed to work on ckad. Needs Python ≥ 3.11, Rust, gcc and make; the rest comes from PyPI and
# crates.io at pinned versions. Every environment is a folder that git ignores, with a stamp that says it is complete.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first Python that is new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
CORE := python/ckad/_core.abi3.so
RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

# pyo3's build script asks this interpreter for its version, so a changed PATH does not rebuild the core.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help:
	@echo 'make demo       set up, build, run the examples; pictures, a plan and flame graphs go to demo-output/'
	@echo 'make test       make check, then the tests of the Rust crates and of the Python package'
	@echo 'make test-browser  the tests of pages, in Chromium (Debian: apt-get install chromium)'
	@echo 'make check      format, lints, types, generated files'
	@echo 'make format     format, and write the generated files anew'
	@echo 'make build      build the core into .venv, if a source changed'
	@echo 'make wheel      a manylinux abi3 wheel in dist/, checked in a clean environment'
	@echo 'make bench      the benchmarks; make bench-env first, to compare with PyTorch, JAX and autograd'
	@echo 'make bench-results  the same with all libraries; writes the table of README.md'
	@echo 'make scaling    time against the size of graphs and arrays; writes docs/performance.md'
	@echo 'make frontiers  what less memory costs, as planned; writes docs/how-checkpointing-works.md'
	@echo 'make against-torch  bytes and time under limits beside PyTorch; writes the same page'
	@echo 'make accuracy   measures the greatest errors of the kernels again; writes docs/accuracy.md'
	@echo 'make lock       pin the newest versions of requirements/*.in'
	@echo 'make clean      remove what the above made'

# Environments -------------------------------------------------------------------------------------------------------

# $(call environment,FOLDER,LOCK FILE)
define environment
	@if [ -z '$(PYTHON)' ]; then echo 'ckad needs Python 3.11 or newer (set PYTHON=/path/to/python3)' >&2; exit 1; fi
	@echo 'setting up $(1)'
	@$(PYTHON) -m venv --clear $(1) || { rm -rf $(1); echo 'on Debian: apt install python3-venv' >&2; exit 1; }
	@$(1)/bin/python -m pip install --quiet --no-deps --require-hashes -r $(2)
	@touch $(1)/stamp
endef

.venv/stamp: requirements/dev.txt
	$(call environment,.venv,$<)

.venv-wheel/stamp: requirements/wheel.txt
	$(call environment,.venv-wheel,$<)

.venv-bench/stamp: requirements/bench.txt
	$(call environment,.venv-bench,$<)

# The build ----------------------------------------------------------------------------------------------------------

$(CORE): .venv/stamp pyproject.toml $(RUST_SOURCES)
	@echo 'building the core'
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/maturin develop --quiet --release --locked
	@touch $@

.PHONY: build
build: $(CORE)

# Checks and tests ---------------------------------------------------------------------------------------------------

.PHONY: check
check: $(CORE)
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
	@$(BIN)/basedpyright --level error
	@$(BIN)/python tools/generate.py --check

.PHONY: test
test: check
	@cargo test --quiet --workspace --exclude ckad-python --locked
	@$(BIN)/python -m pytest -q -n 2

# Drives the system's Chromium; playwright downloads nothing.
.PHONY: test-browser
test-browser: $(CORE)
	@$(BIN)/python -m pytest -q -m browser tests/test_browser.py

.PHONY: format
format: $(CORE)
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .
	@cargo fmt --all
	@$(BIN)/python tools/generate.py

# Minutes: every elementwise kernel against multi-precision arithmetic.
.PHONY: accuracy
accuracy: $(CORE)
	@$(BIN)/python tools/accuracy.py

# Running ------------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(CORE)
	@mkdir -p demo-output
	@$(BIN)/python examples/iris.py
	@$(BIN)/python examples/deep_net.py
	@$(BIN)/python examples/jacobian_mode.py
	@$(BIN)/python examples/erosion.py
	@echo; echo 'files:'; ls demo-output/* | sed 's/^/  /'

.PHONY: bench
bench: $(CORE)
	@$(BIN)/python -m benches.compare all --json bench-output/results.json

# What the README's table is made from.
.PHONY: bench-results
bench-results: $(CORE) .venv-bench/stamp
	@$(BIN)/python -m benches.compare all --json benches/results.json
	@$(BIN)/python tools/generate.py

# What docs/performance.md is made from.
.PHONY: scaling
scaling: $(CORE)
	@$(BIN)/python -m benches.scaling
	@$(BIN)/python -m benches.floors
	@$(BIN)/python -m benches.overheads
	@$(BIN)/python tools/generate.py

# What docs/how-checkpointing-works.md is made from. Nothing runs: the figures are counts.
.PHONY: frontiers
frontiers: $(CORE)
	@$(BIN)/python -m benches.frontiers
	@$(BIN)/python tools/generate.py

# The other table of that page: bytes and time under limits beside PyTorch's ways, which take minutes each.
.PHONY: against-torch
against-torch: $(CORE) .venv-bench/stamp
	@$(BIN)/python -m benches.against_torch --json benches/against_torch.json
	@$(BIN)/python tools/generate.py

.PHONY: bench-env
bench-env: .venv-bench/stamp

# Release ------------------------------------------------------------------------------------------------------------

.PHONY: wheel
wheel: .venv-wheel/stamp
	@PYO3_PYTHON=$(CURDIR)/.venv-wheel/bin/python .venv-wheel/bin/python tools/wheel.py

.PHONY: lock
lock: .venv/stamp
	@$(BIN)/python -m pip install --quiet uv
	@for name in dev wheel bench; do \
		$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
			--no-header --system-certs requirements/$$name.in -o requirements/$$name.txt; done

.PHONY: clean
clean:
	rm -rf .venv .venv-wheel .venv-bench target dist demo-output bench-output $(CORE)
	rm -rf .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
