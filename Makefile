# Every target makes $(VENV) first, if it is missing or if the dependencies have changed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PYTHON=python3.12 selects the Python for $(VENV) (3.11 to 3.13); VENV=path selects its folder."

setup: $(READY)  ## make the environment in .venv, with the tested versions (about 6 GB)

demo: $(READY)  ## train a small detector on the built-in demo set, in minutes on a laptop
	$(BIN)/python scripts/train.py recipe=yolo_csp_n
	@run=$$(ls -td runs/yolo_csp_n/*/ | head -n 1); \
	echo "Pictures of training batches and of predictions beside the ground truth: $${run}pictures/"

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)  ## test every promise once, in minutes; ARGS="-k word" is passed on to pytest
	$(PYTEST) -m "not long" $(ARGS)

test-all: test  ## run make test, then the long tests: programs of tests/reliability, two ranks, real trainings
	$(PYTEST) -m long $(ARGS)

AVX2_CPU := $(CURDIR)/build/avx2_cpu.so
SWITCHES := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 DNNL_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2

test-avx2: $(READY)  ## run the tests marked kernels as on a CPU with AVX2 and without AVX-512
	@mkdir -p build
	@if $(CC) -O2 -shared -fPIC -o $(AVX2_CPU) tests/helpers/avx2_cpu.c 2>/dev/null \
	  && LD_PRELOAD=$(AVX2_CPU) env true 2>/dev/null; then \
	  echo "CPUID is masked: no library sees more than AVX2."; set -- LD_PRELOAD=$(AVX2_CPU); \
	else \
	  echo "CPUID cannot be masked here: switches of torch, oneDNN and MKL instead; the others see all instructions."; \
	  set -- $(SWITCHES); \
	fi; \
	env OMP_NUM_THREADS=1 "$$@" $(BIN)/python -m pytest -m kernels -n 2 --dist load $(ARGS)

check: $(READY)  ## run ruff, the format check, pyright and the test of the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_layering.py

format: $(READY)  ## format the code and apply the fixes of ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and the caches; runs/ and the demo set stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit(1)' || { \
	  echo "detkit needs Python 3.11 to 3.13; '$(PYTHON)' is another version or not found. Name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Making the environment in $(VENV), once: some minutes and about 6 GB."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]" --constraint constraints.txt
	@touch $@

.PHONY: help setup demo test test-all test-avx2 check format clean
