"""LM Studio's SDK protocol, used by the unmodified `lmstudio` package."""

import asyncio
import json
from typing import Any

import lmstudio
import pydantic
import pytest

from atelier.errors import InsufficientMemory
from atelier.settings.preset import Preset
from gateway.fleet.control import Control
from protos import registry_pb2 as pb
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import RunningGateway, running_gateway, until
from tests.support.gateway.sdk_client import async_client, with_client

EMBEDDER = "acme/embed"
LONG = "word " * 5000


def idle(registry: FakeRegistry, instance: str = KEY) -> bool:
    figures = registry.workers[instance].engine.figures()
    return not (figures.active or figures.queued)


async def model_known(gateway: RunningGateway, registry: FakeRegistry, message: pb.Model) -> None:
    registry.models[message.key] = message
    registry.tell(pb.Change(model=message))
    await until(lambda: gateway.gateway.watcher.snapshot.models.get(message.key))


async def embedder_known(gateway: RunningGateway, registry: FakeRegistry) -> None:
    await model_known(gateway, registry, model_message(EMBEDDER, embedding=True))


async def test_downloaded_models_are_listed_by_kind(gateway: RunningGateway, registry: FakeRegistry) -> None:
    await embedder_known(gateway, registry)
    llms, embedders, infos = await with_client(
        gateway,
        lambda client: (
            [each.model_key for each in client.llm.list_downloaded()],
            [each.model_key for each in client.embedding.list_downloaded()],
            [each.info for each in client.list_downloaded_models()],
        ),
    )
    assert (llms, embedders) == ([KEY], [EMBEDDER])
    assert [(each.type, each.max_context_length, each.format) for each in infos] == [
        ("embedding", 8192, "gguf"),
        ("llm", 8192, "gguf"),
    ]


async def test_a_model_is_loaded_once_and_then_found(gateway: RunningGateway, registry: FakeRegistry) -> None:
    def load_twice(client: lmstudio.Client) -> Any:
        progress: list[float] = []
        first = client.llm.model("tiny", ttl=90, on_load_progress=progress.append)
        second = client.llm.model(KEY)
        return progress, first.identifier, second.identifier, client.llm.model().identifier

    progress, *identifiers = await with_client(gateway, load_twice)
    assert identifiers == [KEY, KEY, KEY]
    assert (registry.loads, progress[0], progress[-1]) == (1, 0.0, 1.0)


