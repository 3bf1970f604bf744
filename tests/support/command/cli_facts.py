"""Models, instances and answers as the REST API gives them."""

from typing import Any

KEY = "huggingfacetb/smollm2-135m-instruct"


def model(key: str = KEY, **changes: Any) -> dict[str, Any]:
    facts = {
        "type": "llm",
        "publisher": key.partition("/")[0],
        "key": key,
        "display_name": "SmolLM2 135M",
        "architecture": "llama",
        "quantization": {"name": "Q4_1", "bits_per_weight": 5.1},
        "size_bytes": 98_765_432,
        "params_string": "135M",
        "loaded_instances": [],
        "max_context_length": 8192,
        "format": "gguf",
        "layers": 30,
    }
    return {**facts, **changes}


def loaded(key: str = KEY) -> dict[str, Any]:
    return model(key, loaded_instances=[{"id": key, "config": {"context_length": 4096}}])


def instance(identifier: str = KEY, **changes: Any) -> dict[str, Any]:
    facts = {
        "id": identifier,
        "model": KEY,
        "state": "ready",
        "pin": "cpu cores 0-1",
        "pid": 4711,
        "host": "lab1",
        "context_length": 4096,
        "parallel": 8,
        "gpu_layers": 0,
        "active": 1,
        "queued": 0,
        "load_progress": 1.0,
        "load_time_seconds": 0.8,
        "restarts": 0,
        "on_demand": False,
        "started_at": 1_700_000_000.0,
        "error": None,
        "config": {"reproducible": False},
        "cache_ram_bytes": 3 * 2**20,
        "cache_ram_limit_bytes": 2**30,
    }
    return {**facts, **changes}


def piece(text: str) -> dict[str, Any]:
    return {"model": KEY, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


STATS = {
    "tokens_per_second": 41.25,
    "time_to_first_token": 0.12,
    "generation_time": 0.3,
    "stop_reason": "eosFound",
    "prompt_tokens_count": 9,
    "predicted_tokens_count": 12,
    "total_tokens_count": 21,
    "total_time_sec": 0.42,
    "num_gpu_layers": 0,
    "cached_tokens_count": 4,
}


def answer(*texts: str, **stats: Any) -> list[Any]:
    """The events of one streamed answer."""
    last = {"model": KEY, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "stats": {**STATS, **stats}}
    return [*(piece(text) for text in texts), last, "[DONE]"]


STATISTICS = [
    "stopReason",
    "tokensPerSecond",
    "numGpuLayers",
    "timeToFirstTokenSec",
    "totalTimeSec",
    "promptTokensCount",
    "predictedTokensCount",
    "totalTokensCount",
]
