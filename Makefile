# Two commands: `make book` reads the book into being, `make test` checks everything. `make help` lists the rest.
PROFILE ?= quick
PYTHON ?= python3
VENV := .venv
MADE := $(VENV)/.made
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONPATH := $(CURDIR)
SNAKEMAKE := snakemake --cores all --resources gpu=1 --nolock --rerun-incomplete --keep-going --quiet all

# A worker a core, up to four, each with one thread; conftest.py says what goes together and what begins first.
PYTEST := OMP_NUM_THREADS=1 python -m pytest -n logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder

# Papermill runs every notebook for the site; nbmake runs the tour and the chapters on data once more, as JupyterLab does.
NOTEBOOKS ?= $(wildcard notebooks/0*.ipynb)

.DEFAULT_GOAL := help
.PHONY: help env book test check lab bench full lock clean

help:  ## list these verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(MADE)  ## create .venv from requirements.lock (every verb does this first; TORCH=cpu: smaller torch, no CUDA)

book: $(MADE)  ## run what changed and build the site (PROFILE=quick, gpu or paper)
	@$(SNAKEMAKE) --config profile=$(PROFILE) || { echo "Some notebooks did not run; the whole story: $$(ls -t .snakemake/log/* | head -n 1)"; exit 1; }
	@python tools/stage.py $(PROFILE)

test: $(MADE)  ## everything: units, notebooks, pipeline, book, site in a browser (NOTEBOOKS=notebooks: all through nbmake, too)
	@$(PYTEST) --nbmake tests $(NOTEBOOKS)

check: $(MADE)  ## before a commit: lint, clean notebooks, quick tests (a minute)
	@ruff check . && ruff format --check . && nbstripout --verify --keep-id notebooks/*.ipynb
	@$(PYTEST) tests -m "not slow and not gpu"

lab: $(MADE)  ## JupyterLab on 127.0.0.1, token on
	@jupyter lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks

bench: $(MADE)  ## speed of the library on this machine
	@python benchmarks/bench_ops.py --record
	@python benchmarks/bench_palette.py
	@python benchmarks/bench_recolor.py

full:  ## the book with PROFILE=gpu: larger pictures, more time
	@$(MAKE) book PROFILE=gpu

lock:  ## resolve pyproject.toml anew into requirements.lock (needs uv)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --all-extras pyproject.toml -o requirements.lock

clean:  ## remove what was generated; .venv and downloaded data stay
	@rm -rf _build .snakemake .pytest_cache .ruff_cache .hypothesis && find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# An environment without its stamp was interrupted: begin again. TORCH=cpu takes torch and torchvision of the same
# versions from PyTorch's own index, and leaves out the CUDA libraries.
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check --no-deps -q
CPU_ONLY := awk '/^[a-z0-9]/ {gpu = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+)==/} !gpu'
$(MADE): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %d.%d; try: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make environments: install its venv package (Debian: apt install python3-venv)"; exit 1; }
	@test -f $@ || rm -rf $(VENV)
	@echo "Creating $(VENV) from requirements.lock (some minutes the first time) ..."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),cpu)
	@$(CPU_ONLY) requirements.lock > $(VENV)/cpu.lock && $(PIP) --require-hashes -r $(VENV)/cpu.lock
	@$(PIP) --index-url https://download.pytorch.org/whl/cpu $$(grep -oE '^(torch|torchvision)==[0-9.]+' requirements.lock)
else
	@$(PIP) --require-hashes -r requirements.lock
endif
	@mkdir -p $(VENV)/share/jupyter/lab/settings && cp tools/jupyterlab.json $(VENV)/share/jupyter/lab/settings/overrides.json
	@$(PIP) --no-build-isolation -e . && touch $@
