"""llama.cpp's samplers with the real model: each has its effect, and none has any at temperature 0."""

from typing import Any

import pytest

from tests.support.worker.worker_client import WorkerClient

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

STORY = "Once upon a time there was a"
CIRCLE = "red green blue red green blue red green blue red green blue red green"
OPEN = {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
NEUTRAL = {"repeat_penalty": 1.0, "max_tokens": 16, "ignore_eos": True, "seed": 11}


async def text(client: WorkerClient, prompt: str, **sampling: Any) -> str:
    await client.submit(1, text=prompt, sampling={**NEUTRAL, **sampling})
    texts, ends = await client.finish(1)
    assert ends[0].HasField("finished"), ends[0].failed.error.message
    return texts[0]


@pytest.mark.parametrize(
    "sampling",
    [
        {"xtc_probability": 1.0, "xtc_threshold": 0.01},
        {"typical_p": 0.1},
        {"top_n_sigma": 0.5},
        {"mirostat": 1},
        {"mirostat": 2},
        {"dynatemp_range": 2.0},
    ],
)
async def test_temperature_0_is_greedy_whatever_else_is_set(client: WorkerClient, sampling: dict[str, Any]) -> None:
    assert await text(client, STORY, temperature=0, **sampling) == await text(client, STORY, temperature=0)


@pytest.mark.parametrize(
    "narrow",
    [
        {"top_n_sigma": 0.001},
        {"mirostat": 2, "mirostat_tau": 0.0},
        {"temperature": 1.0, "dynatemp_range": 1.0, "dynatemp_exponent": 10.0},
        {"top_k": 1, "typical_p": 0.5},
    ],
)
async def test_a_filter_at_its_narrowest_is_greedy(client: WorkerClient, narrow: dict[str, Any]) -> None:
    greedy = await text(client, STORY, temperature=0, max_tokens=6)
    assert await text(client, STORY, **{**OPEN, **narrow}, max_tokens=6) == greedy
    assert await text(client, STORY, **OPEN, max_tokens=6) != greedy


async def test_xtc_excludes_the_likeliest_tokens(client: WorkerClient) -> None:
    plain = {"temperature": 0.05, "top_k": 3, "min_p": 0.0, "top_p": 1.0, "max_tokens": 1}
    likeliest = await text(client, STORY, **plain)
    assert await text(client, STORY, **plain, xtc_probability=1.0, xtc_threshold=0.01) != likeliest
    assert await text(client, STORY, **plain, xtc_probability=1.0, xtc_threshold=0.6) == likeliest


@pytest.mark.parametrize("version", [1, 2])
async def test_mirostat_is_reproducible_and_depends_on_its_target(client: WorkerClient, version: int) -> None:
    wild = {"temperature": 1.0, "mirostat": version, "mirostat_tau": 9.0}
    first = await text(client, STORY, **wild)
    assert first == await text(client, STORY, **wild)
    assert first != await text(client, STORY, **{**wild, "seed": 12})
    assert first != await text(client, STORY, **{**wild, "mirostat_tau": 1.0})


async def test_dry_ends_the_repetition_of_a_prompt(client: WorkerClient) -> None:
    free = await text(client, CIRCLE, temperature=0)
    assert free.startswith(" blue")
    kept = await text(client, CIRCLE, temperature=0, dry_multiplier=10.0)
    assert not kept.startswith(" blue")
    assert kept == await text(client, CIRCLE, temperature=0, dry_multiplier=10.0)


async def test_dry_allows_repetitions_that_are_short_or_long_ago(client: WorkerClient) -> None:
    free = await text(client, CIRCLE, temperature=0, max_tokens=4)
    for harmless in ({"dry_allowed_length": 60}, {"dry_penalty_last_n": 2}, {"dry_sequence_breakers": [" green"]}):
        kept = await text(client, CIRCLE, temperature=0, max_tokens=1, dry_multiplier=10.0, **harmless)
        assert free.startswith(kept), harmless


async def test_dry_considers_generated_text(client: WorkerClient) -> None:
    settings = {"temperature": 0, "max_tokens": 60}
    free = await text(client, "la", **settings)
    assert free != await text(client, "la", **settings, dry_multiplier=10.0)
