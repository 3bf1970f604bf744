"""Ollama's official client with the real model."""

from collections.abc import Iterator

import ollama
import orjson
import pytest

from tests.support.command.server_process import KEY, MODEL, Server

pytestmark = pytest.mark.system

OPTIONS = {"temperature": 0, "seed": 1, "num_predict": 16}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[ollama.Client]:
    with ollama.Client(host=server.url, timeout=120) as opened:
        yield opened


def test_a_streamed_chat_equals_one_that_is_not_streamed(client: ollama.Client) -> None:
    messages = [{"role": "user", "content": "Name a colour."}]
    whole = client.chat(f"{MODEL}:latest", messages, options=OPTIONS)
    parts = list(client.chat(f"{MODEL}:Q4_1", messages, options=OPTIONS, stream=True))
    assert len(parts) > 2
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert (parts[-1].done, parts[-1].eval_count) == (True, whole.eval_count)
    assert (whole.eval_duration or 0) > 0


def test_a_schema_is_followed(client: ollama.Client) -> None:
    age = {"type": "integer", "minimum": 0, "maximum": 120}
    schema = {"type": "object", "properties": {"age": age}, "required": ["age"], "additionalProperties": False}
    reply = client.generate(MODEL, "How old is Ada? Answer in JSON.", format=schema, options=OPTIONS)
    assert isinstance(orjson.loads(reply.response)["age"], int)


def test_a_raw_text_is_continued(client: ollama.Client) -> None:
    reply = client.generate(MODEL, "One, two, three,", raw=True, options={**OPTIONS, "num_predict": 4})
    assert "four" in reply.response


def test_a_model_is_shown_loaded_and_unloaded(client: ollama.Client) -> None:
    (listed,) = client.list().models
    assert (listed.model, listed.details.quantization_level if listed.details else "") == (KEY, "Q4_1")
    shown = client.show(MODEL)
    assert "<|im_start|>" in (shown.template or "")
    assert (shown.modelinfo or {})["llama.embedding_length"] == 576
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"
    assert client.ps().models == []
    assert client.generate(MODEL, keep_alive="5m").done_reason == "load"
    (loaded,) = client.ps().models
    assert (loaded.model, loaded.size) == (KEY, listed.size)
