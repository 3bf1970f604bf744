"""LM Studio's own Python client on the whole server, with real models."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import lmstudio
import pydantic
import pytest
from gguf import PoolingType

from tests.support.command.server_process import KEY, MODEL, Server
from tests.support.models.tiny_bert import LENGTH, write_tiny_bert

pytestmark = pytest.mark.system


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    age: int = pydantic.Field(ge=0, le=130)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[lmstudio.Client]:
    with lmstudio.Client(server.url.removeprefix("http://")) as connected:
        yield connected


def test_a_model_is_loaded_used_and_unloaded(client: lmstudio.Client) -> None:
    assert [each.model_key for each in client.llm.list_downloaded()] == [KEY]
    progress: list[float] = []
    config = {"contextLength": 1024}
    model = client.llm.load_new_instance(MODEL, "chatty", config=config, on_load_progress=progress.append)
    assert (model.identifier, model.get_context_length(), progress[-1]) == ("chatty", 1024, 1.0)

    stream = model.respond_stream("Say hello.", config={"maxTokens": 16, "temperature": 0.0})
    pieces = [fragment.content for fragment in stream]
    result = stream.result()
    assert len(pieces) > 1
    assert "".join(pieces) == result.content
    assert result.load_config.context_length == 1024

    person = model.respond("Describe a person.", response_format=Person, config={"maxTokens": 100})
    Person.model_validate(person.parsed)

    prompt = model.apply_prompt_template("Say hello.")
    assert prompt.startswith("<|im_start|>")
    assert "Say hello." in prompt
    assert model.count_tokens(prompt) == len(model.tokenize(prompt)) == result.stats.prompt_tokens_count

    model.unload()
    assert client.llm.list_loaded() == []


def test_a_long_answer_is_cancelled(client: lmstudio.Client) -> None:
    model = client.llm.model(MODEL, config={"contextLength": 3072})
    assert model.get_context_length() == 3072
    stream = model.respond_stream("Count to a thousand.", config={"maxTokens": 2000})
    for _ in stream:
        stream.cancel()
    assert stream.result().stats.stop_reason == "userStopped"
    model.unload()


def test_texts_become_vectors_and_tokens(client: lmstudio.Client, server: Server, tmp_path: Path) -> None:
    path = write_tiny_bert(tmp_path / "bert.gguf", PoolingType.MEAN)
    body = {"path": str(path), "key": "test/bert"}
    httpx.post(f"{server.url}/api/v1/models/import", json=body, timeout=60).raise_for_status()
    model = client.embedding.model("bert")
    one, two = model.embed(["a", "b"])
    assert (len(one), len(two)) == (LENGTH, LENGTH)
    assert sum(number * number for number in one) == pytest.approx(1, abs=1e-3)
    assert model.count_tokens("a b") == len(model.tokenize("a b"))
    model.unload()
    assert client.embedding.list_loaded() == []
