# `make help` tells what there is. Needs make and Python >= 3.11 (PYTHON=/path/to/python picks one); the rest is installed into .venv.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
SDK   := $(VENV)/official
ARGS  ?=
# Files of tests at a time: on two cores it takes half the time of one after another.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1#\2/p' Makefile | column -t -s '#' 2>/dev/null || grep '## ' Makefile

setup: $(STAMP) ## make .venv and install disstream with its development tools

demo: $(STAMP) ## the main job on real data, checked, and a worker that is killed; about a minute (ARGS="--help")
	@$(BIN)/disstream demo --png build/takeover.png $(ARGS)

test: $(STAMP) $(SDK)/.installed ## the tests, without the long ones (ARGS="-k producer")
	@$(BIN)/python -m pytest -q -m "not long" -n $(WORKERS) --dist loadfile $(ARGS)

test-long: $(STAMP) ## the long tests
	@$(BIN)/python -m pytest -q -m long $(ARGS)

lint: $(STAMP) ## ruff (rules and format) and mypy --strict
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy --no-error-summary
	@echo "lint: clean"

bench: $(STAMP) ## acknowledged records/s in and out, at 100 B and 1 KiB, checked (ARGS="--repeats 5")
	@$(BIN)/disstream bench produce --size 100 --records 500000 $(ARGS)
	@$(BIN)/disstream bench produce --size 1024 --records 200000 $(ARGS)
	@$(BIN)/disstream bench consume --size 100 --records 500000 $(ARGS)
	@$(BIN)/disstream bench consume --size 1024 --records 200000 $(ARGS)

clean: ## remove .venv and what tools left behind
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean: done"

# The official SDKs, in an environment of their own. Without them there is no stamp: their tests are skipped and say so,
# and the next run tries again.
$(SDK)/.installed: tests/e2e/official/requirements.txt | $(STAMP)
	@echo "installing the official SDKs for the tests into $(SDK) (once)"
	@$(BIN)/python -m venv --clear $(SDK) \
	  && $(SDK)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $< \
	  && touch $@ \
	  || echo "the official SDKs could not be installed: their tests are skipped" >&2

# Made anew when the dependencies may have changed. A half-made environment has no stamp, so the next run repairs it.
$(STAMP): pyproject.toml
	@set -e; found=; \
	for candidate in "$(PYTHON)" python3 python3.13 python3.12 python3.11 python; do \
	  if [ -n "$$candidate" ] && "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "disstream needs Python 3.11 or newer, and none was found (python3 is: $$(python3 --version 2>&1 || echo absent))." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	  echo "$$found has no venv module, which the set-up needs. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	fi; \
	echo "setting up $(VENV) with $$("$$found" --version) (once; takes a minute)"; \
	"$$found" -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,demo]'; \
	touch $@
