import asyncio
from contextvars import Context
from typing import Any

import pytest
from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitRequestURLParams, ElicitResult

from atelier.errors import InvalidRequest
from gateway.core.mcp_server_config import Endpoint, ServerConfig
from gateway.core.question import (
    CANCELLED,
    DECLINED,
    ElicitationAnswer,
    Question,
    checked,
    read_question,
    stored_answer,
    stored_question,
    write_answer,
    write_question,
)
from gateway.tools.mcp_client.pausable_deadline import PausableDeadline
from gateway.tools.mcp_client.server_callbacks import ElicitationCallback

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2},
        "age": {"type": "integer", "minimum": 0},
        "day": {"type": "string", "format": "date"},
        "colours": {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}, "maxItems": 2},
        "size": {"type": "string", "oneOf": [{"const": "s", "title": "small"}, {"const": "l", "title": "large"}]},
    },
    "required": ["name"],
}
FORM = Question("Who?", schema=SCHEMA)
SERVER = ServerConfig("house", Endpoint("http://127.0.0.1:1"), elicitation=True)
ASKED = ElicitRequestFormParams(message="Who?", requested_schema=SCHEMA)


@pytest.mark.parametrize(
    "content",
    [
        {"name": "Ada"},
        {"name": "Ada", "age": 2**80, "day": "2026-02-28", "colours": ["red", "blue"], "size": "l"},
    ],
)
def test_a_valid_answer_is_passed_on(content: dict[str, Any]) -> None:
    answer = checked(FORM, ElicitationAnswer("accept", content))
    assert answer == ElicitationAnswer("accept", content)
    assert stored_answer(write_answer(answer)) == answer
    assert answer.result() == ElicitResult(action="accept", content=content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "'name' is a required property"),
        ({"name": 7}, "$.name: 7 is not of type 'string'"),
        ({"name": "A"}, "$.name"),
        ({"name": "Ada", "age": -1}, "$.age"),
        ({"name": "Ada", "age": "7"}, "$.age"),
        ({"name": "Ada", "day": "2026-02-30"}, "$.day: does not have the format date"),
        ({"name": "Ada", "colours": ["green"]}, "$.colours[0]"),
        ({"name": "Ada", "size": "m"}, "$.size"),
        ({"name": "Ada", "more": "x"}, "'more' was unexpected"),
        ({"name": "A" * 70_000}, "bytes"),
    ],
)
def test_an_answer_that_violates_the_schema_is_rejected(content: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match="content") as caught:
        checked(FORM, ElicitationAnswer("accept", content))
    assert message in caught.value.message


@pytest.mark.parametrize("action", [DECLINED, CANCELLED])
def test_a_refusal_has_no_content(action: ElicitationAnswer) -> None:
    assert checked(FORM, ElicitationAnswer(action.action, {"name": 7})) == action


def test_a_url_is_passed_on_and_needs_no_content() -> None:
    params = ElicitRequestURLParams(message="Sign in", url="https://house.example/in", elicitation_id="1")
    question = read_question(params)
    assert question is not None
    assert question.shown == {"message": "Sign in", "url": "https://house.example/in"}
    assert checked(question, ElicitationAnswer("accept", {"a": 1})) == ElicitationAnswer("accept")
    assert stored_question(write_question(question)) == question


@pytest.mark.parametrize(
    "params",
    [
        ElicitRequestURLParams(message="In", url="javascript:alert(1)", elicitation_id="1"),
        ElicitRequestURLParams(message="In", url="https://a/" + "a" * 3000, elicitation_id="1"),
        ElicitRequestFormParams(message="m" * 5000, requested_schema=SCHEMA),
        ElicitRequestFormParams(message="Who?", requested_schema={"type": "object"}),
        ElicitRequestFormParams(message="Who?", requested_schema={"properties": {"a": {"type": "object"}}}),
        ElicitRequestFormParams(message="Who?", requested_schema={"properties": {"a": {"$ref": "#"}}}),
        ElicitRequestFormParams(message="Who?", requested_schema={"properties": {"a": {"maximum": 2**70}}}),
        ElicitRequestFormParams(message="Who?", requested_schema={"properties": {"a": {"title": "t" * 40_000}}}),
        ElicitRequestFormParams(message="Who?", requested_schema={"properties": {f"f{i}": {} for i in range(65)}}),
    ],
)
def test_a_form_with_anything_but_plain_values_is_declined(params: ElicitRequestParams) -> None:
    assert read_question(params) is None


def test_a_form_is_passed_on_unchanged_and_survives_storage() -> None:
    question = read_question(ASKED)
    assert question == FORM
    assert FORM.shown == {"message": "Who?", "requested_schema": SCHEMA}
    assert stored_question(write_question(FORM)) == FORM


class User:
    """The user behind one call, who answers with a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, server: ServerConfig, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action="accept", content={"name": self.name})


class Absent:
    """A user who never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def __call__(self, server: ServerConfig, params: ElicitRequestParams) -> ElicitResult:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


async def ask(elicitation: ElicitationCallback, *, within: bool) -> Any:
    """Ask within the call's context, or else as over a connection that all calls share."""
    context: Any = None
    work = elicitation(context, ASKED)
    return await (work if within else asyncio.create_task(work, context=Context()))


def name_of(result: Any) -> str:
    return str(result.content["name"]) if result.action == "accept" else result.action


async def test_a_question_without_call_context_goes_to_the_only_running_call() -> None:
    elicitation = ElicitationCallback(SERVER)
    assert name_of(await ask(elicitation, within=False)) == "decline"
    with elicitation.during(User("Ada"), PausableDeadline(9)):
        assert name_of(await ask(elicitation, within=False)) == "Ada"
        with elicitation.during(None, PausableDeadline(9)):  # a call of another user, who cannot be asked
            assert name_of(await ask(elicitation, within=False)) == "decline"
            assert name_of(await ask(elicitation, within=True)) == "decline"
        assert name_of(await ask(elicitation, within=True)) == "Ada"
    assert name_of(await ask(elicitation, within=True)) == "decline"


async def test_a_question_is_cancelled_when_its_call_ends() -> None:
    elicitation, user = ElicitationCallback(SERVER), Absent()
    with elicitation.during(user, PausableDeadline(9)):
        asking = asyncio.create_task(ask(elicitation, within=False))
        await user.asked.wait()
    assert name_of(await asking) == "cancel"


async def test_a_deadline_pauses_while_the_user_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    begun, passed = loop.time(), 0.0
    monkeypatch.setattr(loop, "time", lambda: begun + passed)
    clock = PausableDeadline(10, latest=50)

    async def work() -> None:
        nonlocal passed
        async with clock.timeout() as limit:
            with clock.paused():
                passed = 30.0
                await asyncio.sleep(0)
                with clock.paused():
                    passed = 35.0
                assert not clock.has_passed
            assert limit.when() == pytest.approx(begun + 45)
            passed = 44.0
            await asyncio.sleep(0)
            assert not clock.has_passed
            with clock.paused():
                passed = 49.0
            assert limit.when() == pytest.approx(begun + 50)
            passed = 50.0
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await work()
    assert clock.has_passed
