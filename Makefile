# The two commands of the README, and what the maintainers run besides.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: serve quick test nightly layers lint docs settings

.venv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"

serve: .venv
	$(BIN)/flask --app example_app serve

# These start a process for each test, attack for half a minute, or measure.
SLOW = integration/test_command integration/test_compress integration/test_forked_by_the_app integration/test_green_threads \
	integration/test_httpbin integration/test_log_readers integration/test_mounts integration/test_mounts_that_fail \
	integration/test_one_process integration/test_python_api integration/test_scripts integration/test_stopping \
	integration/test_ten_times_the_load integration/test_wrapped_apps security/test_slow_clients security/test_slowhttptest

# Under two minutes on two processors.
quick: .venv
	TEST_PROFILE=quick $(BIN)/pytest --quiet --numprocesses 4 tests/unit tests/security tests/integration $(SLOW:%=--ignore tests/%.py)

test: .venv
	$(BIN)/pytest

# Everything on all event loops and over TLS, with many random cases and long loads: about two hours.
nightly: .venv
	TEST_PROFILE=nightly $(BIN)/pytest --durations 50

# Print the layers of the package, which imports which, and import circles.
layers: .venv
	$(BIN)/python tests/project/layers.py

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