async def test_a_load_reports_its_progress(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.hold_loads = True
    progress: list[float] = []
    loading = asyncio.create_task(
        with_client(gateway, lambda client: client.llm.model("tiny", on_load_progress=progress.append))
    )
    await asyncio.wait_for(registry.asked.wait(), 5)
    registry.tell(pb.Change(instance=pb.Instance(id=KEY, model_key=KEY, state=pb.LOADING, load_progress=0.5)))
    await until(lambda: 0.5 in progress)
    registry.released.set()
    await loading
    assert progress == [0.0, 0.5, 1.0]


async def test_a_new_instance_has_its_name_configuration_and_ttl(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    await model_known(gateway, registry, model_message(KEY, layers=30))
    config = {
        "contextLength": 2048,
        "evalBatchSize": 512,
        "flashAttention": True,
        "keepModelInMemory": True,
        "tryMmap": False,
        "offloadKVCacheToGpu": False,
        "seed": 7,
        "llamaKCacheQuantizationType": "q8_0",
        "llamaVCacheQuantizationType": "q8_0",
        "gpu": {"ratio": 0.5},
    }

    def load(client: lmstudio.Client) -> Any:
        model = client.llm.load_new_instance("tiny", "mine", ttl=90, config=config)
        return model.identifier, model.get_load_config().to_dict(), model.get_context_length(), model.get_info()

    identifier, reported, length, info = await with_client(gateway, load)
    request = registry.created[-1]
    assert (identifier, request.identifier, request.ttl_seconds) == ("mine", "mine", 90)
    assert (request.load.context_length, request.load.gpu_layers) == (2048, 15)
    assert (request.load.k_type, request.load.v_type) == ("q8_0", "q8_0")
    assert (reported, length) == (config, 2048)
    assert (info.identifier, info.model_key, info.context_length) == ("mine", KEY, 2048)


async def test_a_configuration_applies_only_when_the_model_is_loaded(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    def load(client: lmstudio.Client) -> int:
        client.llm.model("tiny", config={"contextLength": 1024})
        return client.llm.model("tiny", config={"contextLength": 512}).get_context_length()

    assert await with_client(gateway, load) == 1024
    assert registry.loads == 1


async def test_concurrent_loads_with_one_configuration_share_one_load(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    async with async_client(gateway) as client:
        asked = [client.llm.model("tiny", config={"contextLength": 1024}) for _ in range(3)]
        models = await asyncio.gather(*asked)
    assert {model.identifier for model in models} == {KEY}
    assert (registry.loads, registry.instances[KEY].context_length) == (1, 1024)


async def test_loaded_models_are_listed_and_unloaded(gateway: RunningGateway, registry: FakeRegistry) -> None:
    def walk(client: lmstudio.Client) -> Any:
        client.llm.load_new_instance("tiny")
        client.llm.load_new_instance("tiny")
        before = [each.identifier for each in client.list_loaded_models()]
        client.llm.unload(f"{KEY}:2")
        return before, [each.identifier for each in client.llm.list_loaded()]

    before, after = await with_client(gateway, walk)
    assert (sorted(before), after, registry.unloaded) == ([KEY, f"{KEY}:2"], [KEY], [f"{KEY}:2"])


async def test_a_chat_has_its_answer_statistics_and_configuration(gateway: RunningGateway) -> None:
    config = {"temperature": 0.25, "maxTokens": 2, "topPSampling": 0.5, "topKSampling": 7, "stopStrings": ["zzz"]}
    result = await with_client(gateway, lambda c: c.llm.model("tiny").respond("one two three", config=config))
    assert result.content == "one two"
    stats = result.stats
    assert (stats.stop_reason, stats.prompt_tokens_count, stats.predicted_tokens_count) == (
        "maxPredictedTokensReached",
        3,
        2,
    )
    assert stats.total_tokens_count == 5
    assert (result.model_info.model_key, result.load_config.context_length) == (KEY, 4096)
    held = result.prediction_config.to_dict()
    assert {name: held[name] for name in config} == config
    assert held["repeatPenalty"] == 1.1


async def test_a_stream_reports_its_parts_and_its_progress(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"slice_tokens": 2}

    def stream(client: lmstudio.Client) -> Any:
        progress: list[float] = []
        messages: list[Any] = []
        chat = lmstudio.Chat("Be brief.")
        chat.add_user_message("one two three four")
        answer = client.llm.model("tiny").respond_stream(
            chat, on_prompt_processing_progress=progress.append, on_message=messages.append
        )
        return list(answer), progress, messages, answer.result()

    fragments, progress, messages, result = await with_client(gateway, stream)
    assert "".join(each.content for each in fragments) == result.content == "one two three four"
    assert sum(each.tokens_count for each in fragments) == 4
    assert (progress[0], progress[-1]) == (0.0, 1.0)
    assert progress == sorted(progress)
    assert messages[0].content[0].text == "one two three four"


async def test_a_text_is_completed_without_a_template(gateway: RunningGateway) -> None:
    result = await with_client(gateway, lambda client: client.llm.model("tiny").complete("Once upon"))
    assert result.content == "Once upon"


async def test_reasoning_is_separate_and_enclosed_in_tags(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"reasoning": "let me think", "text": "done"}

    def stream(client: lmstudio.Client) -> Any:
        answer = client.llm.model("tiny").respond_stream("why")
        return list(answer), answer.result().content

    fragments, content = await with_client(gateway, stream)
    kinds = dict.fromkeys(each.reasoning_type for each in fragments)
    assert list(kinds) == ["reasoningStartTag", "reasoning", "reasoningEndTag", "none"]
    assert content == "<think>let me think</think>done"


class Answer(pydantic.BaseModel):
    name: str
    age: int


@pytest.mark.parametrize("form", [Answer, Answer.model_json_schema()])
async def test_a_structured_answer_is_parsed(gateway: RunningGateway, registry: FakeRegistry, form: Any) -> None:
    registry.script = {"text": '{"name":"Ada","age":36}', "reasoning": "hm"}
    result = await with_client(gateway, lambda c: c.llm.model("tiny").respond("who", response_format=form))
    assert result.parsed == {"name": "Ada", "age": 36}


async def test_tools_are_called_in_rounds_and_concurrently(gateway: RunningGateway, registry: FakeRegistry) -> None:
    calls = [("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})]
    registry.script = {"tool_calls": [{"name": name, "arguments": json.dumps(value)} for name, value in calls]}
    called: list[tuple[int, int]] = []

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        called.append((a, b))
        return a + b

    def act(client: lmstudio.Client) -> Any:
        messages: list[Any] = []
        predictions: list[Any] = []
        done = client.llm.model("tiny").act(
            "sum them",
            [add],
            max_prediction_rounds=3,
            max_parallel_tool_calls=None,
            on_message=messages.append,
            on_prediction_completed=predictions.append,
        )
        return done, messages, predictions

    done, messages, predictions = await with_client(gateway, act)
    assert done.rounds == 3
    assert sorted(called) == [(1, 2), (1, 2), (3, 4), (3, 4)]
    assert [each.stats.stop_reason for each in predictions] == ["toolCalls", "toolCalls", "eosFound"]
    assert [message.role for message in messages] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert sorted(part.content for part in messages[1].content) == ["3", "7"]


async def test_a_truncated_tool_call_is_an_error(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"text": "", "tool_calls": [{"name": "add", "arguments": '{"a": 1, "b": 2}'}]}

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    with pytest.raises(lmstudio.LMStudioPredictionError, match="parse tool call"):
        await with_client(gateway, lambda c: c.llm.model("tiny").act("go", [add], config={"maxTokens": 2}))


async def test_a_cancelled_prediction_stops_its_work(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"text": LONG, "step_seconds": 0.001}

    def cancel(client: lmstudio.Client) -> Any:
        stream = client.llm.model("tiny").respond_stream("go")
        for _ in stream:
            stream.cancel()
        return stream.result(), client.llm.model("tiny").get_info().identifier

    result, _ = await with_client(gateway, cancel)
    assert result.stats.stop_reason == "userStopped"
    assert 0 < result.stats.predicted_tokens_count < 5000
    await until(lambda: idle(registry) and not gateway.gateway.admission.active)


async def test_a_prediction_is_cancelled_while_its_model_loads(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.hold_loads = True
    async with async_client(gateway) as client:
        model = client.llm._create_handle("tiny")
        stream = await model.respond_stream("go")
        await stream.start()
        await asyncio.wait_for(registry.asked.wait(), 5)
        await stream.cancel()
        result = await stream.wait_for_result()
    assert result.stats.stop_reason == "userStopped"
    await asyncio.wait_for(registry.abandoned.wait(), 5)
    assert gateway.gateway.admission.waiting == 0


async def test_the_async_client_does_the_same(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with async_client(gateway) as client:
        model = await client.llm.model("tiny")
        answers = await asyncio.gather(*(model.respond(f"number {i}") for i in range(20)))
        assert [each.content for each in answers] == [f"number {i}" for i in range(20)]
        assert await model.count_tokens("one two three") == 3
        assert len(await model.tokenize("one two")) == 2
        stream = await model.respond_stream("a b c")
        assert "".join([fragment.content async for fragment in stream]) == "a b c"
        assert [each.identifier for each in await client.list_loaded_models()] == [KEY]
        await model.unload()
        assert await client.list_loaded_models() == []


async def test_the_async_client_calls_tools(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"tool_calls": [{"name": "shout", "arguments": '{"word": "hey"}'}]}
    shouted: list[str] = []

    async def shout(word: str) -> str:
        """Say it loudly."""
        shouted.append(word)
        return word.upper()

    async with async_client(gateway) as client:
        model = await client.llm.model("tiny")
        done = await model.act("go", [shout], max_prediction_rounds=2)
    assert (done.rounds, shouted) == (2, ["hey"])


async def test_tokens_are_returned_and_counted(gateway: RunningGateway) -> None:
    def count(client: lmstudio.Client) -> Any:
        model = client.llm.model("tiny")
        return model.tokenize("a b"), model.tokenize(["a", "b c"]), model.count_tokens("a b c")

    one, several, counted = await with_client(gateway, count)
    assert (len(one), [len(each) for each in several], counted) == (2, [1, 2], 3)


async def test_the_prompt_of_a_chat_is_shown(gateway: RunningGateway) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}

    def show(client: lmstudio.Client) -> Any:
        model = client.llm.model("tiny")
        return model.apply_prompt_template("one two"), model.apply_prompt_template(
            "one two", {"omitBosToken": True, "toolDefinitions": [tool]}
        )

    plain, tooled = await with_client(gateway, show)
    assert plain == "user: one two\nassistant:"
    assert tooled == "tool: add\nuser: one two\nassistant:"


async def test_texts_become_vectors(gateway: RunningGateway, registry: FakeRegistry) -> None:
    await embedder_known(gateway, registry)

    def embed(client: lmstudio.Client) -> Any:
        model = client.embedding.model("embed", config={"contextLength": 256})
        return model.embed("a"), model.embed(["a", "b"]), model.count_tokens("a b"), model.get_load_config()

    one, several, counted, config = await with_client(gateway, embed)
    assert (list(one), len(several), counted) == ([1.0, 0.0, 0.0, 0.0], 2, 2)
    assert config.context_length == 256


async def test_an_unknown_model_is_an_error_with_suggestions(gateway: RunningGateway) -> None:
    for ask in (
        lambda client: client.llm.model("tinny"),
        lambda client: client.llm.load_new_instance("tinny"),
        lambda client: client.llm._create_handle("tinny").respond("hi"),
        lambda client: client.llm._create_handle("tinny").get_info(),
        lambda client: client.llm.unload("tinny"),
    ):
        with pytest.raises(lmstudio.LMStudioModelNotFoundError) as caught:
            await with_client(gateway, ask)
        assert "tinny" in str(caught.value)
        if ask is not None and "unload" not in ask.__code__.co_names:
            assert KEY in str(caught.value)


async def test_a_model_that_is_not_loaded_has_no_instance_info(gateway: RunningGateway) -> None:
    with pytest.raises(lmstudio.LMStudioModelNotFoundError, match="is loaded"):
        await with_client(gateway, lambda client: client.llm._create_handle("tiny").get_load_config())


async def test_an_unknown_preset_has_its_own_error(gateway: RunningGateway) -> None:
    with pytest.raises(lmstudio.LMStudioPresetNotFoundError, match="precise"):
        await with_client(gateway, lambda client: client.llm.model("tiny").respond("hi", preset="precise"))


async def test_a_preset_applies_where_the_request_sets_nothing(gateway: RunningGateway, registry: FakeRegistry) -> None:
    short = Preset(name="short", settings={"inference": {"max_tokens": 1}})
    await Control(gateway.gateway.registry, gateway.gateway.watcher).put_preset(short, None)
    result = await with_client(gateway, lambda c: c.llm.model("tiny").respond("one two", preset="@local:short"))
    assert result.content == "one"


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"temperature": 7.0}, r"llm\.prediction\.temperature: "),
        ({"stopStrings": [""]}, r"llm\.prediction\.stopStrings: "),
        ({"topKSampling": 1.5}, r"llm\.prediction\.topKSampling: "),
        ({"draftModel": "acme/other"}, "draft"),
        ({"toolCallStopStrings": ["x"]}, "stopStrings"),
    ],
)
async def test_an_invalid_setting_is_rejected_by_name(gateway: RunningGateway, config: Any, match: str) -> None:
    with pytest.raises(lmstudio.LMStudioServerError, match=match):
        await with_client(gateway, lambda client: client.llm.model("tiny").respond("hi", config=config))


@pytest.mark.parametrize(
    "config",
    [
        {"numExperts": 0},
        {"gpu": {"splitStrategy": "favorMainGpu", "mainGpu": 1}},
        {"gpu": {"disabledGpus": [0]}},
        {"gpu": {"ratio": 0.5}},
    ],
)
async def test_unsupported_load_settings_are_rejected(
    gateway: RunningGateway, registry: FakeRegistry, config: Any
) -> None:
    with pytest.raises(lmstudio.LMStudioServerError, match=r"load\."):
        await with_client(gateway, lambda client: client.llm.model("tiny", config=config))
    assert (registry.ensured, registry.created) == ([], [])


async def test_a_load_that_fails_says_why(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.fail_with = InsufficientMemory("It takes 9 GiB.")
    with pytest.raises(lmstudio.LMStudioServerError, match="It takes 9 GiB") as caught:
        await with_client(gateway, lambda client: client.llm.model("tiny"))
    assert caught.value.server_error is not None
    assert caught.value.server_error.error_data["code"] == "insufficient_memory"
    assert "30 s" in str(caught.value.server_error.suggestion)


async def test_a_model_of_the_other_kind_is_rejected(gateway: RunningGateway, registry: FakeRegistry) -> None:
    await embedder_known(gateway, registry)
    with pytest.raises(lmstudio.LMStudioServerError, match="/llm"):
        await with_client(gateway, lambda client: client.embedding.model("tiny"))
    with pytest.raises(lmstudio.LMStudioServerError, match="/embedding"):
        await with_client(gateway, lambda client: client.llm.model("embed"))


async def test_a_lost_worker_is_an_error_instead_of_an_end(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"text": LONG, "step_seconds": 0.001}
    async with async_client(gateway) as client:
        stream = await (await client.llm.model("tiny")).respond_stream("go")

        async def read() -> None:
            async for _ in stream:
                if KEY in registry.workers:
                    await registry.kill_worker(KEY)

        with pytest.raises(lmstudio.LMStudioServerError, match="ended during the answer"):
            await read()


class KeyedClient(lmstudio.Client):
    def _create_auth_message(self) -> Any:
        return self._format_auth_message(client_key="secret")


class TokenClient(lmstudio.Client):
    def _create_auth_message(self) -> Any:
        return self._format_auth_message("abcdefgh", "ijkl")


async def test_a_client_sends_the_key_as_its_passkey(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="secret") as gateway:
        answer = await with_client(gateway, lambda client: client.llm.model("tiny").respond("hi").content, KeyedClient)
        assert answer == "hi"
        with pytest.raises(lmstudio.LMStudioServerError, match="clientPasskey"):
            await with_client(gateway, lambda client: client.llm.list_loaded())


async def test_a_token_of_two_parts_is_joined(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="sk-lm-abcdefgh:ijkl") as gateway:
        assert await with_client(gateway, lambda client: client.llm.list_loaded(), TokenClient) == []
