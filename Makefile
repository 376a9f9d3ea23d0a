# `make demo` and `make test` do all their own set-up: they need Python 3.11 to 3.14 and this file, nothing else.
#
#   make demo               the demo, in about a minute; ARGS="--json" and others are passed on
#   make test               the tests, without the long ones; ARGS="-k join" and others are passed on
#   make test-all           all tests, with their coverage of the code; fails below the committed figure
#   make nightly            the tests that depend on the newest releases in the package index
#   make check              ruff, mypy --strict, import-linter
#   make bench              the benchmarks: a table, and JSON in benchmarks/results/
#   make bench-peers        our worker and Faust integration beside Faust, Quix Streams and Bytewax
#   make bench-learning     how well the default learns, beside reference learners; DATA=DIR: on the streams there
#   make screenshots        the README's pictures of the console, from a run of the demo
#   make vendor             the console's JavaScript, from npm
#   make PYTHON=python3.12  another Python than the first suitable one on the PATH

.DELETE_ON_ERROR:
.PHONY: demo test test-all nightly check bench bench-peers bench-learning screenshots vendor install clean

SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.14 python3.11 python; do \
	$$p -c '$(SUITABLE)' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=
PYTEST := pytest -n auto --dist worksteal
COVERAGE := $(BIN)/python -m coverage
DATA ?= $(wildcard ../shared/data)

demo: $(INSTALLED)
	$(BIN)/tailrace demo $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m $(PYTEST) -m "not long and not nightly" $(ARGS)

test-all: $(INSTALLED)
	$(COVERAGE) erase
	$(COVERAGE) run -m $(PYTEST) -m "not nightly" $(ARGS)
	$(COVERAGE) combine --quiet
	$(COVERAGE) report --skip-covered --sort=cover

nightly: $(INSTALLED)
	$(BIN)/python -m pytest -m nightly $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(INSTALLED)
	$(BIN)/python -m benchmarks.peers $(ARGS)

bench-learning: $(INSTALLED)
	$(BIN)/python -m benchmarks.learning $(if $(DATA),--data $(DATA)) $(ARGS)

screenshots: $(INSTALLED)
	SCREENSHOTS=1 $(BIN)/python -m pytest tests/browser -k pictures $(ARGS)

vendor:
	monitoring/console/static/vendor/fetch.sh

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 found: install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c '$(SUITABLE)' || { echo "$(PYTHON) is not Python 3.11 to 3.14: name another: make PYTHON=/path/to/python" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,test,check]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.*
