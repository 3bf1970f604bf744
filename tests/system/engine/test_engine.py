"""The engine with the real model: one worker process, driven over gRPC."""

import asyncio
import json
from typing import Any

import jsonschema
import pytest

from atelier.launch import LaunchSpec
from protos import inference_pb2 as pb
from tests.support.worker.worker_client import WorkerClient

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "address": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
            },
            "required": ["city", "zip"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "address"],
    "additionalProperties": False,
}
LONG = " ".join(f"Item {number} is a word." for number in range(40))
PROMPTS = [
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Count from one to ten.",
    "Name three colours.",
    f"{LONG} What was the first item?",
    "Why is the sky blue?",
    "Say hello in Spanish.",
    "What is two plus two?",
]


async def answer(client: WorkerClient, call: int, text: str, **sampling: Any) -> tuple[str, pb.Finished]:
    await client.submit(call, text, sampling={"max_tokens": 24, **sampling})
    texts, ends = await client.finish(call)
    assert ends[0].HasField("finished"), ends[0].failed.error.message
    return texts[0], ends[0].finished


async def test_a_text_is_the_same_alone_beside_others_and_with_a_warm_cache(client: WorkerClient) -> None:
    alone = [(await answer(client, i, prompt, temperature=0))[0] for i, prompt in enumerate(PROMPTS)]
    together = await asyncio.gather(
        *(answer(client, 100 + i, prompt, temperature=0) for i, prompt in enumerate(PROMPTS))
    )
    again = await asyncio.gather(*(answer(client, 200 + i, prompt, temperature=0) for i, prompt in enumerate(PROMPTS)))
    assert [text for text, _ in together] == alone
    assert [text for text, _ in again] == alone


async def test_a_repeated_prompt_is_reused_from_the_cache(client: WorkerClient) -> None:
    prompt = f"{LONG} Which item is the last one?"
    first, _ = await answer(client, 1, prompt, temperature=0)
    second, finished = await answer(client, 2, prompt, temperature=0)
    assert second == first
    statistics = finished.statistics
    assert statistics.cached_tokens >= statistics.prompt_tokens - 128


async def test_the_same_seed_gives_the_same_text(client: WorkerClient) -> None:
    settings = {"temperature": 1.0, "seed": 7, "max_tokens": 32}
    first, _ = await answer(client, 1, "Tell me a story.", **settings)
    second, _ = await answer(client, 2, "Tell me a story.", **settings)
    other, _ = await answer(client, 3, "Tell me a story.", **{**settings, "seed": 8})
    assert first == second != other


async def test_choices_of_one_call_differ_and_are_reproducible(client: WorkerClient) -> None:
    drawn = []
    for call in (1, 2):
        await client.submit(call, "Tell me a story.", choices=3, sampling={"seed": 5, "max_tokens": 16})
        drawn.append((await client.finish(call, choices=3))[0])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3


async def test_structured_output_parses_and_validates(client: WorkerClient) -> None:
    for call, temperature in enumerate((0.0, 0.8, 1.5)):
        await client.submit(
            call,
            "Describe a person as JSON.",
            json_schema=json.dumps(PERSON),
            sampling={"temperature": temperature, "seed": 3, "max_tokens": 200},
        )
        texts, ends = await client.finish(call)
        assert ends[0].finished.reason == pb.EOS_FOUND
        jsonschema.validate(json.loads(texts[0]), PERSON)


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "string", "minLength": 5, "maxLength": 2}',
        '{"$ref": "https://example.org/schema"}',
        '{"type": "string", "pattern": "("}',
        '{"type": "nope"}',
        "not json",
        "false",
        "[" * 60_000,
        '{"properties": ' * 500 + "{}" + "}" * 500,
    ],
)
async def test_an_impossible_schema_is_rejected_and_the_next_call_works(client: WorkerClient, schema: str) -> None:
    await client.submit(1, "hi", json_schema=schema)
    failed = await client.next(1)
    assert failed.failed.error.code == "invalid_json_schema"
    assert (await answer(client, 2, "hi", max_tokens=2))[1].statistics.predicted_tokens > 0


async def test_a_prompt_beyond_the_context_is_rejected_and_the_next_call_works(client: WorkerClient) -> None:
    await client.submit(1, "word " * 1500)
    assert (await client.next(1)).failed.error.code == "context_length_exceeded"
    await client.submit(2, "hi", sampling={"max_tokens": 1020})
    failed = await client.next(2)
    assert failed.failed.error.param == "max_tokens"
    await answer(client, 3, "hi", max_tokens=2)


