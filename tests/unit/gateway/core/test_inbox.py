import asyncio

import pytest

from atelier.errors import ContextLengthExceeded, WorkerLost
from atelier.generation_types import Finished, Statistics, StopReason
from gateway.core.events import Delta, Event, PromptProgress, TokenLogprob
from gateway.core.inbox import PARTS_KEPT, Inbox

END = Finished(0, StopReason.EOS_FOUND, None, Statistics())


async def test_unread_text_is_merged_into_one_delta_for_each_choice() -> None:
    inbox = Inbox(1)
    for number in range(3 * PARTS_KEPT):
        inbox.add_text(number % 2, "ab"[number % 2], 1)
    inbox.add_end(END)
    assert await inbox.take() == [Delta(0, "a" * 384), Delta(1, "b" * 384), END]


async def test_a_slow_client_causes_few_buffered_pieces() -> None:
    inbox = Inbox(1)
    for _ in range(100_000):
        inbox.add_text(0, "x", 1)
    assert len(inbox._texts[0]) < PARTS_KEPT


async def test_text_before_an_error_is_not_lost() -> None:
    inbox = Inbox(1)
    inbox.add_text(0, "x", 1)
    inbox.fail(WorkerLost())
    assert await inbox.take() == [Delta(0, "x")]
    with pytest.raises(WorkerLost):
        await inbox.take()


async def test_an_incomplete_code_point_does_not_wake_the_reader() -> None:
    inbox = Inbox(1)
    taking = asyncio.ensure_future(inbox.take())
    await asyncio.sleep(0)
    inbox.add_text(0, "", 1)
    await asyncio.sleep(0)
    assert not taking.done()
    inbox.add_text(0, "é", 1)
    assert await taking == [Delta(0, "é")]


async def test_every_prompt_must_be_accepted() -> None:
    inbox = Inbox(2)
    waiting = asyncio.ensure_future(inbox.wait_accepted())
    inbox.accept(3)
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.accept(4)
    await waiting
    assert inbox.prompt_tokens == 7


async def test_a_rejection_is_raised_in_the_waiting_task() -> None:
    inbox = Inbox(1)
    waiting = asyncio.ensure_future(inbox.wait_accepted())
    await asyncio.sleep(0)
    inbox.fail(ContextLengthExceeded())
    with pytest.raises(ContextLengthExceeded):
        await waiting


async def test_log_probabilities_arrive_with_their_choices_text_or_alone() -> None:
    inbox = Inbox(1)
    first, second = TokenLogprob(b"a", -1.0), TokenLogprob(b"\xc3", -2.0)
    inbox.add_text(0, "a", 1)
    inbox.add_logprobs(0, [first])
    inbox.add_text(1, "b", 1)
    inbox.add_text(0, "", 1)
    inbox.add_logprobs(0, [second])
    assert await inbox.take() == [Delta(0, "a", [first, second]), Delta(1, "b")]
    inbox.add_logprobs(1, [second])
    assert await inbox.take() == [Delta(1, "", [second])]


async def test_only_the_latest_progress_of_a_prompt_is_kept_and_it_precedes_text() -> None:
    inbox = Inbox(2)
    inbox.accept(8)
    inbox.accept(4)
    inbox.add_text(2, "x", 1)
    for done in (2, 4, 6, 6):
        inbox.add_progress(0, 8, 1, done)
    inbox.add_progress(2, 4, 0, 4)
    *progress, text = await inbox.take()
    assert [facts(each) for each in progress] == [(0, 8, 1, 6), (2, 4, 0, 4)]
    assert text == Delta(2, "x")


async def test_progress_without_news_does_not_wake_the_reader() -> None:
    inbox = Inbox(1)
    inbox.add_progress(0, 8, 0, 8)
    await inbox.take()
    taking = asyncio.ensure_future(inbox.take())
    await asyncio.sleep(0)
    inbox.add_progress(0, 8, 0, 4)  # of another choice of the same prompt
    await asyncio.sleep(0)
    assert not taking.done()
    inbox.add_end(END)
    assert await taking == [END]


def facts(event: Event) -> tuple[int, int, int, int]:
    assert isinstance(event, PromptProgress)
    return event.choice, event.prompt_tokens, event.cached_tokens, event.done_tokens
