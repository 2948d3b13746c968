PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: help setup setup-dev test check format quickstart clean

help:
	@echo "make setup       install what the recipes need into $(VENV)"
	@echo "make quickstart  pre-train, fine-tune, compare: about ten minutes on two CPU cores"
	@echo "make test        run the tests"
	@echo "make check       lint and type checks"

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
	$(BIN)/python -m pytest -n 2

check: setup-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy components && $(BIN)/pyright components

format: setup-dev
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
