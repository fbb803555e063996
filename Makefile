# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo-library
FILMS ?= ../shared/data/cxr
CORPORA ?= ../shared/data/ner
STAMP := .venv/.installed
# The browser interface is built where Node is; without it the program answers on the command line and to its API.
PAGES := medsearch_desktop/serve/static/index.html
NODE := $(shell node -p 'const [a, b] = process.versions.node.split("."); +(a > 20 || (a == 20 && b >= 19))' 2>/dev/null)
BUILD := $(if $(filter 1,$(NODE)),$(PAGES))
SOURCES := $(shell find ui -path ui/node_modules -prune -o -path ui/pictures -prune -o -type f -print)
# The window's engine is large: it is fetched where there is a screen to show it on.
SCREEN := $(or $(DISPLAY),$(WAYLAND_DISPLAY),$(filter Darwin,$(shell uname)))
DESKTOP_STAMP := .venv/.desktop-installed
FUZZ_STAMP := .venv/.fuzz-installed

.DEFAULT_GOAL := help
.PHONY: help install desktop demo pictures test faults check lint ui ui-check types bench fuzz export train train-ner bench-retrieval bench-language clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml models/manifest.json
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed; set PYTHON to one")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

install: $(STAMP) $(BUILD) ## make .venv with the program and its development tools, and build the browser interface
	@$(if $(BUILD),true,echo "no Node 20.19 or newer here: the browser interface is not built")

$(PAGES): $(SOURCES)
	cd ui && npm ci --no-audit --no-fund && npm run build

$(DESKTOP_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[dev,desktop]'
	touch $@

$(FUZZ_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[dev,fuzz]'
	touch $@

desktop: $(DESKTOP_STAMP) ## install the window's engine too

demo: install $(if $(SCREEN),$(DESKTOP_STAMP)) ## build the demo library, ask it two questions, and open it in a window
	$(BIN)/medsearch demo --library $(DEMO)

pictures: install ## take README's pictures of the pages, in the demo library (needs Chromium)
	$(BIN)/medsearch demo --no-window --library $(DEMO)
	PYTHONPATH=. $(BIN)/python ui/pictures/take.py $(DEMO)

test: install ## run the whole test suite, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile

fuzz: $(FUZZ_STAMP) ## throw damaged and hostile bytes at the readers: FUZZ_SECONDS, FUZZ_EXAMPLES, MUTATED_FILES=number
	MUTATED_FILES=$(or $(MUTATED_FILES),1000) $(BIN)/python -m pytest tests/image/test_mutated.py
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),20000) $(BIN)/python -m pytest --timeout 0 tests/fuzz/fuzz_*.py
	$(if $(filter Linux,$(shell uname)),PYTHONPATH=tests:. $(BIN)/python -m fuzz --seconds $(or $(FUZZ_SECONDS),60),@echo "counting branches needs Linux: left out")

faults: install ## kill it 200 times, stop it, fill and break its disk, pull its drive, set its clock (half an hour; some of it needs root)
	MEDSEARCH_FAULTS=200 $(BIN)/python -m pytest tests/faults

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## run what continuous integration runs

ui: $(PAGES) ## build the browser interface into the package (needs Node 20.19 or newer)

ui-check: $(STAMP) ui ## types, lint and tests of the browser interface; fails when `make types` is due
	$(BIN)/python -m medsearch_desktop.serve.api.openapi | cmp - ui/openapi.json || (echo "ui/openapi.json is not current: make types"; exit 1)
	cd ui && (npm run types:check || (echo "src/api/schema.ts is not current: make types"; exit 1)) && npm run lint && npm test

types: $(STAMP) ## write the description of the interface, and of it the types of the browser interface
	$(BIN)/python -m medsearch_desktop.serve.api.openapi > ui/openapi.json
	cd ui && (test -d node_modules || npm ci --no-audit --no-fund) && npm run types

bench: export ## measure: every figure of README's table
	$(BIN)/python -m tests.benchmarks

export: install ## install what training, exporting and comparing models and engines needs (torch, OpenVINO)
	$(BIN)/python -m pip install --quiet --editable '.[dev,train,engine-openvino]'

train: export ## train the embedding network (hours; goes on where it was): FILMS=folder of the training films
	PYTHONPATH=models $(BIN)/python -m train $(FILMS) --out train-run

train-ner: install ## train the recogniser of diseases and drugs (minutes): CORPORA=folder of the corpora
	PYTHONPATH=models $(BIN)/python -m ner train $(CORPORA) --out ner-run
	PYTHONPATH=models $(BIN)/python -m ner test $(CORPORA) --model ner-run/medsearch-ner1.npz

bench-retrieval: export ## measure how well the model retrieves: FILMS=folder of the training films
	$(BIN)/python models/evaluate.py $(FILMS) --output bench-results/retrieval.json

bench-language: install ## measure findings, codes, the recogniser and speed: CORPORA=folder of BC5CDR and NCBI-disease
	$(BIN)/python -m tests.benchmarks language
	PYTHONPATH=models:. $(BIN)/python -m ner test $(CORPORA)

clean: ## remove what the other targets made, except downloads
	rm -rf .venv ui/node_modules medsearch_desktop/serve/static demo-library demo-library-source bench-results fuzz-corpus fuzz-findings build dist .pytest_cache .mypy_cache .ruff_cache
