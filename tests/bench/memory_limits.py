"""How many servers have room with a model at the same time."""

from collections.abc import Mapping, Sequence

from atelier.settings import Load
from registry.models.gguf_header import read_header
from registry.models.memory_estimate import estimate_memory
from registry.models.model_shape import shape_of
from tests.bench.servers.contender import Settings
from tests.bench.servers.kinds import LlamaCppPython

MIB = 2**20
PROCESSES = 500 * MIB  # of a server, without its model
DEFAULT_PROMPT_CACHE = 8192  # MiB, that llama-server keeps of prompts beside its slots
PROMPT_CACHES = 0.4  # of the memory that is left


def server_bytes(settings: Settings, server: str) -> int:
    """What a server needs with the model loaded, in bytes. Weights count again where they are repacked."""
    header = read_header(settings.model)
    sequences = 1 if server == LlamaCppPython.name else settings.slots
    load = Load(context_length=settings.context, parallel=sequences)
    estimate = estimate_memory(shape_of([header], header.metadata["general.architecture"]), load)
    return estimate.total + estimate.weights // 2 + PROCESSES


def fitting(servers: Sequence[str], needs: Mapping[str, int], available: int) -> list[str]:
    """Those that have room together; earlier ones first."""
    chosen: list[str] = []
    for server in servers:
        if sum(needs[each] for each in [*chosen, server]) <= available:
            chosen.append(server)
    return chosen


def prompt_cache_limit(left: int, peers: int) -> int | None:
    """MiB for each peer's prompts where its default may not fit into the bytes that are left; else None."""
    limit = int(left * PROMPT_CACHES / max(1, peers) / MIB)
    return None if limit >= DEFAULT_PROMPT_CACHE else max(0, limit)
