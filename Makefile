# Everything runs in .venv, which `environment` makes and repairs. It takes a moment when .venv is
# ready. PYTHON=/path/to/python3.12 chooses the Python that .venv is made with.

# What starts the set-up; that then looks for a Python that is new enough.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3 $(PYTHON)
LAUNCHER := $(shell for p in $(PYTHONS); do "$$p" -S -c "" 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup lab test test-all build check lock bench clean environment

help:
	@echo "make lab     open the course in JupyterLab (LESSON=02 opens a lesson)"
	@echo "make test    run the quick tests (ARGS=\"-k name\" chooses)"
	@echo "make test-all  run all tests: launches, whole notebooks, attacks, nbgrader, kills, too"
	@echo "make setup   only make the environment, .venv (6.5 GB; the others do it too)"
	@echo "make build   write the notebooks from lessons/source"
	@echo "make check   lint, format and types, and that the notebooks are up to date"
	@echo "make lock    write requirements.lock from pyproject.toml"
	@echo "make bench   measure the training figures"
	@echo "make clean   remove caches and built pages (your work, marks, runs, data and .venv stay)"

environment:
	@test -n "$(LAUNCHER)" || { echo "The course needs Python 3.11 or newer; there is no python3 here." >&2; exit 1; }
	@"$(LAUNCHER)" tools/setup.py

setup: environment
	@echo "Ready. Next: make lab"

lab: environment
	@$(BIN)/course lab $(LESSON)

PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadgroup

test: environment
	$(PYTEST) -m "not slow" $(ARGS)

test-all: environment
	$(PYTEST) $(ARGS)

build: environment
	$(BIN)/course build

check: environment
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/course build --check

# The newest versions that fit pyproject.toml: LOCK_ARGS="--upgrade"; otherwise what is locked stays.
lock: environment
	PATH="$(PATH):.course/uv/bin" uv pip compile pyproject.toml --extra dev --extra cloud --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--quiet --output-file requirements.lock $(LOCK_ARGS)

bench: environment
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean:
	rm -rf build/run build/instructor/source .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find lessons labs src tests tools grading benchmarks \
		\( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
