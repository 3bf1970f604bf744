# `make run` on a fresh machine needs only Python 3.11 or newer with venv, a C/C++ compiler and make.
PYTHON ?= python3
BIN := .venv/bin
PYTEST = $(BIN)/python -m pytest --durations=10
ON_ALL_CORES = -n auto --dist loadfile
PROTOC = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I.

# Without bytecode, every process compiles its libraries again at its start, which takes longer than the rest of it.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run setup model gpu-check test test-unit test-integration test-system npm conformance lint words protos protos-check bench bench-gateway format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## set up, download the starter model if possible, and serve on http://localhost:1234
	@$(BIN)/python -m registry.starter_model || true
	@exec $(BIN)/atelier serve

setup: ## create .venv, with llama.cpp compiled for this machine (ATELIER_BACKEND=cpu|cuda|rocm|vulkan|metal overrides)
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer, or set its path: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m deploy.setup

model: setup ## download the starter model, unless it is installed
	@$(BIN)/python -m registry.starter_model

test: test-unit test-integration test-system ## run all tests (PYTEST_ARGS="-k name" selects some, "-n 0" runs them sequentially)

test-unit: setup ## run the unit tests: pure decisions and conversions
	$(PYTEST) $(ON_ALL_CORES) tests/unit $(PYTEST_ARGS)

test-integration: setup ## run the integration tests: real gRPC and HTTP, scripted engine
	@$(BIN)/python -m tests.npm || true
	$(PYTEST) $(ON_ALL_CORES) tests/integration $(PYTEST_ARGS)

test-system: setup ## run the system tests: real processes and the real model
	@$(BIN)/python -m tests.npm || true
	$(PYTEST) tests/system $(PYTEST_ARGS)

npm: setup ## download the tests' npm packages (MCP servers and conformance suite), and Node, to tests/npm
	@$(BIN)/python -m tests.npm

conformance: npm ## run MCP's conformance suite against our MCP server and client (CONFORMANCE_ARGS="--mode server --revision 2026-07-28")
	@GRPC_VERBOSITY=error $(BIN)/python -m tests.conformance $(CONFORMANCE_ARGS)

lint: setup protos-check ## check style, types, imports between layers, and that the stubs match the protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict -p deploy.setup -p tests.lint
	$(BIN)/lint-imports
	@$(BIN)/python -m tests.lint.plain_words

words: setup ## find the idioms that CONTRIBUTING.md lists, and what to write instead
	@$(BIN)/python -m tests.lint.plain_words

protos: setup ## generate the stubs from protos/*.proto
	$(PROTOC) --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. protos/*.proto

protos-check: setup
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && \
	$(PROTOC) --python_out=$$made --grpc_python_out=$$made --mypy_out=quiet:$$made --mypy_grpc_out=quiet:$$made protos/*.proto && \
	diff -r -x '*.proto' -x __init__.py -x __pycache__ $$made/protos protos || \
	{ echo "the stubs in protos/ do not match the .proto files: run \`make protos\`" >&2; exit 1; }

bench: setup ## benchmark this server and its peers side by side (BENCH_ARGS="--scenarios streams-1,streams-8"; LLAMA_SERVER=PATH adds one)
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

bench-gateway: setup ## benchmark the gateway alone, on a scripted engine (BENCH_ARGS="--streams 1,512")
	$(BIN)/python -m tests.bench.gateway $(BENCH_ARGS)

gpu-check: setup ## check pinning, offload, estimates, batching and reproducibility on an NVIDIA GPU (MODEL=FILE, LLAMA_SERVER=PATH)
	@$(BIN)/python -m tests.gpu_check $(MODEL)

format: setup ## fix and format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## resolve pyproject.toml into requirements.lock (LOCK_ARGS=--upgrade takes the newest versions)
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && \
	$(PYTHON) -m venv "$$tools" && "$$tools/bin/pip" install -qq uv && \
	"$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev \
	    --custom-compile-command "make lock" $(LOCK_ARGS) pyproject.toml -o requirements.lock

clean: ## remove .venv and the tools' caches; the compiled llama.cpp stays in the user's cache
	rm -rf .venv .import_linter_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info tests/npm/node_modules tests/npm/.node
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
