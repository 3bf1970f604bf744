"""How much of a prompt was reused is the same in replies, metrics and lists, however a cache can be cut."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command.server_process import KEY, Server, put_starter, serving
from tests.support.models.network_shapes import TINY_HYBRID, TINY_RECURRENT, TINY_SLIDING
from tests.support.models.random_model import write_random_model

pytestmark = pytest.mark.system

SHAPES = {"tests/sliding": TINY_SLIDING, "tests/recurrent": TINY_RECURRENT, "tests/hybrid": TINY_HYBRID}
LINES = 12
TOKENS = 8
REPLY_SECONDS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server") / "home"
    put_starter(home, starter_model)
    for key, shape in SHAPES.items():
        folder = home / "models" / key
        folder.mkdir(parents=True)
        write_random_model(folder / f"{folder.name}.gguf", shape, starter_model)
    with serving(home) as running:
        yield running


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=REPLY_SECONDS) as client:
        yield client


@pytest.mark.parametrize("model", [KEY, *SHAPES])
def test_every_dialect_list_and_metric_shows_what_was_reused(server: Server, http: httpx.Client, model: str) -> None:
    assert server.atelier("load", model, "-c", "1024", "--parallel", "2").returncode == 0
    lines = " ".join(f"The {model} number {number} is a word." for number in range(LINES))
    chat = {"model": model, "messages": [{"role": "user", "content": lines}]}
    counted = counter(http, model)

    assert openai_chat(http, chat) == 0
    again = [openai_chat(http, chat), anthropic(http, chat), responses(http, model, lines), lm_studio(http, chat)]
    running, ended, of = streamed(http, chat)
    assert 0.7 * of < ended < of
    assert running == ended
    assert [*again, ended] == [ended] * 5
    assert counter(http, model) - counted == sum(again) + ended


def counter(http: httpx.Client, model: str) -> float:
    families = text_string_to_metric_families(http.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "atelier_cached_prompt_tokens_total" and sample.labels["model"] == model
    )


def posted(http: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    return http.post(path, json=body).raise_for_status().json()


def openai_chat(http: httpx.Client, chat: dict[str, Any]) -> int:
    usage = posted(http, "/v1/chat/completions", {**chat, "max_tokens": TOKENS})["usage"]
    return int(usage["prompt_tokens_details"]["cached_tokens"])


def anthropic(http: httpx.Client, chat: dict[str, Any]) -> int:
    return int(posted(http, "/v1/messages", {**chat, "max_tokens": TOKENS})["usage"]["cache_read_input_tokens"])


def responses(http: httpx.Client, model: str, text: str) -> int:
    reply = posted(http, "/v1/responses", {"model": model, "input": text, "max_output_tokens": 16})
    return int(reply["usage"]["input_tokens_details"]["cached_tokens"])


def lm_studio(http: httpx.Client, chat: dict[str, Any]) -> int:
    return int(posted(http, "/api/v0/chat/completions", {**chat, "max_tokens": TOKENS})["stats"]["cached_tokens_count"])


def streamed(http: httpx.Client, chat: dict[str, Any]) -> tuple[int, int, int]:
    """In the list of sequences while it runs; at the end of its stream; and how many tokens the prompt has."""
    body = {**chat, "stream": True, "max_tokens": 400, "ignore_eos": True, "stream_options": {"include_usage": True}}
    with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        (sequence,) = http.get(f"/api/v1/instances/{chat['model']}/sequences").json()["sequences"]
        (end,) = [line for line in lines if '"usage":{' in line]
    usage = json.loads(end.removeprefix("data: "))["usage"]
    return sequence["cached_tokens"], usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]
