# `make help` lists the commands. Python packages are installed into .venv.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed
BENCH_STAMP := .venv/.bench-installed
BENCHMARKS := $(patsubst %,benchmarks/%.py,plan startup submit augment gang loader train sweep corrupt)

# With this variable, each job of a sweep and each test would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

# System packages. The system's own Python needs another package for venv and pip.
SYSTEM := g++ pkg-config libopencv-dev libturbojpeg0-dev
ifneq ($(filter /usr/bin/%,$(realpath $(shell command -v $(PYTHON)))),)
SYSTEM += python3-venv
endif
# The images of Fashion-MNIST. It may fail: not every mirror has the package, and without it
# torchvision downloads the images.
DATA_SYSTEM := dataset-fashion-mnist
SLURM_SYSTEM := slurmctld slurmd slurmdbd slurm-client munge mariadb-server
TEST_SYSTEM := texlive-latex-base texlive-latex-recommended texlive-science chromium

.PHONY: help setup system test-system quickstart check test testbed testbed-down bench gpu-check clean

help:
	@echo "make setup       install missing system packages and, into .venv, exact versions of packages"
	@echo "make quickstart  a real sweep on Fashion-MNIST, ending with its table (under 6 minutes)"
	@echo "make check       format, lint, import contract, types, spelling, fast tests (about 4 minutes)"
	@echo "make test        every test (about half an hour on two cores)"
	@echo "make testbed     a real SLURM on this machine, for cluster=testbed (make testbed-down ends it)"
	@echo "make bench       measure speed against other libraries on this machine"
	@echo "make gpu-check   check equality and speed on a CUDA device"
	@echo "make clean       remove .venv, build and caches"

setup: system $(STAMP)

system:
	@sh .ci/packages $(SYSTEM)
	@sh .ci/packages $(DATA_SYSTEM) || echo "note: without $(DATA_SYSTEM) its images are downloaded" >&2

test-system: | system
	@sh .ci/packages $(TEST_SYSTEM) $(SLURM_SYSTEM)

$(STAMP): pyproject.toml constraints.txt | system
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14))' || \
	  { echo "error: $(PYTHON) is not Python 3.11 to 3.13: install one and name it, make setup PYTHON=python3.12" >&2; exit 2; }
	@test -x .venv/bin/uv || $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || \
	  { echo "error: no venv module: install python3-venv, then make setup" >&2; exit 2; }
	@test -x .venv/bin/uv || $(PY) -m pip install --quiet --constraint constraints.txt uv
	@.venv/bin/uv pip install --quiet --compile-bytecode --python $(PY) --constraint constraints.txt --editable '.[train,ffcv,dev]'
	@touch $@
	@echo "installed into .venv"

# The libraries that benchmarks compare with, in addition.
$(BENCH_STAMP): $(STAMP)
	@.venv/bin/uv pip install --quiet --python $(PY) --constraint constraints.txt --editable '.[train,ffcv,dev,bench]'
	@touch $@

quickstart: setup
	@$(PY) -m harness.launch grid=quickstart
	@$(PY) -m analysis.table grid=quickstart out=out/quickstart

check: setup
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/codespell
	@$(PY) -m pytest -n 2 --dist loadfile -m "not slow"

# One process more than cores (two), because tests of clusters mostly wait for schedulers.
# pytest-xdist would sort files by their number of tests, and the longest files would come last.
# --no-loadscope-reorder keeps the order of tests/conftest.py, which starts with them.
test:
	@$(MAKE) --no-print-directory -j 2 setup test-system
	@$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

testbed: setup
	@slurm/testbed/testbed up
	@echo "now: eval \$$(slurm/testbed/testbed env); $(PY) -m harness.launch grid=quickstart cluster=testbed"

testbed-down:
	@slurm/testbed/testbed down

bench: setup $(BENCH_STAMP)
	@for file in $(BENCHMARKS); do echo "== $$file"; OMP_NUM_THREADS=1 $(PY) $$file || exit 1; done

gpu-check: setup $(BENCH_STAMP)
	@OMP_NUM_THREADS=1 $(PY) benchmarks/gpu_check.py

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache
