# The two commands of the README, and what the maintainers run besides.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: serve test lint docs settings

.venv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"

serve: .venv
	$(BIN)/flask --app example_app serve

test: .venv
	$(BIN)/pytest

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict benchmarks

docs: .venv settings
	$(BIN)/sphinx-build --fail-on-warning --keep-going docs docs/_build

# The settings reference is generated from the table; a test fails when it is stale.
settings: .venv
	$(BIN)/python -c "from flask_prodserve.settings.render import as_reference as text; print(text(), end='')" > docs/reference/settings.md
