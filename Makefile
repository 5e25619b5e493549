# Each target does its own set-up, in .venv: `make demo` on a fresh clone needs Python 3.11 or newer, and nothing else.
# Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INTEROP := .venv-interop

# When one of these changes, the next target installs again.
PACKAGING := setup.cfg setup.py pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help bench-quick demo test test-interop lint wheel-test readme bench clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target what; do \
		printf '  make %-13s %s\n' "$$target" "$$what"; done

demo: $(VENV)/.installed-agents  ## run the paper's recipe on the smallest task
	$(BIN)/efm recipe

test: $(VENV)/.installed-dev  ## run the tests
	$(BIN)/python -m pytest -n auto

test-interop: $(INTEROP)/.installed  ## run the programs of docs/loops.md, with the libraries they need, in .venv-interop
	EFM_INTEROP=1 $(INTEROP)/bin/python -m pytest tests/interop

lint: $(VENV)/.installed-dev  ## check format, style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel-test: $(VENV)/.installed-dev  ## build the wheel and try it in an empty environment, without torch
	$(BIN)/python .ci/wheel_smoke.py

readme: $(VENV)/.installed-agents  ## write README's tables from the stored results
	$(BIN)/python benchmarks/publish.py readme

bench: $(VENV)/.installed-dev  ## measure speed (pytest-benchmark)
	$(BIN)/python -m pytest benchmarks/perf --benchmark-only

bench-quick: $(VENV)/.installed-agents  ## one training seed of the first result, small: demonstrations, SFT, practice, evaluation
	$(BIN)/python benchmarks/suite.py run r1-quick --workers 1
	$(BIN)/python benchmarks/suite.py show r1-quick

clean:  ## remove builds and caches; .venv and runs stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find efm_envs agents benchmarks assets tests .ci -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up ----------------------------------------------------------------------------------------------------------

$(VENV)/.installed-agents: $(PACKAGING) | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[agents]"
	@touch $@

$(VENV)/.installed-dev: $(PACKAGING) | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[agents,dev]"
	@touch $(VENV)/.installed-agents $@

$(INTEROP)/.installed: $(PACKAGING) tests/interop/requirements.txt | $(BIN)/python
	$(BIN)/python -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install -r tests/interop/requirements.txt -e ".[agents,sb3]"
	@touch $@

# This runs on whatever $(PYTHON) is, however old.
define CHECK_PYTHON
import sys
found = "%s is Python %d.%d.%d (%s)" % (("$(PYTHON)",) + tuple(sys.version_info[:3]) + (sys.executable,))
if sys.version_info < (3, 11):
    sys.exit("efm-envs needs Python 3.11 or newer, and " + found + ".\n"
             "Name a newer one, for example: make PYTHON=python3.12 demo")
try:
    import ensurepip, venv
except ImportError:
    package = "python%d.%d-venv" % sys.version_info[:2]
    sys.exit(found + ", and it cannot make virtual environments.\n"
             "On Debian and Ubuntu: apt-get install %s (or python3-venv)" % package)
endef
export CHECK_PYTHON

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "efm-envs needs Python 3.11 or newer, and there is no $(PYTHON) on the PATH." >&2; \
		echo "Name one, for example: make PYTHON=/path/to/python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@echo "$(PYTHON) -m venv $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) could not make $(VENV). On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
