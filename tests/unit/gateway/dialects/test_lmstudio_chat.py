"""LM Studio's v1 chat, the parts without a server: the events of a stream, and turns as a conversation."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from atelier.errors import DeadlineExceeded, DownloadNotFound, InstanceNotFound, ModelNotFound, UnsupportedField
from atelier.generation_types import Finished, Statistics, StopReason
from gateway.core.events import Completion, Delta, Event, PromptProgress, Reasoning, completion_events
from gateway.dialects.lmstudio.lmstudio_chat_output import ChatOutput
from gateway.dialects.lmstudio.lmstudio_chat_replies import error_body, error_event
from gateway.dialects.lmstudio.lmstudio_chat_stream import ChatRenderer
from gateway.dialects.lmstudio.stored_conversation import StoredTurn, chat_messages

END = Finished(0, StopReason.EOS_FOUND, None, Statistics())


def rendered(events: list[Event]) -> list[str]:
    """Each event as its type, and its content or progress where it has one."""
    generation: Any = SimpleNamespace()
    renderer = ChatRenderer(generation)
    text = b"".join(map(renderer.event, events)).decode()
    data = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    return [" ".join(str(value) for value in each.values()) for each in data]


def progress(done: int) -> PromptProgress:
    return PromptProgress(0, 4, 0, done, 0.0)


def test_alternating_parts_begin_and_end_each_time() -> None:
    assert rendered([Reasoning(0, "a"), Delta(0, "b"), Delta(0, "c"), Reasoning(0, "d"), END]) == [
        "prompt_processing.end",
        *("reasoning.start", "reasoning.delta a", "reasoning.end"),
        *("message.start", "message.delta b", "message.delta c", "message.end"),
        *("reasoning.start", "reasoning.delta d", "reasoning.end"),
    ]


def test_a_prompt_ends_once_and_its_progress_only_grows() -> None:
    events = [progress(1), progress(3), progress(1), progress(4), progress(2), Delta(0, "a"), END]
    assert rendered(events) == [
        *("prompt_processing.progress 0.25", "prompt_processing.progress 0.75", "prompt_processing.progress 1.0"),
        "prompt_processing.end",
        *("message.start", "message.delta a", "message.end"),
    ]


def test_an_empty_reply_still_ends_its_prompt_processing() -> None:
    assert rendered([END]) == ["prompt_processing.end"]


@pytest.mark.parametrize(
    ("reasoning", "message", "types"),
    [("", "", ["message"]), ("a", "", ["reasoning"]), ("", "b", ["message"]), ("a", "b", ["reasoning", "message"])],
)
def test_a_reply_has_an_item_for_each_kind_of_text(reasoning: str, message: str, types: list[str]) -> None:
    output = ChatOutput()
    for event in completion_events(Completion(message, END, reasoning=reasoning)):
        output.add(event)
    assert [item["type"] for item in output.whole_items()] == types


def test_the_latest_system_prompt_applies_and_an_empty_one_removes_it() -> None:
    def turn(system_prompt: str | None) -> StoredTurn:
        return StoredTurn(system_prompt, [{"role": "user", "content": "hi"}])

    def system(*turns: StoredTurn) -> list[str]:
        return [each["content"] for each in chat_messages(turns) if each["role"] == "system"]

    assert system(turn("a"), turn(None)) == ["a"]
    assert system(turn("a"), turn("b"), turn(None)) == ["b"]
    assert system(turn("a"), turn("")) == []
    assert system(turn(None)) == []


def test_a_stored_turn_is_read_back_unchanged() -> None:
    turn = StoredTurn("Be brief.", [{"role": "user", "content": "é\0"}]).answered(
        [{"role": "assistant", "content": "so", "reasoning_content": "hm"}]
    )
    assert StoredTurn.from_json(turn.to_json()) == turn


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelNotFound(), "model_not_found"),
        (InstanceNotFound(), "model_not_found"),
        (DownloadNotFound(), "job_not_found"),
        (UnsupportedField("images", param="input[0]"), "not_implemented"),
        (DeadlineExceeded(), "internal_error"),
    ],
)
def test_an_error_has_lm_studios_type_in_replies_and_in_streams(error: Any, kind: str) -> None:
    body = error_body(error, "req_1")
    assert body["error"]["type"] == kind
    name, data = error_event(json.dumps(body).encode()).decode().strip().split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {"type": "error", **body}
