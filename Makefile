# What a person or CI runs. Python >= 3.11 and make are enough: every target sets up what it needs, once.
#
#   make demo                 the whole loop, once around, on the sample marketplace
#   make demo DATA=my-data    the same on a data folder of yours
#   make test                 every test

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults faults-mutants faults-aggregator soak fuzz check docs constraints clean

# The first Python of these that is new enough; or say which: make setup PYTHON=/opt/python3.13/bin/python3
CANDIDATES := python3 python3.13 python3.12 python3.11 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do "$$p" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$p" && break; done)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# Each of the two files says what was done, so that a second time starts at once.
INSTALLED := .venv/installed
FETCHED := .venv/fetched

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 24

setup: $(INSTALLED) $(FETCHED)  ## .venv, namefree and its tools in it, and the broker's jars

demo: setup  ## the whole loop, once around; DATA=dir: on that data folder
	$(BIN)/namefree demo $(if $(DATA),--data "$(DATA)")

# Three, as they often wait for a broker, and in the order of the files: the long ones are in the middle, so that
# none of the three has one left at the end.
test: setup  ## every test, in three processes
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

faults: setup  ## kills, freezes and starves the workers; SEED=7, N=1000000 utterances, FAULTS=200
	$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(N),--utterances $(N)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(PROTOCOL),--protocol $(PROTOCOL))

faults-mutants: setup  ## routers without one of their guards: such a run has to find each
	$(BIN)/python -m tests.faults --mutants $(if $(SEED),--seed $(SEED))

faults-aggregator: setup  ## an aggregator killed at its failpoints, KILLS=100 times: the statistics stay the same
	$(BIN)/python -m tests.faults --kills $(or $(KILLS),100) $(if $(SEED),--seed $(SEED))

soak: setup  ## a router and an aggregator at full speed: does their memory stay? MINUTES=30
	$(BIN)/python -m benchmarks.soak $(if $(MINUTES),--minutes $(MINUTES))

fuzz: $(INSTALLED)  ## rubbish for every parser of bytes from outside; CASES=1000000, SEED=7
	$(BIN)/python -m tests.fuzz $(if $(CASES),--cases $(CASES)) $(if $(SEED),--seed $(SEED))

check: $(INSTALLED)  ## lint, format, types, and the direction of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)  ## write docs/reference/ anew from the code
	$(BIN)/python -m docs.generate

constraints: $(INSTALLED)  ## upgrade all and write constraints.txt anew
	$(PIP) install --upgrade --upgrade-strategy eager -e '.[dev,pretrained]'
	sed -n '/^#/p' constraints.txt > .venv/constraints.txt
	$(PIP) freeze --all --exclude-editable | grep -vE '^(pip=|nvidia-|cuda-)' >> .venv/constraints.txt
	mv .venv/constraints.txt constraints.txt

clean:  ## remove .venv and what the tools keep; the broker's jars stay in the user's cache
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installs only when the text of the two files has changed: a fresh checkout's times tell nothing.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "namefree needs Python 3.11 or newer, and none of '$(CANDIDATES)' is: install one, or name it with PYTHON=" >&2; exit 1; }
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' || { echo "namefree needs Python 3.11 or newer, and $(PYTHON) is not: name another with PYTHON=" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv || { echo "the virtual environment could not be made: where Python comes in parts, install its venv part (Debian: python3-venv)" >&2; exit 1; }
	@cat pyproject.toml constraints.txt | cmp -s - $@ || $(PIP) install -e '.[dev,pretrained]' -c constraints.txt
	@cat pyproject.toml constraints.txt > $@

# A cluster that is there already needs no jars.
$(FETCHED): $(INSTALLED) topics/kafka_jars.lock
	@test -n "$$NAMEFREE_BOOTSTRAP" || { $(BIN)/python -c 'from topics.kafka_jars import class_path; class_path(print)' && touch $@; }
