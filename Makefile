PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: help setup setup-dev test test-slow lint check format quickstart docs clean

help:
	@echo "make setup       install what the recipes need into $(VENV)"
	@echo "make quickstart  pre-train, fine-tune, compare: seven to eleven minutes of two cores"
	@echo "make test        run the tests"
	@echo "make test-slow   run the tests that take minutes: figures, quickstart, benchmark, every compiled step"
	@echo "make lint        ruff and mypy, as continuous integration runs them"
	@echo "make check       the same, and pyright, which fetches Node.js where there is none"
	@echo "make docs        build the documentation into site/"

$(VENV)/.setup: pyproject.toml
	@start=$$(date +%s); \
	$(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q -e ".[robotics,plots]" && touch $@ && \
	echo "setup took $$(( $$(date +%s) - start )) s"

$(VENV)/.setup-dev: $(VENV)/.setup
	@$(BIN)/pip install -q -e ".[dev]" && touch $@

setup: $(VENV)/.setup
setup-dev: $(VENV)/.setup-dev

quickstart: setup
	$(BIN)/python recipes/quickstart.py

test: setup-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: setup-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy components recipes

check: lint
	$(BIN)/pyright components recipes

$(VENV)/.setup-docs: $(VENV)/.setup
	@$(BIN)/pip install -q -e ".[docs]" && touch $@

docs: $(VENV)/.setup-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "look at it: $(BIN)/python -m http.server -d site, then http://localhost:8000"

format: setup-dev
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache

test-slow: setup-dev
	$(BIN)/python -m pytest -n 2 -m slow
