"""Tokens and prompts in llama.cpp's form, over the real wire."""

from typing import Any

import pytest

from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import RunningGateway

HELLO = [{"role": "user", "content": "one two"}]


def id_of(word: str) -> int:
    """The id that the scripted engine gives to a word."""
    return sum(word.encode())


async def post(gateway: RunningGateway, path: str, **body: Any) -> Any:
    async with gateway.client() as http:
        reply = await http.post(path, json={"model": KEY, **body})
    return reply.json() if reply.status_code == 200 else (reply.status_code, reply.json()["error"]["param"])


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_text_is_tokenized_and_detokenized(gateway: RunningGateway, prefix: str) -> None:
    ids = [id_of("one"), id_of(" two")]
    assert await post(gateway, f"{prefix}/tokenize", content="one two") == {"tokens": ids}
    assert await post(gateway, f"{prefix}/detokenize", tokens=ids) == {"content": f"{ids[0]} {ids[1]}"}


async def test_tokens_are_returned_with_special_tokens_and_pieces(gateway: RunningGateway) -> None:
    reply = await post(gateway, "/tokenize", content="one", add_special=True, with_pieces=True)
    assert reply == {"tokens": [{"id": id_of("<s>"), "piece": "<s>"}, {"id": id_of("one"), "piece": "one"}]}


async def test_empty_text_has_no_tokens(gateway: RunningGateway) -> None:
    assert await post(gateway, "/tokenize", content="") == {"tokens": []}
    assert await post(gateway, "/detokenize", tokens=[]) == {"content": ""}


async def test_a_chat_is_rendered_as_the_prompt_of_the_model(gateway: RunningGateway, registry: FakeRegistry) -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    reply = await post(
        gateway, "/apply-template", messages=HELLO, tools=tools, chat_template_kwargs={"enable_thinking": False}
    )
    assert reply == {"prompt": "tool: weather\nenable_thinking: False\nuser: one two\nassistant:"}
    await registry_preset(gateway, "brief", {"prompt": {"system_prompt": "Be brief."}})
    reply = await post(gateway, "/v1/apply-template", messages=HELLO, preset="brief")
    assert reply == {"prompt": "system: Be brief.\nuser: one two\nassistant:"}


async def registry_preset(gateway: RunningGateway, name: str, settings: dict[str, Any]) -> None:
    async with gateway.client() as http:
        assert (await http.put(f"/api/v1/presets/{name}", json=settings)).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": ["a"]}, "content"),
        ("/tokenize", {"content": "a", "add_special": 1}, "add_special"),
        ("/tokenize", {"content": "a", "with_pieces": "yes"}, "with_pieces"),
        ("/tokenize", {"content": "a", "parse_special": "yes"}, "parse_special"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [1, "a"]}, "tokens[1]"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/apply-template", {}, "messages"),
        ("/apply-template", {"messages": HELLO, "tools": [{}]}, "tools[0].type"),
        ("/apply-template", {"messages": HELLO, "chat_template_kwargs": {"tools": 1}}, "chat_template_kwargs.tools"),
    ],
)
async def test_an_invalid_request_is_rejected_by_field_name(
    gateway: RunningGateway, registry: FakeRegistry, path: str, body: dict[str, Any], param: str
) -> None:
    assert await post(gateway, path, **body) == (400, param)
    assert registry.ensured == []


@pytest.mark.parametrize(
    ("path", "body"),
    [("/tokenize", {"content": "a"}), ("/detokenize", {"tokens": [1]}), ("/apply-template", {"messages": HELLO})],
)
async def test_an_unknown_model_is_a_404(gateway: RunningGateway, path: str, body: dict[str, Any]) -> None:
    assert await post(gateway, path, **{**body, "model": "acme/tinny"}) == (404, "model")
