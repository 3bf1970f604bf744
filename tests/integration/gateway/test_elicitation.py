"""Questions of MCP servers to the user, from the call that caused them to the client that answers, and back."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from atelier.json_types import Json
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, running_gateway, until
from tests.support.gateway.scripted_turns import call, follow, messages_of
from tests.support.mcp.asking_server import NEW, OLD, asking_server

OPENAI, LMSTUDIO = "/v1/chat/completions", "/api/v1/chat"
OPENS = {"text": "", "tool_calls": [call("open_door", door="front")]}
SAYS = {"text": "Done."}
ADA = {"action": "accept", "content": {"name": "Ada"}}

Reply = Callable[[Json], Awaitable[None]]


@pytest.fixture(params=[OLD, NEW])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def url(version: str) -> AsyncIterator[str]:
    async with asking_server(version) as running:
        yield running


@pytest.fixture
async def new_url() -> AsyncIterator[str]:
    async with asking_server(NEW) as running:
        yield running


def home(folder: Path, url: str, **more: Any) -> Path:
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"house": {"url": url, "elicitation": True, **more}}}))
    return folder


def body_for(path: str, **more: Any) -> Json:
    if path == OPENAI:
        tools = [{"type": "mcp", "server_label": "house"}]
        return {"model": KEY, "messages": [{"role": "user", "content": "Open."}], "tools": tools, **more}
    return {"model": KEY, "input": "Open.", "integrations": ["mcp/house"], **more}


def question_in(event: Json) -> Json | None:
    """The question in an event of either dialect."""
    if event.get("type") == "tool_call.elicitation":
        return event
    for choice in event.get("choices", []):
        for question in choice["delta"].get("mcp_elicitations", []):
            return dict(question)
    return None


async def converse(gateway: RunningGateway, reply: Reply, path: str = LMSTUDIO, **more: Any) -> list[Json]:
    """A stream's events, whose questions are answered."""
    events = []
    body = body_for(path, stream=True, **{"elicitation": True, **more})
    headers = {"x-api-key": "alice"}
    async with gateway.client() as http, http.stream("POST", path, json=body, headers=headers) as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data: {"):
                continue
            events.append(json.loads(line.removeprefix("data: ")))
            if question := question_in(events[-1]):
                await reply(question)
    return events


async def answer(gateway: RunningGateway, question: Json, body: Json, key: str = "alice") -> httpx.Response:
    async with gateway.client() as http:
        path = f"/api/v1/mcp/elicitations/{question['id']}"
        return await http.post(path, json=body, headers={"x-api-key": key})


def replying(gateway: RunningGateway, body: Json) -> Reply:
    async def reply(question: Json) -> None:
        answered = await answer(gateway, question, body)
        assert (answered.status_code, answered.json()) == (200, {"id": question["id"], "action": body["action"]})

    return reply


async def never_asked(question: Json) -> None:
    raise AssertionError(question)


async def scripted(registry: FakeRegistry, *turns: Json) -> Callable[[], str]:
    """The tool's result in the model's last prompt."""
    registry.models[KEY] = model_message(made_for_tools=True)
    requests = await follow(registry, *(turns or (OPENS, SAYS)))
    return lambda: str(messages_of(requests[-1])[-1]["content"])


def kept_questions(registry: FakeRegistry) -> list[str]:
    return [id for id in registry.responses if id.startswith("elicit")]


@pytest.mark.parametrize("path", [OPENAI, LMSTUDIO])
async def test_the_client_is_asked_and_its_answer_is_sent_to_the_server(
    registry: FakeRegistry, tmp_path: Path, url: str, path: str
) -> None:
    result = await scripted(registry)
    async with running_gateway(registry, home=home(tmp_path, url)) as gateway:
        events = await converse(gateway, replying(gateway, ADA), path)
    (question,) = filter(None, map(question_in, events))
    assert question["message"] == "Who is at the front door?"
    assert question["requested_schema"]["required"] == ["name"]
    assert question["requested_schema"]["properties"]["age"]["type"] == "integer"
    if path == LMSTUDIO:
        assert question["tool"] == "open_door"
        assert question["provider_info"] == {"type": "plugin", "plugin_id": "mcp/house"}
    else:
        assert (question["server_label"], question["name"]) == ("house", "open_door")
    assert result() == "Ada is in by the front door"
    assert not kept_questions(registry)


async def test_a_user_may_refuse_to_answer(registry: FakeRegistry, tmp_path: Path, url: str, version: str) -> None:
    result = await scripted(registry)
    async with running_gateway(registry, home=home(tmp_path, url)) as gateway:
        await converse(gateway, replying(gateway, {"action": "decline"}))
        pool, uses = gateway.gateway.mcp_pool, gateway.gateway.mcp_file.servers()
        assert pool.protocol(uses["house"].server) == version
    assert result() == "closed: decline"


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_an_invalid_answer_is_rejected_and_the_question_stays_open(
    registry: FakeRegistry, tmp_path: Path, new_url: str, elsewhere: bool
) -> None:
    result = await scripted(registry)
    options = {"home": home(tmp_path, new_url), "api_key": "alice"}
    async with running_gateway(registry, **options) as asking, running_gateway(registry, **options) as other:
        gateway = other if elsewhere else asking

        async def reply(question: Json) -> None:
            nested = {"name": {"first": "Ada"}}
            wrongs = (({}, "name"), ({"name": "A"}, "too short"), ({"name": "Ada", "x": 1}, "'x'"), (nested, "text"))
            for content, what in wrongs:
                wrong = await answer(gateway, question, {"action": "accept", "content": content})
                assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "content")
                assert what in wrong.json()["error"]["message"]
            await replying(gateway, ADA)(question)
            assert (await answer(gateway, question, ADA)).status_code == 404

        await converse(asking, reply)
    assert result() == "Ada is in by the front door"