async def test_non_ascii_text_is_emitted_whole(client: WorkerClient) -> None:
    text = "🎉🚀 日本語 héllo"
    await client.submit(1, "Anything.", json_schema=json.dumps({"enum": [text]}))
    texts, _ = await client.finish(1)
    assert json.loads(texts[0]) == text
    assert sum(event.delta.tokens for step in client.steps for event in step.events) > len(text)


async def test_a_stop_string_ends_the_text_before_it(client: WorkerClient) -> None:
    free, _ = await answer(client, 1, "Count from one to ten.", temperature=0)
    stop = free[len(free) // 2 : len(free) // 2 + 4]
    await client.submit(2, "Count from one to ten.", sampling={"temperature": 0, "max_tokens": 24, "stop": [stop]})
    texts, ends = await client.finish(2)
    assert texts[0] == free[: free.index(stop)]
    assert (ends[0].finished.reason, ends[0].finished.stop_string) == (pb.STOP_STRING_FOUND, stop)


async def test_max_tokens_is_respected_exactly(client: WorkerClient) -> None:
    _, finished = await answer(client, 1, "Tell me a long story.", max_tokens=13, ignore_eos=True)
    assert finished.reason == pb.MAX_PREDICTED_TOKENS_REACHED
    assert finished.statistics.predicted_tokens == 13


async def test_a_completion_ends_where_the_context_does(client: WorkerClient) -> None:
    await client.submit(1, text="word " * 1000, sampling={"ignore_eos": True})
    _, ends = await client.finish(1)
    finished = ends[0].finished
    assert finished.reason == pb.CONTEXT_LENGTH_REACHED
    assert finished.statistics.prompt_tokens + finished.statistics.predicted_tokens == 1024


async def token_of(client: WorkerClient, spec: LaunchSpec, text: str) -> int:
    request = pb.TokenizeRequest(instance_id=spec.instance_id, text=text, add_special=False)
    token, *more = (await client.stub.Tokenize(request, metadata=client.metadata)).ids
    assert not more
    return token


async def test_logit_bias_can_force_and_forbid_a_token(client: WorkerClient, spec: LaunchSpec) -> None:
    first: dict[str, Any] = {"temperature": 0, "max_tokens": 1, "repeat_penalty": 1.0}
    banana = await token_of(client, spec, " banana")
    forced, _ = await answer(client, 1, "hi", **first, logit_bias={banana: 100.0})
    assert forced == " banana"
    usual, _ = await answer(client, 2, "Say banana.", **first)
    unusual, _ = await answer(
        client, 3, "Say banana.", **first, logit_bias={await token_of(client, spec, usual): -100.0}
    )
    assert unusual not in {"", usual}


async def test_penalties_keep_a_text_from_repeating_itself(client: WorkerClient) -> None:
    prompt, neutral = "a b a b a b a b a b a b a b", {"temperature": 0, "ignore_eos": True, "repeat_penalty": 1.0}
    for name, value in {"repeat_penalty": 1.8, "frequency_penalty": 2.0, "presence_penalty": 2.0}.items():
        free, _ = await answer(client, 1, prompt, **neutral)
        kept, _ = await answer(client, 2, prompt, **{**neutral, name: value})
        assert kept != free, name


async def test_a_cancelled_call_frees_its_sequence_at_once(client: WorkerClient, spec: LaunchSpec) -> None:
    await client.submit(1, "Tell me a very long story.", sampling={"ignore_eos": True})
    while not (await client.next(1)).HasField("delta"):
        pass
    await client.cancel(1)
    await idle(client, spec)


async def test_a_call_cancelled_in_prefill_is_freed(client: WorkerClient, spec: LaunchSpec) -> None:
    await client.submit(1, "unusual " * 450)
    assert (await client.next(1)).HasField("accepted")
    before = await steps(client, spec)
    await client.cancel(1)
    await idle(client, spec)
    assert await steps(client, spec) <= before + 3  # of fifteen slices


async def steps(client: WorkerClient, spec: LaunchSpec) -> int:
    """The number of decode steps of the worker."""
    statuses = client.stub.Supervise(pb.SuperviseRequest(instance_id=spec.instance_id), metadata=client.metadata)
    status = await anext(aiter(statuses))
    statuses.cancel()
    return status.steps


async def idle(client: WorkerClient, spec: LaunchSpec) -> None:
    """Returns when the worker reports no running sequence."""
    async with asyncio.timeout(10):
        statuses = client.stub.Supervise(pb.SuperviseRequest(instance_id=spec.instance_id), metadata=client.metadata)
        async for status in statuses:
            if status.active == status.queued == 0:
                return


async def test_a_long_prompt_does_not_block_a_running_stream(client: WorkerClient) -> None:
    await client.submit(1, "Tell me a long story.", sampling={"ignore_eos": True, "max_tokens": 400})
    while not (await client.next(1)).HasField("delta"):
        pass
    await client.submit(2, "peculiar " * 300, sampling={"max_tokens": 1})
    assert (await client.next(2)).HasField("accepted")
    seen = len(client.steps)  # the long prompt is computed from here on
    finish_long = asyncio.create_task(client.finish(2))
    await finish_long
    assert sum(event.call == 1 for step in client.steps[seen:] for event in step.events) >= 4
    await client.cancel(1)


async def test_eight_streams_run_concurrently(client: WorkerClient) -> None:
    for call in range(8):
        await client.submit(call, PROMPTS[call % 4], sampling={"ignore_eos": True, "max_tokens": 32})
    ends = await asyncio.gather(*(client.finish(call) for call in range(8)))
    assert all(end[0].finished.statistics.predicted_tokens == 32 for _, end in ends)
    assert any(len({event.call for event in step.events if event.HasField("delta")}) == 8 for step in client.steps)


async def test_embeddings_have_unit_length_and_similar_texts_are_close(client: WorkerClient, spec: LaunchSpec) -> None:
    texts = ["The cat sat on the mat.", "A cat is sitting on a mat.", "Stocks fell sharply in New York."]
    request = pb.EmbedRequest(instance_id=spec.instance_id, texts=texts)
    reply = await client.stub.Embed(request, metadata=client.metadata)
    cat, like, other = (embedding.values for embedding in reply.embeddings)
    assert sum(v * v for v in cat) == pytest.approx(1, abs=1e-5)
    assert dot(cat, like) > dot(cat, other)


def dot(a: Any, b: Any) -> float:
    return float(sum(x * y for x, y in zip(a, b, strict=True)))


async def test_the_pieces_of_tokens_form_the_text(client: WorkerClient, spec: LaunchSpec) -> None:
    text = "Grüße, 世界! 🎉"
    request = pb.TokenizeRequest(instance_id=spec.instance_id, text=text, add_special=False)
    reply = await client.stub.Tokenize(request, metadata=client.metadata)
    assert b"".join(reply.pieces).decode() == text


async def test_a_prompt_may_be_given_as_tokens(client: WorkerClient, spec: LaunchSpec) -> None:
    request = pb.TokenizeRequest(instance_id=spec.instance_id, text="The capital of France is", add_special=False)
    ids = (await client.stub.Tokenize(request, metadata=client.metadata)).ids
    settings = {"temperature": 0, "max_tokens": 8}
    await client.submit(1, tokens=pb.Tokens(ids=ids), sampling=settings)
    await client.submit(2, text="The capital of France is", sampling=settings)
    assert (await client.finish(1))[0] == (await client.finish(2))[0]
    await client.submit(3, tokens=pb.Tokens(ids=[10**6]))
    assert (await client.next(3)).failed.error.code == "invalid_value"


async def test_prompt_tokens_have_the_log_probabilities_they_had_when_generated(client: WorkerClient) -> None:
    prompt = list(range(100, 130))
    await client.submit(900, tokens=pb.Tokens(ids=prompt), sampling={"temperature": 0, "max_tokens": 24}, logprobs=1)
    generated = await ratings(client, 900)
    tokens = [*prompt, *(each.id for each in generated)]
    await client.submit(901, tokens=pb.Tokens(ids=tokens), echo=pb.ECHO_ALONE, logprobs=1, sampling={"max_tokens": 1})
    rated = await ratings(client, 901)
    assert [each.id for each in rated] == tokens
    assert [each.HasField("logprob") for each in rated] == [False] + [True] * (len(tokens) - 1)
    again = rated[len(prompt) :]
    assert [each.logprob for each in again] == pytest.approx([each.logprob for each in generated], abs=0.05)
    assert [each.top[0].id for each in again] == [each.top[0].id for each in generated]


async def ratings(client: WorkerClient, call: int) -> list[pb.TokenLogprob]:
    """The log-probabilities that a call returns: of its prompt and of its completion."""
    found: list[pb.TokenLogprob] = []
    while not (event := await client.next(call)).HasField("finished"):
        assert not event.HasField("failed"), event.failed.error.message
        found += [*event.echoed.logprobs, *event.delta.logprobs[: event.delta.tokens]]
    return found
