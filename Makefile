# `make run` on a fresh machine: Python 3.11 or newer with venv, a C/C++ compiler and make are all it needs.
PYTHON ?= python3
BIN := .venv/bin
PYTEST = $(BIN)/python -m pytest --durations=10
ON_ALL_CORES = -n auto --dist loadfile
PROTOC = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I.

# Without bytecode every process that starts compiles its libraries anew, which takes longer than the start itself.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run setup model test test-unit test-integration test-system npm conformance lint words protos protos-check bench bench-gateway format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## set up, fetch the starter model if it can be had, and serve on http://localhost:1234
	@$(BIN)/python -m registry.starter_model || true
	@exec $(BIN)/atelier serve

setup: ## make .venv, with llama.cpp compiled for this machine (ATELIER_BACKEND=cpu|cuda|rocm|vulkan|metal overrides)
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) found: install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m deploy.setup

model: setup ## fetch the starter model, unless it is there
	@$(BIN)/python -m registry.starter_model

test: test-unit test-integration test-system ## run every test (PYTEST_ARGS="-k name" narrows, "-n 0" runs one after the other)

test-unit: setup ## pure decisions and conversions
	$(PYTEST) $(ON_ALL_CORES) tests/unit $(PYTEST_ARGS)

test-integration: setup ## real gRPC and HTTP, scripted engine
	@$(BIN)/python -m tests.npm || true
	$(PYTEST) $(ON_ALL_CORES) tests/integration $(PYTEST_ARGS)

test-system: setup ## real processes and the real model
	@$(BIN)/python -m tests.npm || true
	$(PYTEST) tests/system $(PYTEST_ARGS)

npm: setup ## fetch what tests take from npm (MCP servers, MCP's conformance suite), and a Node to run it, into tests/npm
	@$(BIN)/python -m tests.npm

conformance: npm ## MCP's conformance suite against our MCP server and host (CONFORMANCE_ARGS="--mode server --revision 2026-07-28")
	@GRPC_VERBOSITY=error $(BIN)/python -m tests.conformance $(CONFORMANCE_ARGS)

lint: setup protos-check ## style, types, imports between layers, and stubs that match the protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict -p deploy.setup -p tests.lint
	$(BIN)/lint-imports

words: setup ## idioms that CONTRIBUTING.md lists, and what to write instead
	@$(BIN)/python -m tests.lint.plain_words

protos: setup ## generate the stubs from protos/*.proto
	$(PROTOC) --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. protos/*.proto

protos-check: setup
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && \
	$(PROTOC) --python_out=$$made --grpc_python_out=$$made --mypy_out=quiet:$$made --mypy_grpc_out=quiet:$$made protos/*.proto && \
	diff -r -x '*.proto' -x __init__.py -x __pycache__ $$made/protos protos || \
	{ echo "the stubs in protos/ are not what \`make protos\` generates" >&2; exit 1; }

bench: setup ## this server and its peers side by side (BENCH_ARGS="--scenarios streams-1,streams-8"; LLAMA_SERVER=PATH adds one)
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

bench-gateway: setup ## the gateway alone, over a scripted engine (BENCH_ARGS="--streams 1,512")
	$(BIN)/python -m tests.bench.gateway $(BENCH_ARGS)

format: setup ## write the code as ruff formats it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## resolve pyproject.toml into requirements.lock (LOCK_ARGS=--upgrade takes the newest)
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && \
	$(PYTHON) -m venv "$$tools" && "$$tools/bin/pip" install -qq uv && \
	"$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev \
	    --custom-compile-command "make lock" $(LOCK_ARGS) pyproject.toml -o requirements.lock

clean: ## remove .venv and what the tools leave behind; the compiled llama.cpp stays in the user's cache
	rm -rf .venv .import_linter_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info tests/npm/node_modules tests/npm/.node
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
