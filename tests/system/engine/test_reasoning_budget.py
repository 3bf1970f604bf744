"""The budget of the real model's reasoning, which a chat template opens, or the model itself."""

import json
from dataclasses import dataclass
from typing import Any

import jsonschema
import orjson
import pytest

from atelier.launch import LaunchSpec
from atelier.submission import OutputFormat, Tool, ToolChoice, Tools, set_output_format, set_tools
from protos import inference_pb2 as pb
from tests.support.worker.worker_client import WorkerClient

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

CHAT = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
THINKING = CHAT + "<|im_start|>assistant\n<think>\n"  # a mark of several tokens, as the vocabulary has none for it
START, END = "<file_sep>", "<repo_name>"  # control tokens
MARKS = OutputFormat(reasoning_start=START, reasoning_end=END)
GREEDY = {"temperature": 0.0, "max_tokens": 60}
CLOCK = {"type": "object", "properties": {"zone": {"type": "string", "maxLength": 20}}, "required": ["zone"]}


@dataclass
class Answer:
    """One choice."""

    reasoning: str = ""
    text: str = ""
    arguments: str = ""
    tokens: int = 0
    logprobs: int = 0
    end: pb.Finished | None = None

    @property
    def reasoning_tokens(self) -> int:
        assert self.end is not None
        return self.end.statistics.reasoning_tokens


async def ask(
    client: WorkerClient,
    template: str | None = THINKING,
    output: OutputFormat | None = None,
    tools: Tools | None = None,
    *,
    choices: int = 1,
    logprobs: int | None = None,
    **sampling: Any,
) -> list[Answer]:
    chat = pb.Chat(messages_json=orjson.dumps([{"role": "user", "content": "Why is the sky blue?"}]), template=template)
    set_output_format(chat, output or OutputFormat())
    set_tools(chat, tools)
    await client.submit(1, chat=chat, choices=choices, logprobs=logprobs, sampling=GREEDY | sampling)
    answers = [Answer() for _ in range(choices)]
    while not all(answer.end for answer in answers):
        event = await client.next(1)
        assert not event.HasField("failed"), event.failed.error.message
        answer, delta = answers[event.choice], event.delta
        answer.reasoning += delta.reasoning
        answer.text += delta.text
        answer.arguments += "".join(piece.arguments for piece in delta.tool_calls)
        answer.tokens += delta.tokens
        answer.logprobs += len(delta.logprobs)
        if event.HasField("finished"):
            answer.end = event.finished
    return answers


async def token_of(client: WorkerClient, spec: LaunchSpec, mark: str) -> int:
    request = pb.TokenizeRequest(instance_id=spec.instance_id, text=mark, add_special=False)
    (token,) = (await client.stub.Tokenize(request, metadata=client.metadata)).ids
    return token


async def test_without_a_budget_the_reasoning_goes_on(client: WorkerClient) -> None:
    for sampling in ({}, {"reasoning_budget": -1}):
        (answer,) = await ask(client, **sampling)
        assert answer.text == ""
        assert answer.reasoning_tokens == answer.tokens == 60


async def test_the_answer_begins_when_the_budget_is_spent(client: WorkerClient) -> None:
    (unlimited,) = await ask(client)
    for budget in (1, 7, 20):
        (answer,) = await ask(client, reasoning_budget=budget)
        assert answer.reasoning_tokens == budget
        assert answer.reasoning
        assert unlimited.reasoning.startswith(answer.reasoning)
        assert answer.text
        assert "think" not in answer.text
        assert answer.tokens > budget + 3, "the mark's tokens count as predicted ones"


async def test_a_budget_of_nothing_ends_the_reasoning_at_once(client: WorkerClient) -> None:
    (answer,) = await ask(client, reasoning_budget=0)
    assert (answer.reasoning, answer.reasoning_tokens) == ("", 0)
    assert answer.text


async def test_the_budget_applies_to_every_choice(client: WorkerClient) -> None:
    answers = await ask(client, choices=3, reasoning_budget=9, temperature=1.0, seed=1)
    assert [answer.reasoning_tokens for answer in answers] == [9, 9, 9]
    assert len({answer.reasoning for answer in answers}) == 3
    assert all(answer.text for answer in answers)


async def test_log_probabilities_of_forced_tokens_are_the_models_own(client: WorkerClient) -> None:
    (plain,) = await ask(client, reasoning_budget=7)
    (rated,) = await ask(client, reasoning_budget=7, logprobs=1)
    assert (rated.reasoning, rated.text, rated.tokens) == (plain.reasoning, plain.text, plain.tokens)
    assert rated.logprobs == rated.tokens


async def test_max_tokens_may_end_the_reasoning_first(client: WorkerClient) -> None:
    (answer,) = await ask(client, reasoning_budget=20, max_tokens=12)
    assert (answer.reasoning_tokens, answer.text) == (12, "")
    assert answer.end is not None
    assert answer.end.reason == pb.MAX_PREDICTED_TOKENS_REACHED


async def test_a_stop_string_delays_no_budget(client: WorkerClient) -> None:
    """Text that may begin a stop string is held back from the client, not from the budget."""
    (plain,) = await ask(client, reasoning_budget=7)
    (answer,) = await ask(client, reasoning_budget=7, stop=[plain.reasoning[-1] + "never written"])
    assert (answer.reasoning, answer.text, answer.reasoning_tokens) == (plain.reasoning, plain.text, 7)


async def test_a_message_precedes_the_end_and_is_a_part_of_the_budget(client: WorkerClient) -> None:
    message = "\nI have to answer now."
    (answer,) = await ask(client, output=OutputFormat(budget_message=message), reasoning_budget=20, ignore_eos=True)
    assert answer.reasoning_tokens == 20
    assert answer.reasoning.endswith(message)
    assert answer.text
    (short,) = await ask(client, output=OutputFormat(budget_message=message), reasoning_budget=3)
    assert short.reasoning_tokens == 3
    assert message not in short.reasoning


@pytest.mark.parametrize("budget", [0, 5])
async def test_reasoning_that_the_model_begins_ends_and_does_not_begin_again(
    client: WorkerClient, spec: LaunchSpec, budget: int
) -> None:
    """A bias makes the model begin its reasoning at every opportunity."""
    start = await token_of(client, spec, START)
    end = await token_of(client, spec, END)
    sampling = {"logit_bias": {start: 100.0, end: -100.0}, "repeat_penalty": 1.0, "ignore_eos": True}
    (without,) = await ask(client, CHAT + "<|im_start|>assistant\n", MARKS, **sampling)
    assert without.text == ""
    (answer,) = await ask(client, CHAT + "<|im_start|>assistant\n", MARKS, reasoning_budget=budget, **sampling)
    assert answer.reasoning_tokens == budget
    assert answer.text
    assert START not in answer.text


async def test_calls_that_a_grammar_requires_follow_the_reasoning(client: WorkerClient) -> None:
    tools = Tools([Tool("get_time", "The time of a zone.", CLOCK)], ToolChoice.REQUIRED, one_at_a_time=True)
    (answer,) = await ask(client, tools=tools, reasoning_budget=10, max_tokens=100)
    assert answer.reasoning_tokens == 10
    assert answer.reasoning
    jsonschema.validate(json.loads(answer.arguments), CLOCK)
