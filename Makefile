# Two commands: `make demo` (or `make demo IMAGE=image.png`) and `make test`. Both install into .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IMAGE ?=
OUTPUT ?= demo-output
WORKERS ?= 2
BASE ?= ../base/src
IMAGES ?= 100
BENCHMARKS ?= localization_cost gradcam_cost compile_speed export_speed training_step image_cache_speed \
	reading_speed folder_speed build_times growth

export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-lowest slow bench builds docs clean

demo: $(VENV)/.installed
	$(BIN)/python examples/localize.py $(if $(IMAGE),"$(IMAGE)") --output_dir "$(OUTPUT)"

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered

slow: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet -e '.[test,suites]'
	$(BIN)/python -m pytest -m "slow or network"

# The lowest versions that setup.cfg allows, in an environment of their own, and the fast suite on them.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --python .venv-lowest --resolution lowest-direct -e '.[test]'
	.venv-lowest/bin/python -m pytest

bench: $(VENV)/.installed-test
	@for name in $(BENCHMARKS); do \
		echo; echo "## benchmarks/$$name.py"; echo; $(BIN)/python benchmarks/$$name.py || exit 1; \
	done

# What this build takes against another, whose sources are in BASE: make builds BASE=../base/src (half an hour).
builds: $(VENV)/.installed-test
	$(BIN)/python benchmarks/build_times.py --rounds 3 --base "$(BASE)"
	$(BIN)/python benchmarks/predict_builds.py --base "$(BASE)" --engines auto torch --images $(IMAGES) --rounds 1
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/localization_cost.py --rounds 5

docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) demo-output build dist .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: clarity_hf needs Python 3.11 or newer; run make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "installing clarity_hf and its dependencies into $(VENV) (several minutes the first time)"
	$(BIN)/python -m pip install --quiet --progress-bar on -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[test]'
	@touch $@
