"""xllamacpp's server on a port of this machine. Runs in .venv-bench; ends when standard input does."""

import argparse
import sys

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    for name in ("port", "context", "slots", "threads"):
        parser.add_argument(name, type=int)
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--cache-ram", type=int, help="MiB; by default as the server has it")
    server = xllamacpp.Server(parameters(parser.parse_args()))
    print("listening at", server.listening_address, flush=True)
    sys.stdin.read()


def parameters(options: argparse.Namespace) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.n_ctx = options.context * options.slots
    params.n_parallel = options.slots
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.warmup = True
    if options.cache_ram is not None:
        params.cache_ram_mib = options.cache_ram
    if options.embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return params


if __name__ == "__main__":
    main()
