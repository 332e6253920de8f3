# Every target sets up what it needs in .venv; a second run finds it ready. `make help` lists the targets.
PYTHON ?= python3
WORKERS ?= 2
DEMO ?= demo
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint requirements.lock
TORCH := torch==2.13.0
CODE := HNSegExtension HNSegTraining Testing

# Torch and ITK would each start a thread per core in each of the test processes.
ONE_THREAD := OMP_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit bench setup clean
.DELETE_ON_ERROR:

help:            ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: *[^#]*## */\t/' | expand -t 12

demo: $(VENV)/stamp-base  ## phantom patient -> 30 organs -> report, with DSC against the truth
	$(BIN)/hnseg demo $(DEMO)

test: lint unit  ## lint, types, layers, then every test with coverage of hnseg

unit: $(VENV)/stamp-dev  ## the tests alone
	$(ONE_THREAD) $(BIN)/pytest -q -n $(WORKERS) --dist loadfile --cov=hnseg --cov-report=term --cov-report=xml:build/coverage.xml

lint: $(VENV)/stamp-dev  ## ruff, mypy strict, import layers
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/stamp-dev  ## benchmarks; the table goes to docs/benchmarks.md
	$(BIN)/python Testing/benchmarks/run_all.py --out build/bench --table docs/benchmarks.md

setup: $(VENV)/stamp-dev  ## everything a developer needs, and the commit hooks where this is a git checkout
	@if [ -d .git ]; then $(BIN)/pre-commit install; fi

clean:           ## remove results and caches, keep .venv
	rm -rf $(DEMO) build htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "HNSeg needs Python 3.11 or newer as '$(PYTHON)', found '$$($(PYTHON) --version 2>&1)'; install it or say make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Torch comes first and exactly, as the CPU build where pip finds one: by itself, or in the index that PIP_EXTRA_INDEX_URL
# names. The default build, which comes else, brings gigabytes of CUDA libraries on Linux; macOS has but one.
$(VENV)/stamp-base: pyproject.toml requirements.lock | $(BIN)/python
	@$(PIP) $(TORCH)+cpu 2>/dev/null || $(PIP) $(TORCH)
	$(PIP) --editable '.[training]'
	@touch $@

$(VENV)/stamp-dev: $(VENV)/stamp-base
	$(PIP) --editable '.[training,mrml,qt,dev]'
	@touch $@
