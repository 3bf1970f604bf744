"""Models whose cache cannot be cut anywhere: their greedy texts are the same cold, warm, from a checkpoint, in company.

In 32 bits without flash attention: the cells of a window are added in the order in which they lie, so that sums differ
by rounding. The prompts are such that this decides between no two tokens.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.models.gemma import gemma_file
from tests.support.models.network_shapes import TINY_HYBRID, TINY_RECURRENT, TINY_SLIDING
from tests.support.models.random_model import write_random_model
from tests.support.models.starter_model import starter_file
from tests.support.worker.local_engine import LocalCall, LocalEngine
from worker.engine.interface import ChatPrompt

pytestmark = pytest.mark.system

GEMMA = (  # the base model has no template
    "{% for message in messages %}<start_of_turn>{{ message.role }}\n{{ message.content }}<end_of_turn>\n{% endfor %}"
    "<start_of_turn>model\n"
)
ROLES = ("user", "assistant")
TOKENS = 12
GREEDY = {"temperature": 0.0, "ignore_eos": True}
EXACT = {"kv_type": "f32", "flash_attention": False}
LOAD = {"context_length": 1024, "parallel": 4, "device": "cpu", "threads": 1, **EXACT}
SHAPES = {"sliding": TINY_SLIDING, "recurrent": TINY_RECURRENT, "hybrid": TINY_HYBRID}


def table(name: str, lines: int) -> str:
    """Lines that follow from one another, so that a model knows how they go on."""
    return "\n".join(f"{name} {number} comes after {name} {number - 1}." for number in range(1, lines + 1))


FIRST = (table("house", 30),)
SECOND = (*FIRST, table("tree", 2), table("boat", 4))  # the next turn
OTHER = (*SECOND[:-1], table("river", 4))  # another question after the same answer
UNRELATED = (table("bridge", 20),)


@pytest.fixture(scope="module", params=["gemma", *SHAPES])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "gemma":
        return gemma_file()
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", SHAPES[request.param], starter_file())


@pytest.fixture
def engine(model: Path) -> Iterator[LocalEngine]:
    with closing(LocalEngine(model, **LOAD)) as engine:
        yield engine


@pytest.fixture(scope="module")
def cold(model: Path) -> dict[tuple[str, ...], str]:
    """The texts of an engine that has nothing to reuse."""
    texts = {}
    for chat in (FIRST, SECOND, OTHER, UNRELATED):
        with closing(LocalEngine(model, **LOAD)) as engine:
            texts[chat] = complete(engine, chat).text
    return texts


def submit(engine: LocalEngine, chat: tuple[str, ...]) -> LocalCall:
    messages = [{"role": ROLES[at % 2], "content": text} for at, text in enumerate(chat)]
    template = GEMMA if engine.chat_template is None else None
    return engine.submit(ChatPrompt(messages, template), max_tokens=TOKENS, sampling=GREEDY)


def complete(engine: LocalEngine, chat: tuple[str, ...]) -> LocalCall:
    call = submit(engine, chat)
    engine.finish()
    return call


def reused(call: LocalCall) -> float:
    """The share of the prompt that was not computed."""
    assert call.end is not None
    return call.end.cached_tokens / call.end.prompt_tokens


def test_a_chat_goes_on_and_branches_from_checkpoints(engine: LocalEngine, cold: dict[tuple[str, ...], str]) -> None:
    assert complete(engine, FIRST).text == cold[FIRST]
    for chat, least in ((FIRST, 0.9), (SECOND, 0.7), (OTHER, 0.7), (FIRST, 0.9)):
        call = complete(engine, chat)
        assert call.text == cold[chat]
        assert reused(call) >= least


def test_chats_that_run_together_share_checkpoints(engine: LocalEngine, cold: dict[tuple[str, ...], str]) -> None:
    calls = {UNRELATED: submit(engine, UNRELATED)}
    for chat in (SECOND, OTHER, FIRST):
        for _ in range(3):
            engine.step()
        calls[chat] = submit(engine, chat)
    engine.finish()
    assert {chat: call.text for chat, call in calls.items()} == cold
    assert reused(calls[OTHER]) >= 0.7
