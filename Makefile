# make demo: the paper's central result on this machine.  make test: every test.
# make docs-numbers: the tables of README.md and docs/miniature.md anew, from the store in results/.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The compiled kernels' builder is found on PATH, and the same one must always be.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test check install docs-numbers clean

demo: $(INSTALLED)
	$(BIN)/ktrain run demo

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs-numbers: $(INSTALLED)
	$(BIN)/python docs/fill_tables.py

install: $(INSTALLED)

# DeepSpeed's build asks for torch, so torch is there first and the build is not isolated.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt setuptools wheel ninja packaging psutil py-cpuinfo numpy
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation deepspeed
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation --editable '.[test]'
	touch $@

clean:
	rm -rf .venv .cache