async def test_others_cannot_answer(registry: FakeRegistry, tmp_path: Path, new_url: str) -> None:
    await scripted(registry)
    folder = home(tmp_path, new_url)
    async with (
        running_gateway(registry, home=folder, api_key="alice") as gateway,
        running_gateway(registry, home=folder, api_key="bob") as bobs,
    ):

        async def reply(question: Json) -> None:
            assert (await answer(bobs, question, ADA, key="bob")).status_code == 404
            assert (await answer(gateway, {"id": f"{question['id']}.answer"}, ADA)).status_code == 404
            await replying(gateway, ADA)(question)

        await converse(gateway, reply)


async def test_a_question_not_answered_in_time_is_cancelled(registry: FakeRegistry, tmp_path: Path, url: str) -> None:
    result = await scripted(registry)
    asked: list[Json] = []

    async def reply(question: Json) -> None:
        asked.append(question)

    async with running_gateway(registry, home=home(tmp_path, url), mcp_elicitation=0.1) as gateway:
        await converse(gateway, reply)
        assert (await answer(gateway, asked[0], ADA)).status_code == 404
    assert result() == "closed: cancel"


async def test_the_time_limit_of_a_call_pauses_while_its_user_is_asked(
    registry: FakeRegistry, tmp_path: Path, new_url: str
) -> None:
    result = await scripted(registry)
    options = {"home": home(tmp_path, new_url, timeout=1.5), "mcp_seconds": 1.5, "mcp_elicitation": 1.6}

    async def reply(question: Json) -> None:
        pass  # until it is cancelled, after the call's time limit

    async with running_gateway(registry, **options) as gateway:
        await converse(gateway, reply)
    assert result() == "closed: cancel"


async def test_a_request_without_elicitation_is_not_asked(registry: FakeRegistry, tmp_path: Path, url: str) -> None:
    result = await scripted(registry)
    async with running_gateway(registry, home=home(tmp_path, url)) as gateway:
        await converse(gateway, never_asked, elicitation=False)
    assert result() == "closed: decline"


async def test_an_answer_that_is_not_streamed_asks_no_questions(
    registry: FakeRegistry, tmp_path: Path, new_url: str
) -> None:
    result = await scripted(registry)
    async with running_gateway(registry, home=home(tmp_path, new_url)) as gateway, gateway.client() as http:
        await http.post(LMSTUDIO, json=body_for(LMSTUDIO, elicitation=True))
    assert result() == "closed: decline"


async def test_a_server_without_permission_to_ask_is_declined(
    registry: FakeRegistry, tmp_path: Path, new_url: str
) -> None:
    result = await scripted(registry)
    async with running_gateway(registry, home=home(tmp_path, new_url, elicitation=False)) as gateway:
        await converse(gateway, never_asked)
    assert "elicitation" in result()


async def test_each_of_two_users_is_asked_for_their_own_call(registry: FakeRegistry, tmp_path: Path, url: str) -> None:
    doors = ("front", "back")
    turns = [{"text": "", "tool_calls": [call("open_door", door=door)]} for door in doors]
    await scripted(registry, *turns, SAYS, SAYS)
    waiting: list[Json] = []
    async with running_gateway(registry, home=home(tmp_path, url)) as gateway:

        async def talk() -> str:
            own: list[str] = []

            async def reply(question: Json) -> None:
                waiting.append(question)
                own.append(question["message"].split()[-2])
                await until(lambda: len(waiting) == 2)
                await replying(gateway, {"action": "accept", "content": {"name": f"Mr {own[0]}"}})(question)

            *_, end = await converse(gateway, reply)
            (called,) = (item for item in end["result"]["output"] if item["type"] == "tool_call")
            assert f"Mr {own[0]} is in by the {own[0]} door" in called["output"]
            assert called["arguments"] == {"door": own[0]}
            return own[0]

        async with asyncio.timeout(PATIENCE):
            assert sorted(await asyncio.gather(talk(), talk())) == sorted(doors)


async def test_a_question_ends_when_its_client_disconnects(registry: FakeRegistry, tmp_path: Path, url: str) -> None:
    await scripted(registry)
    asked: list[Json] = []

    async def reply(question: Json) -> None:
        asked.append(question)
        raise ConnectionError

    async with running_gateway(registry, home=home(tmp_path, url)) as gateway:
        with pytest.raises(ConnectionError):
            await converse(gateway, reply)
        await until(lambda: not kept_questions(registry))
        assert (await answer(gateway, asked[0], ADA)).status_code == 404
