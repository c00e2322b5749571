# `make` tells what there is. Nothing but make and Python 3.11 to 3.13 is needed.

SHELL := /bin/sh
PYTHON ?=
BIN := .venv/bin
STAMPS := .venv/stamps
REPLACED := .venv-bench
SEEDS ?= 20
FIRST ?= 1
ONLY ?=
COUNT ?= 10000
WORKERS ?= 3
REPEAT ?= 3
STATES := tests/browser/test_gallery.py
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PARTS := $(PIP) install --no-deps --require-hashes --only-binary :all:
NEEDS := Python 3.11, 3.12 or 3.13 is needed; none was found. Install one, or name it: make PYTHON=/path/to/python3.11
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
COMPILE := $(BIN)/uv pip compile --quiet --no-config --upgrade --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements"

.DEFAULT_GOAL := help
.PHONY: help run install test test-system drill soak bench check format requirements pictures gallery browser

help: ## tell what there is
	@echo "make …"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

run: $(STAMPS)/product ## start the chat on this machine, with what it needs
	@parts=$$($(BIN)/python -m llmchat parts) || exit $$?; \
	if [ -n "$$parts" ]; then \
		echo "Installing the embedded parts …"; \
		$(PARTS) -r "$$parts" || echo "There is no build of the embedded parts for this machine." \
			"Set REDIS_URL (\`docker compose up -d redis\` gives a Redis) and OPENAI_API_KEY or OPENAI_BASE_URL." >&2; \
	fi
	@exec $(BIN)/python -m llmchat

install: $(STAMPS)/dev ## install all that the product, its embedded parts and the tests need

test: check browser ## run the checks and all tests but those of `make test-system`
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not long'

test-system: browser ## run the tests that need nginx, docker-compose, redis-server, nodejs and npm (Debian packages), and the long ones
	@PATH="$$PATH:/usr/sbin"; lacking=; \
	for tool in nginx docker-compose redis-server npm; do command -v "$$tool" > /dev/null || lacking="$$lacking $$tool"; done; \
	command -v node > /dev/null || lacking="$$lacking nodejs"; \
	if [ -z "$$lacking" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		tests/system/install.sh $$lacking; \
	else echo "The system tests need$$lacking: install the packages of these names." >&2; exit 1; fi
	$(BIN)/python -m pytest tests/system
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long

drill: $(STAMPS)/dev ## drill every promise with faults: `make drill SEEDS=20 FIRST=1 ONLY=3`
	$(BIN)/python -m tests.instances.drill --seeds $(SEEDS) --first $(FIRST) $(if $(ONLY),--only $(ONLY))

soak: $(STAMPS)/dev ## have COUNT=10000 connections come and go, and see that nothing grows
	SOAK=$(COUNT) $(BIN)/python -m pytest -s -q --timeout 3600 tests/instances/test_soak.py

bench: $(REPLACED)/installed browser ## measure beside the stack that this one replaces: `make bench REPEAT=3 ONLY=answers,wire`
	$(BIN)/python -m bench --repeat $(REPEAT) $(if $(ONLY),--only $(ONLY))

check: $(STAMPS)/dev ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict llmchat
	$(BIN)/lint-imports

format: $(STAMPS)/dev ## put the code into its one format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

requirements: $(STAMPS)/dev ## pin the newest of everything, with hashes
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) --no-deps requirements-local.in -o requirements-local.txt
	$(COMPILE) requirements-dev.in -o requirements-dev.txt
	$(COMPILE) bench/replaced/requirements.in -o bench/replaced/requirements.txt

pictures: browser ## make the README's pictures anew
	PICTURES=docs/pictures $(BIN)/python -m pytest -q tests/browser/test_screenshot.py

gallery: browser ## make a picture of every state of the page, in gallery/
	GALLERY=gallery $(BIN)/python -m pytest -q $(STATES)

browser: $(STAMPS)/dev
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; then :; \
	elif $(BIN)/playwright install chromium; then :; \
	else echo "The tests need Chromium: install the package chromium, or google-chrome." >&2; exit 1; \
	fi > /dev/null

$(BIN)/python:
	@for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
		if "$$python" -c '$(FITS)' 2> /dev/null; then \
			if ! "$$python" -c 'import ensurepip, venv' 2> /dev/null; then \
				echo "$$python has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv)." >&2; exit 1; \
			fi; \
			echo "Making .venv with $$("$$python" --version) …"; \
			exec "$$python" -m venv --clear .venv; \
		fi; \
	done; echo "$(NEEDS)" >&2; exit 1

$(STAMPS)/product: requirements.txt | $(BIN)/python
	@echo "Installing the product …"
	@$(PIP) install --require-hashes -r requirements.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: $(STAMPS)/product requirements-local.txt requirements-dev.txt
	@echo "Installing the embedded parts and what the tests need …"
	@$(PARTS) -r requirements-local.txt
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

$(REPLACED)/installed: bench/replaced/requirements.txt | $(STAMPS)/dev
	@echo "Installing the stack that this one replaces …"
	@$(BIN)/python -m venv --clear $(REPLACED)
	@$(REPLACED)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --only-binary :all: -r $<
	@touch $@
