# Everything that is done with this checkout; `make help` lists it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PARTS := common strategies sites client server simulation cli
EXAMPLES ?= ../shared/design/examples
OUT ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test check equality links engines constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## install everything into .venv, versions pinned by constraints.txt

# Order matters: torch before what asks for any torch, and pyradiomics, which compiles against numpy and does not say so.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v != (3, 11) and "cohortium needs Python 3.11, this is %d.%d; set PYTHON=..." % v)'
	$(PYTHON) -m venv .venv
	$(PIP) numpy setuptools wheel
	$(PIP) torch==2.13.0
	$(PIP) --no-build-isolation pyradiomics==3.0.1
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

demo: setup ## a synthetic gastric-cancer study of four hospitals, from CT images to the report
	$(BIN)/cohortium simulate gastric --out $(OUT) --resume
	@echo "Open $(OUT)/report.html in a browser."

test: setup ## all tests
	$(BIN)/python -m pytest -q

check: setup links ## style, dependency order, types, then all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q

equality: setup ## every federated figure beside the pooled one; writes docs/equality.md and docs/equality.json
	$(BIN)/python benchmarks/equality/run.py

links: ## let a type checker see cohortium.* (generated; git ignores it)
	@mkdir -p .links/cohortium
	@for part in $(PARTS); do ln -sfn ../../$$part .links/cohortium/$$part; done

engines: setup ## the three example studies on a deployed federation, with times; EXAMPLES=FOLDER holds them
	@for study in uci_heart tcga_brca sarcoma; do \
		began=$$(date +%s); \
		$(BIN)/cohortium simulate $(EXAMPLES)/$$study --engine deployment --out runs/deployment/$$study || exit 1; \
		echo "$$study: $$(( $$(date +%s) - began )) s on deployment"; \
	done

constraints: ## write constraints.txt anew from .venv, once its tests pass with other versions
	@sed -n '/^#/p' constraints.txt > constraints.new
	@$(BIN)/python -m pip list --format freeze --exclude pip --exclude cohortium | sed 's/+cpu$$//' | sort -f >> constraints.new
	@mv constraints.new constraints.txt

clean: ## remove what tools leave behind; .venv and runs stay
	rm -rf build dist *.egg-info .links .coverage .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(PARTS) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
