# FaceLLM Studio. On a fresh machine `make run` or `make test` does all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pytest-xdist workers: the suite is bound by CPU, so one a core.
WORKERS ?= auto

.PHONY: run test lint format setup setup-run screenshots

run: $(VENV)/.run ## start the app on http://127.0.0.1:7860
	$(BIN)/python app.py

test: $(VENV)/.dev lint ## lint, types and every test that needs neither GPU nor network
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## let ruff put the code in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.dev ## everything for development

screenshots: $(VENV)/.dev ## draw the README's pictures again (needs Chromium)
	$(BIN)/python docs/screenshots.py

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed, found $$($(PYTHON) --version). Name another one: make run PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet -r requirements-dev.txt
	@touch $@ $(VENV)/.run
