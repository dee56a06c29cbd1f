# Everything runs in .venv, which is made on first use and again when the project's requirements change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Most tests of whole servers wait for something, so that several processes share a core, and the tests under coverage
# run at the same time.  A process that has no tests left takes over some of another's.
PARALLEL := -n auto --dist worksteal
WAITING := -n $(shell expr 3 \* $$(nproc)) --dist worksteal

# The folders whose tests cover every branch of the package of the same name. Coverage slows these tests down by a
# half and more, so the others run without.
COVERED := $(addprefix tests/,api broker capnp plyvel rpc store)

# Tests start hundreds of processes, each of which would compile our modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve schema test test-covered test-others fast lint types layers baseline docs languages bench hostile fuzz guided proof soak clean

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Queueber needs Python 3.11 or newer; set PYTHON=python3.11 or the like")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

serve: $(READY)
	$(BIN)/twistd --nodaemon --pidfile= queueber

# What runs is compiled from the schema files, so that no process parses them.
schema: $(READY)
	$(BIN)/python tests/capnp/compile_schema.py

test: $(READY)
	$(MAKE) --no-print-directory --jobs 2 --keep-going --output-sync=target test-covered test-others

test-covered: $(READY)
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term $(COVERED)

test-others: $(READY)
	$(BIN)/python -m pytest $(WAITING) $(addprefix --ignore=,$(COVERED))

fast: $(READY)
	$(BIN)/python -m pytest -n $(shell expr 2 \* $$(nproc)) --dist worksteal -m 'not slow' --hypothesis-profile quick

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# pyright is an extra of its own, because it brings a JavaScript engine of 60 MB.
types: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[types]'
	$(BIN)/mypy
	$(BIN)/python tests/types/check.py

layers: $(READY)
	$(BIN)/lint-imports

# Warnings are errors, so that every link and every docstring of the reference can be read.
docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/sphinx-build -W --keep-going -E -q docs docs/_build
	@echo "built docs/_build/index.html"

# Needs the compilers of C++, Rust, Go and Cap'n Proto; one that is missing skips its part.
languages: $(READY)
	QUEUEBER_LANGUAGES=1 $(BIN)/python -m pytest -rs tests/pages/test_other_languages.py

# The server that gains are measured against, in an environment of its own; needs the history of the repository.
BASELINE_COMMIT := e50bb73
BASELINE := .bench-baseline$(patsubst %,-%,$(filter-out e50bb73,$(BASELINE_COMMIT)))
$(BASELINE)/.ready:
	rm -rf $(BASELINE) && mkdir -p $(BASELINE)/source
	git archive $(BASELINE_COMMIT) | tar -x -C $(BASELINE)/source
	$(PYTHON) -m venv $(BASELINE)/.venv
	$(BASELINE)/.venv/bin/python -m pip install --quiet ./$(BASELINE)/source
	@touch $@

# The server of another commit, for comparisons: make baseline BASELINE_COMMIT=650533e
baseline: $(BASELINE)/.ready

# The task libraries that ours is measured next to, each in an environment of its own.
TASKS := .bench-tasks
$(TASKS)/.ready: tests/bench/task_queues/libraries.py $(READY)
	mkdir -p $(TASKS)
	$(BIN)/python tests/bench/task_queues/libraries.py | while read -r name packages; do \
		$(PYTHON) -m venv $(TASKS)/$$name && $(TASKS)/$$name/bin/python -m pip install --quiet $$packages || exit 1; \
	done
	@touch $@

bench: $(READY) $(BASELINE)/.ready
	$(BIN)/python tests/bench/run.py --out docs/benchmarks

hostile: $(READY)
	$(BIN)/python tests/hostile/report.py

fuzz: $(READY)
	$(BIN)/python tests/fuzz/run.py

# atheris is an extra of its own: it has no wheel for every machine that Queueber runs on.
guided: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	for target in framing codec conversation whole; do $(BIN)/python tests/fuzz/guided.py $$target -max_total_time=60 || exit 1; done

proof: $(READY)
	$(BIN)/python tests/proof/run.py $(PROOF)

HOURS ?= 8
soak: $(READY)
	$(BIN)/python tests/proof/run.py --soak $(HOURS)

clean:
	rm -rf $(VENV) dist build docs/_build
