"""The sockets of LM Studio's SDK protocol: who gets in, frames that are wrong, limits, and the end."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from websockets.exceptions import InvalidStatus

from atelier.errors import Overloaded
from gateway.dialects.lmstudio_sdk import sdk_connection
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, running_gateway, until
from tests.support.gateway.sdk_client import AUTH, bare_socket, open_socket, prediction

LONG = "word " * 5000
QUERY = {"type": "query", "query": {"identifier": "tiny"}}


@pytest.fixture(autouse=True)
async def no_traceback() -> AsyncIterator[None]:
    """Checks that nothing a client sends is logged as an error of the server."""
    with structlog.testing.capture_logs() as logs:
        yield
    assert not [entry for entry in logs if entry["log_level"] == "error" or entry.get("exc_info")]


async def refusal(gateway: RunningGateway, namespace: str = "llm", **options: Any) -> tuple[int, Any]:
    """The reply to a rejected socket."""
    with pytest.raises(InvalidStatus) as caught:
        async with bare_socket(gateway, namespace, **options):
            pass
    response = caught.value.response
    return response.status_code, json.loads(response.body) if response.body else None


def idle(gateway: RunningGateway, registry: FakeRegistry) -> bool:
    admission = gateway.gateway.admission
    figures = registry.workers[KEY].engine.figures()
    return not (admission.active or admission.waiting or figures.active or figures.queued)


async def test_the_greeting_needs_no_key(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="secret") as gateway, gateway.client() as http:
        assert (await http.get("/lmstudio-greeting")).json() == {"lmstudio": True}
        assert (await http.get("/v1/models")).status_code == 401


async def test_a_socket_with_another_host_or_origin_is_rejected_before_it_opens(gateway: RunningGateway) -> None:
    status, body = await refusal(gateway, origin="http://evil.example")
    assert (status, body["error"]["code"]) == (403, "forbidden")
    status, body = await refusal(gateway, additional_headers={"Host": "evil.example"})
    assert (status, body["error"]["code"]) == (403, "forbidden")


async def test_the_key_may_be_in_the_headers_or_in_the_first_frame(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="secret") as gateway:
        for header in ({"Authorization": "Bearer secret"}, {"x-api-key": "secret"}):
            async with open_socket(gateway, additional_headers=header) as frames:
                assert (await frames.call("listLoaded"))["result"] == []
        async with bare_socket(gateway) as frames:
            await frames.send(**{**AUTH, "clientPasskey": "secret"})
            assert await frames.receive() == {"success": True}


@pytest.mark.parametrize("header", [{"Authorization": "Bearer wrong"}, {"x-api-key": "wrong"}])
async def test_a_wrong_key_in_the_headers_is_rejected_before_it_opens(registry: FakeRegistry, header: Any) -> None:
    async with running_gateway(registry, api_key="secret") as gateway:
        status, body = await refusal(gateway, additional_headers=header)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")


async def test_a_wrong_key_in_the_first_frame_ends_the_socket(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="secret") as gateway, bare_socket(gateway) as frames:
        await frames.send(**AUTH)
        reply = await frames.receive()
        assert (reply["success"], reply["error"]["errorData"]["code"]) == (False, "invalid_api_key")
        assert await frames.closed() == 1008


async def test_no_other_path_opens_a_socket_with_or_without_a_key(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="secret") as gateway:
        assert (await refusal(gateway, "v1/models"))[0] == 401
        assert (await refusal(gateway, "v1/models", additional_headers={"x-api-key": "secret"}))[0] == 403


@pytest.mark.parametrize(
    "first",
    [
        "",
        "{",
        "[]",
        "null",
        '{"type": "rpcCall", "endpoint": "listLoaded", "callId": 1}',
        '{"authVersion": 2, "clientIdentifier": "a", "clientPasskey": "b"}',
        '{"authVersion": 1, "clientIdentifier": 5, "clientPasskey": "b"}',
        '{"authVersion": 1, "clientIdentifier": "a"}',
        '{"authVersion": 1, "clientIdentifier": "' + "a" * 5000 + '", "clientPasskey": "b"}',
    ],
)
async def test_an_invalid_first_frame_is_reported_and_ends_the_socket(gateway: RunningGateway, first: str) -> None:
    async with bare_socket(gateway) as frames:
        await frames.connection.send(first)
        assert (await frames.receive())["success"] is False
        assert await frames.closed() == 1008


async def test_a_client_that_does_not_authenticate_is_disconnected(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk_connection, "AUTH_SECONDS", 0.05)
    async with bare_socket(gateway) as frames:
        assert await frames.closed() == 1008


WRONG = [
    "",
    "nonsense",
    "{",
    "[1]",
    "7",
    '"rpcCall"',
    "NaN",
    "[" * 100_000,
    '{"a":' * 2000,
    '{"type": "rpcCall", "callId": 1e400, "endpoint": "x"}',
    '{"type": "\\ud800"}',
    {},
    {"type": None},
    {"type": ["rpcCall"]},
    {"type": "nothing"},
    {"type": "rpcCall"},
    {"type": "rpcCall", "callId": "1", "endpoint": "listLoaded"},
    {"type": "rpcCall", "callId": -1, "endpoint": "listLoaded"},
    {"type": "rpcCall", "callId": 2**70, "endpoint": "listLoaded"},
    {"type": "rpcCall", "callId": 1, "endpoint": 7},
    {"type": "channelCreate", "channelId": None, "endpoint": "predict"},
    {"type": "channelCreate", "channelId": 1.5, "endpoint": "predict"},
    {"type": "channelSend"},
    {"type": "channelSend", "channelId": 1},
    {"type": "channelSend", "channelId": 1, "message": "cancel"},
    {"type": "channelSend", "channelId": 1, "message": {"type": "sing"}},
]


@pytest.mark.parametrize("frame", WRONG, ids=lambda frame: str(frame)[:40])
async def test_an_invalid_frame_causes_a_warning_and_the_socket_stays_open(gateway: RunningGateway, frame: Any) -> None:
    async with open_socket(gateway) as frames:
        await frames.connection.send(frame if isinstance(frame, str) else json.dumps(frame))
        warning = await frames.receive()
        assert (warning["type"], bool(warning["warning"])) == ("communicationWarning", True)
        assert (await frames.call("listLoaded"))["result"] == []


async def test_a_binary_frame_ends_the_socket(gateway: RunningGateway) -> None:
    async with open_socket(gateway) as frames:
        await frames.connection.send(b"\x00\xff")
        assert await frames.closed() == 1003


async def test_a_message_that_is_too_large_ends_the_socket(registry: FakeRegistry) -> None:
    async with running_gateway(registry, body_limit_mb=0.1) as gateway, open_socket(gateway) as frames:
        await frames.connection.send("x" * 200_000)
        assert await frames.closed() == 1009


WRONG_PARAMETERS: list[Any] = [
    None,
    7,
    "tiny",
    [],
    {},
    {"specifier": None},
    {"specifier": {"type": "query"}},
    {"specifier": {"type": "instanceReference"}},
    {"specifier": {"type": "instanceReference", "instanceReference": "gone"}},
    {"specifier": {"type": "query", "query": {"identifier": 5}}},
    {"specifier": {"type": "query", "query": {"identifier": "x" * 2000}}},
    {"specifier": {"type": "query", "query": {"identifier": "../../etc/passwd"}}},
    {"specifier": {"type": "query", "query": {"identifier": "tiny", "domain": "tts"}}},
    {"specifier": {"type": "query", "query": {"vision": True}}},
    {"specifier": {"type": "none"}},
    {"specifier": QUERY, "throwIfNotFound": "yes", "inputString": 7, "history": [], "opts": 3},
    {"specifier": QUERY, "throwIfNotFound": True, "history": {"messages": []}},
]
CALLS = ["getModelInfo", "getLoadConfig", "unloadModel", "tokenize", "countTokens", "applyPromptTemplate"]


@pytest.mark.parametrize("endpoint", CALLS)
async def test_invalid_parameters_are_errors_of_the_call(gateway: RunningGateway, endpoint: str) -> None:
    async with open_socket(gateway) as frames:
        for number, parameter in enumerate(WRONG_PARAMETERS):
            given = {"throwIfNotFound": True, **parameter} if isinstance(parameter, dict) else parameter
            reply = await frames.call(endpoint, given, number)
            assert (reply["type"], reply["callId"]) == ("rpcError", number), parameter
            assert 400 <= reply["error"]["errorData"]["status"] < 500, parameter


def field(key: str, value: Any) -> Any:
    return {"layers": [{"layerName": "apiOverride", "config": {"fields": [{"key": key, "value": value}]}}]}


def said(*parts: Any, role: str = "user") -> Any:
    return {"messages": [{"role": role, "content": list(parts)}]}


@pytest.mark.parametrize(
    "change",
    [
        {"modelSpecifier": "tiny"},
        {"history": None},
        {"history": {"messages": []}},
        {"history": {"messages": [{"role": "user", "content": "hi"}]}},
        {"history": said({"type": "text"})},
        {"history": said({"type": "song", "text": "la"})},
        {"history": said("hi")},
        {"history": said({"type": "text", "text": "hi"}, role="king")},
        {"history": said({"type": "file", "name": "a.png"})},
        {"history": said({"type": "file", "name": "a.png", "identifier": "a.png"})},
        {"history": said({"type": "file", "name": "a.png", "identifier": "base64:aGk="})},
        {"history": said({"type": "text", "text": "no result"}, role="tool")},
        {"history": said({"type": "toolCallRequest", "toolCallRequest": {"name": "f", "arguments": []}})},
        {"predictionConfigStack": {"layers": "none"}},
        {"predictionConfigStack": field("llm.prediction.temperature", "hot")},
        {"predictionConfigStack": field("llm.prediction.temperature", True)},
        {"predictionConfigStack": field("llm.prediction.maxPredictedTokens", {"checked": True, "value": 2**40})},
        {"predictionConfigStack": field("llm.prediction.maxPredictedTokens", {"checked": True, "value": 0})},
        {"predictionConfigStack": field("llm.prediction.stopStrings", ["x"] * 100)},
        {"predictionConfigStack": field("llm.prediction.contextOverflowPolicy", "explode")},
        {"predictionConfigStack": field("llm.prediction.logitBias", [[1, 2, 3]])},
        {"predictionConfigStack": field("llm.prediction.structured", "json")},
        {"predictionConfigStack": field("llm.prediction.structured", {"type": "gbnf"})},
        {"predictionConfigStack": field("llm.prediction.structured", {"type": "json", "jsonSchema": 5})},
        {"predictionConfigStack": field("llm.prediction.tools", {"type": "toolArray", "tools": [{}]})},
        {"predictionConfigStack": field("llm.prediction.tools", {"type": "toolArray", "tools": "all"})},
        {"predictionConfigStack": field("llm.prediction.reasoning.parsing", {"enabled": "yes"})},
        {"predictionConfigStack": field("llm.prediction.speculativeDecoding.draftModel", 5)},
        {"predictionConfigStack": field("llm.prediction.promptTemplate", {"type": "jinja"})},
        {"fuzzyPresetIdentifier": 5},
        {"fuzzyPresetIdentifier": "x" * 1000},
    ],
    ids=lambda change: json.dumps(change)[:60],
)
async def test_an_invalid_prediction_is_an_error_of_its_channel(gateway: RunningGateway, change: Any) -> None:
    async with open_socket(gateway) as frames:
        await frames.open("predict", {**prediction("hi"), **change})
        reply = await frames.receive()
        assert (reply["type"], reply["channelId"]) == ("channelError", 1)
        assert 400 <= reply["error"]["errorData"]["status"] < 500
        await frames.open("predict", prediction("hi"))
        assert (await frames.receive_until("channelClose"))[-2]["message"]["type"] == "success"


@pytest.mark.parametrize(
    "stack",
    [
        field("llm.load.contextLength", "long"),
        field("llm.load.contextLength", -1),
        field("llm.load.llama.acceleration.offloadRatio", 2),
        field("llm.load.llama.acceleration.offloadRatio", "most"),
        field("llm.load.llama.vCacheQuantizationType", {"checked": True, "value": "q9"}),
        field("load.gpuSplitConfig", "all"),
        {},
    ],
    ids=lambda stack: json.dumps(stack)[:60],
)
async def test_an_invalid_load_is_an_error_of_its_channel(
    gateway: RunningGateway, registry: FakeRegistry, stack: Any
) -> None:
    async with open_socket(gateway) as frames:
        for number, (endpoint, name) in enumerate((("getOrLoad", "identifier"), ("loadModel", "modelKey"))):
            await frames.open(endpoint, {name: "tiny", "loadConfigStack": stack}, number)
            reply = await frames.receive()
            assert (reply["type"], reply["error"]["errorData"]["status"]) == ("channelError", 400)
    assert (registry.ensured, registry.created) == ([], [])


async def test_unknown_endpoints_are_errors_that_name_the_known_ones(gateway: RunningGateway) -> None:
    async with open_socket(gateway) as frames:
        call = await frames.call("version")
        await frames.open("sing", {})
        channel = await frames.receive()
    assert (call["type"], channel["type"]) == ("rpcError", "channelError")
    assert "listLoaded" in call["error"]["title"]
    assert "predict" in channel["error"]["title"]


async def test_a_keepalive_is_acknowledged(gateway: RunningGateway) -> None:
    async with open_socket(gateway) as frames:
        await frames.send(type="keepAlive")
        assert await frames.receive() == {"type": "keepAliveAck"}


async def test_a_channel_number_in_use_is_rejected(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    async with open_socket(gateway) as frames:
        await frames.open("predict", prediction("hi"))
        await until(lambda: gateway.gateway.admission.active == 1)
        await frames.open("predict", prediction("ho"))
        assert "in use" in (await frames.receive())["warning"]
        registry.workers[KEY].engine.release()
        received = await frames.receive_until("success")
    assert [each["message"]["fragment"]["content"] for each in received if "fragment" in each["message"]] == ["hi"]


async def test_the_channels_of_a_socket_are_limited(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    async with open_socket(gateway) as frames:
        for number in range(sdk_connection.MOST_CHANNELS + 1):
            await frames.open("predict", prediction("hi"), number)
        reply = await frames.receive()
        assert (reply["type"], reply["channelId"]) == ("channelError", sdk_connection.MOST_CHANNELS)
        assert reply["error"]["errorData"]["code"] == Overloaded.code
        assert "Try again" in reply["error"]["suggestion"]
        assert gateway.gateway.admission.active + gateway.gateway.admission.waiting == sdk_connection.MOST_CHANNELS
    await until(lambda: idle(gateway, registry))


async def test_a_disconnect_stops_all_work_of_the_client(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"text": LONG, "step_seconds": 0.001}
    async with open_socket(gateway) as frames:
        for number in range(4):
            await frames.open("predict", prediction("hi"), number)
        await frames.receive_until("fragment")
        frames.connection.transport.abort()
    await until(lambda: idle(gateway, registry))
    assert registry.workers[KEY].engine.figures().steps < 4000


async def test_a_disconnect_does_not_stop_a_load(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.hold_loads = True
    async with open_socket(gateway) as frames:
        await frames.open("getOrLoad", {"identifier": "tiny", "loadConfigStack": {"layers": []}})
        await asyncio.wait_for(registry.asked.wait(), PATIENCE)
    await asyncio.wait_for(registry.abandoned.wait(), PATIENCE)


async def test_a_cancelled_load_closes_its_channel(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.hold_loads = True
    async with open_socket(gateway) as frames:
        await frames.open("getOrLoad", {"identifier": "tiny", "loadConfigStack": {"layers": []}})
        await asyncio.wait_for(registry.asked.wait(), PATIENCE)
        await frames.cancel()
        assert (await frames.receive_until("channelClose"))[-1] == {"type": "channelClose", "channelId": 1}
    await asyncio.wait_for(registry.abandoned.wait(), PATIENCE)


async def test_a_channel_cancelled_at_once_ends_too(gateway: RunningGateway) -> None:
    async with open_socket(gateway) as frames:
        await frames.open("predict", prediction(LONG))
        await frames.cancel()
        await frames.cancel()
        ends = (await frames.receive_until("channelClose"))[-2:]
        assert ends[0]["message"]["stats"]["stopReason"] == "userStopped"
        await frames.cancel()  # too late: it has no effect
        assert (await frames.call("listLoaded"))["type"] == "rpcResult"


async def test_a_client_that_does_not_read_delays_no_other(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"text": " ".join(["x" * 10_000] * 2000)}
    async with open_socket(gateway, max_queue=1, max_size=None) as slow, open_socket(gateway, max_size=None) as other:
        await slow.open("predict", prediction("hi"))
        await until(lambda: gateway.gateway.admission.active == 1)
        await other.open("predict", prediction("hi", maxPredictedTokens={"checked": True, "value": 3}))
        assert (await other.receive_until("channelClose"))[-2]["message"]["stats"]["predictedTokensCount"] == 3
        await until(
            lambda: registry.workers[KEY].engine.figures().active == 0
        )  # the worker has finished, its output is unread
        received = await slow.receive_until("channelClose")
    text = "".join(each["message"]["fragment"]["content"] for each in received if "fragment" in each.get("message", {}))
    assert len(text) == 2000 * 10_001 - 1


async def test_stopping_the_server_ends_predictions_with_an_error_and_then_the_socket(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"hold": True}
    async with open_socket(gateway) as frames, open_socket(gateway, "system") as other:
        await frames.open("predict", prediction("hi"))
        await until(lambda: gateway.gateway.admission.active == 1)
        await gateway.gateway.drain(0)
        error = (await frames.receive_until("channelError"))[-1]["error"]
        assert error["errorData"]["code"] == "draining"
        assert (await frames.closed(), await other.closed()) == (1012, 1012)
    status, body = await refusal(gateway)
    assert (status, body["error"]["code"]) == (503, "draining")


async def test_no_new_work_is_accepted_while_the_server_stops(gateway: RunningGateway) -> None:
    async with open_socket(gateway) as frames:
        gateway.gateway.admission.close()
        assert (await frames.call("listLoaded"))["error"]["errorData"]["code"] == "draining"


async def test_requests_on_a_socket_are_counted_by_endpoint(gateway: RunningGateway) -> None:
    async with open_socket(gateway) as frames, gateway.client() as http:
        await frames.open("predict", prediction("hi"))
        await frames.receive_until("channelClose")
        await frames.call("x" * 50)
        metrics = (await http.get("/metrics")).text
    assert 'route="/llm#predict",status="200"' in metrics
    assert "xxx" not in metrics
