# Every target makes its own virtual environment. `make run` and `make test` start from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Quiet unless it fails: -qq leaves errors.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
RUN_DIR ?= run

.PHONY: run test coverage slow test-cluster fuzz bench dist docs lint format clean help

help:
	@echo "make run     i-PI drives C60@buckycatcher with the shipped models; a table and a plot"
	@echo "make test    the test suite"
	@echo "make coverage    the same, and how much of the package it runs; takes twice as long"
	@echo "make slow    long physics: NVE drift and the like"
	@echo "make fuzz    a million inputs to the wire parser, 50,000 to the loaders"
	@echo "make bench   our evaluator against sgdml's, and steps a second under i-PI"
	@echo "make dist    wheels of the program and of the shipped models, and a source archive, in dist/"
	@echo "make docs    the documentation as a site, in build/site; any warning is an error"
	@echo "make lint    ruff, mypy, import-linter, hadolint and shellcheck"
	@echo "make test-cluster    containers and Slurm, really run: as root, on Debian 12"

$(BIN)/python:
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: setup.cfg | $(BIN)/python
	@echo "installing the package, i-PI and what they need, some minutes the first time"
	@$(PIP) install -e ".[ipi,analysis,fast]"
	@touch $@

# torch first: sgdml needs it, and this exact version has a CPU wheel in many places.
$(VENV)/.test: setup.cfg | $(BIN)/python
	@echo "installing the package and all its extras, some minutes the first time"
	@$(PIP) install "torch==2.13.0"
	@$(PIP) install -e ".[dev,train]"
	@touch $@

run: $(VENV)/.run
	$(BIN)/deltaserver simulate ipi_inputs/c60_nvt.xml --models models/c60 --directory $(RUN_DIR)
	$(BIN)/deltaserver analyze contributions $(RUN_DIR)/deltaserver.jsonl \
	    --plot $(RUN_DIR)/contributions.png --csv $(RUN_DIR)/contributions.csv

# More workers than cores: they wait for i-PI for some of their time. One thread each: the cores are
# taken.
WORKERS ?= 3
test coverage: export OMP_NUM_THREADS ?= 1
# What pytest makes of the tests is kept, whatever the environment says: every worker wants it.
test coverage: PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
test coverage: IN_PARALLEL = $(PYTEST) -m "not slow" -n $(WORKERS) --dist worksteal

# Compiles the loops, once: workers that begin together would all do it. Most are the benzene dimer's;
# what others have beyond them is compiled side by side. Beside the first, what pytest makes of the
# tests. What fails the tests tell.
COMPILE = check() { for model in "$$@"; do $(BIN)/deltaserver check --models models/$$model --quiet; \
    done; }; $(PYTEST) --collect-only -q >/dev/null 2>&1 & check benzene_dimer; \
    check methane_dimer c60 no3_corona_surrogate & check benzenes benzene_water; wait; true

test: $(VENV)/.test
	@$(COMPILE)
	$(IN_PARALLEL)

# Following every line takes as long again, so that it is not what `make test` does.
coverage: $(VENV)/.test
	@$(COMPILE)
	$(IN_PARALLEL) --cov --cov-report=term --cov-fail-under=93

slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

FUZZ_INPUTS ?= 1000000

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz.campaign wire --inputs $(FUZZ_INPUTS)
	$(BIN)/python -m tests.fuzz.campaign model --inputs $$(($(FUZZ_INPUTS) / 20))
	$(BIN)/python -m tests.fuzz.campaign manifest --inputs $$(($(FUZZ_INPUTS) / 20))

# Installs podman, buildah, Slurm and the like from Debian's packages; see tests/cluster/.
test-cluster: $(VENV)/.test
	tests/cluster/install.sh
	DELTASERVER_TEST_CLUSTER=1 $(BIN)/python -m pytest -s tests/cluster

dist: $(VENV)/.test
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist models

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "the site is in build/site: open build/site/index.html"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/shellcheck .ci/run $$(git ls-files '*.sh' '*.sbatch')

# One thread, nothing else running: the tables of docs/performance.md.
bench: $(VENV)/.test
	$(BIN)/python benchmarks/evaluators.py
	$(BIN)/python benchmarks/end_to_end.py
	$(BIN)/python benchmarks/train_assembly.py

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(RUN_DIR) build dist *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache
