# `make help` tells what there is. Needs make and Python >= 3.11 (PYTHON=/path/to/python picks one); the rest is installed into .venv.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
SDK   := $(VENV)/official
PEERS := $(VENV)/peers
ARGS  ?=
# Tests at a time: on two cores it takes half the time of one after another.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo servers test test-long lint bench bench-report bench-peers clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1#\2/p' Makefile | column -t -s '#' 2>/dev/null || grep '## ' Makefile

setup: $(STAMP) ## make .venv and install disstream with its development tools

demo: $(STAMP) ## the main job on real data, checked, and a worker that is killed; about a minute (ARGS="--help")
	@$(BIN)/disstream demo --png build/takeover.png $(ARGS)

servers: ## PostgreSQL, Redis and a C compiler for the tests, with apt, if they are missing (what needs them is skipped)
	@.ci/servers

# Each worker begins with its share of the files in their order, so what a file sets up is set up once; who has done his
# takes half of what another has left, so nobody waits for a long file at the end.
test: $(STAMP) $(SDK)/.installed ## the tests, without the long ones (ARGS="-k producer")
	@$(BIN)/python -m pytest -q -m "not long" -n $(WORKERS) --dist worksteal $(ARGS)

test-long: $(STAMP) ## the long tests
	@$(BIN)/python -m pytest -q -m long -n $(WORKERS) --dist loadfile -o faulthandler_timeout=1800 $(ARGS)

lint: $(STAMP) ## ruff (rules and format) and mypy --strict
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy --no-error-summary
	@echo "lint: clean"

bench: $(STAMP) ## a short form of all measurements, checked; four minutes, on an idle machine (ARGS="rates latency")
	@PATH="$(abspath $(BIN)):$$PATH" benchmarks/report.sh --short build/bench $(ARGS)

bench-report: $(STAMP) bench-peers ## all measurements, with pictures, into build/bench-report; half an hour
	@PATH="$(abspath $(BIN)):$$PATH" benchmarks/report.sh build/bench-report $(ARGS)

bench-peers: $(PEERS)/.installed $(SDK)/.installed ## install the other clients that are measured beside disstream

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

$(PEERS)/.installed: benchmarks/peers/requirements.txt | $(STAMP)
	@echo "installing the clients of other services into $(PEERS) (once)"
	@$(BIN)/python -m venv --clear $(PEERS) \
	  && $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $< \
	  && touch $@ \
	  || echo "the other clients could not be installed: they take no part" >&2
	@for program in nats-server redis-server; do \
	  command -v $$program >/dev/null || echo "$$program is not installed: what needs it takes no part (benchmarks/README.md)" >&2; \
	done

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
