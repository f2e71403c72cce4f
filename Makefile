# Every target works on a fresh clone: what it needs is installed into .venv first. Of its modules those are compiled
# that are imported; all of them take more than a minute. Where Python is told not to keep what it has compiled, every
# process of the tests would compile thousands of them anew: 17 s each.
export PYTHONDONTWRITEBYTECODE =
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/glyphs/protonet_5way1shot.yaml

.DEFAULT_GOAL := help
.PHONY: help install dev train test lint types unit slow gpu results arguments docs links format bench release clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

install: $(VENV)/.installed  ## install the package into .venv
dev: $(VENV)/.installed-dev  ## install it with all that the tests need

train: install  ## train and test a Prototypical Network on the embedded benchmark (CONFIG=... for another)
	$(BIN)/fewshot fit --config $(CONFIG)

test: lint  ## linters, type checker and the whole test suite
	$(MAKE) --jobs=2 types unit

lint: dev  ## check format, style and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

types: dev  ## check types, strictly
	$(BIN)/mypy

# tests wait for processes that they start: a worker more than cores keeps these busy
unit: dev  ## the test suite, on all cores
	$(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist worksteal -q

slow: dev  ## the tests that take minutes each, which `make test` leaves out
	$(BIN)/python -m pytest -m slow -q

gpu: dev  ## what a machine with a GPU can show in nine minutes: its tests, peers, MAML's full schedule
	@$(BIN)/python benchmarks/gpu.py --check
	@$(BIN)/python -m pip install --quiet --no-compile --editable '.[bench]'
	@$(BIN)/python benchmarks/gpu.py

results: dev  ## write docs/results/ and the figures of README and docs/challenges.md anew from the records in results/
	$(BIN)/python docs/generate/leaderboard.py

docs: install  ## build the documentation site into build/docs, notebooks executed; warnings are errors
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[docs,pretrained]'
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

links: docs  ## ask every address that the site links to whether it is there
	$(BIN)/python -m sphinx -b linkcheck -q docs build/links

arguments: dev  ## write down the arguments of every public class, for type checkers
	$(BIN)/python packaging/typed_arguments.py

format: dev  ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install  ## print the speed measurements
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/learners.py --benchmark glyphs
	$(BIN)/python benchmarks/peers.py

release: dev  ## build, check and try out what would be uploaded (URL=address of the repository)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[release]'
	$(BIN)/python packaging/release.py --url '$(URL)'

clean:  ## remove what was built, but for .venv and lightning_logs
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python >= 3.10 is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	@touch $@ $(VENV)/.installed
