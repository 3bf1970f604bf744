"""A batcher on a fake context: it takes calls and collects their tokens."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from atelier.errors import AtelierError
from atelier.generation_types import Finished
from atelier.settings.groups import Inference
from atelier.submission import Echo
from tests.support.worker.fake_context import FakeContext, FakeVocabulary
from worker.engine.batching.batch_plan import BatchLimits
from worker.engine.batching.batcher import Batcher
from worker.engine.batching.sequence import Sequence, Ticket
from worker.engine.cache.cache_tier import CacheTier
from worker.engine.cache.checkpoints import Checkpoints
from worker.engine.cache.ram_limit import RamLimit
from worker.engine.cache.saved_states import SavedStates
from worker.engine.cache.state_directory import StateDirectory
from worker.engine.constraint.constraint_matcher import Matcher
from worker.engine.interface import (
    NO_DEADLINES,
    Deadlines,
    Delta,
    Echoed,
    Event,
    Failed,
    PromptProgress,
    Request,
    Source,
    TokenLogprob,
)
from worker.engine.model.batch_invariance import Grouping
from worker.engine.model.decode_costs import FIRST_TOKEN_SECONDS, Costs
from worker.engine.prompt.checkpoint_places import checkpoint_places
from worker.engine.prompt.prompt_preparation import Prepared
from worker.engine.prompt.prompt_slices import BLOCKS, Slicing
from worker.engine.sampling.reasoning_budget import ReasoningLimit
from worker.engine.speculation.draft_model import DraftModel
from worker.engine.speculation.drafting import Drafter
from worker.engine.speculation.prompt_lookup import LookupDrafter
from worker.engine.speculation.speculation import Speculation
from worker.engine.speculation.step_times import StepTimes
from worker.output.parser_choice import PLAIN_TEXT, ParserChoice

GRID = 64
BORDER = 1  # the token before and after messages
SLICING = Slicing(GRID, is_border=lambda token: token == BORDER)
SEED = 7
USUAL_LIMITS = BatchLimits(batch_size=2048, ubatch_size=512, prefill_pause=2.0)
VOCABULARY: Any = FakeVocabulary()
MOST_STEPS = 2000


class SteadyCosts(Costs):
    """Costs that are set, not measured."""

    token_seconds = 0.001
    step_seconds = 0.05  # prefill beside streams: 100 tokens
    worth_copying = 1
    split_tokens = 0

    def __init__(self, **given: float) -> None:
        vars(self).update(given)

    def decode_seconds(self, tokens: int) -> float:
        return self.step_seconds

    def prompt_rows(self, seconds: float, most: int, depth: int = 0) -> int:
        return max(1, min(most, int(seconds / self.token_seconds)))

    def call(self, decoded: int, read: int, depth: int = 0) -> AbstractContextManager[None]:
        return nullcontext()


def draft_model(
    context: FakeContext, *, read: int = 2048, room: int = 2048, keep: bool = True, slots: int = 4
) -> DraftModel:
    """A draft model on a fake context, which computes about so many tokens of a text in each step."""
    own: Any = context
    costs = SteadyCosts(step_seconds=read * FIRST_TOKEN_SECONDS)
    return DraftModel(own, slots, VOCABULARY.size, VOCABULARY.is_end, costs, room=room, keep=keep)


@dataclass(slots=True)
class Call:
    """A submitted call and its results."""

    ticket: Ticket
    prompt: tuple[int, ...]
    max_tokens: int
    texts: list[str]
    counts: list[int]
    reasonings: list[str]
    logprobs: list[tuple[int, TokenLogprob]] = field(default_factory=list)  # with the choice
    finished: dict[int, Finished] = field(default_factory=dict)
    progress: list[PromptProgress] = field(default_factory=list)
    echoed: list[Echoed] = field(default_factory=list)
    error: AtelierError | None = None

    def cancel(self) -> None:
        self.ticket.cancelled = True

    def tokens(self, choice: int = 0) -> list[int]:
        return [int(number) for number in self.texts[choice].split()]

    def deliver(self, event: Event) -> None:
        """Events after a Failed are ignored, as on a stream."""
        if self.error is not None:
            return
        match event:
            case Delta(choice, text, tokens, logprobs, reasoning):
                assert choice not in self.finished
                self.reasonings[choice] += reasoning
                self.texts[choice] += text
                self.counts[choice] += tokens
                self.logprobs += [(choice, logprob) for logprob in logprobs]
            case Finished(choice):
                assert choice not in self.finished
                assert event.statistics.predicted_tokens == self.counts[choice]
                self.finished[choice] = event
            case Echoed(choice):
                assert not self.counts[choice], "the prompt comes first"
                self.echoed.append(event)
            case PromptProgress():
                self.progress.append(event)
            case Failed(error):
                self.error = error

    @property
    def complete(self) -> bool:
        return len(self.finished) == len(self.texts)


class Batching:
    def __init__(
        self,
        slots: int = 4,
        *,
        reuse: bool = True,
        capacity: int | None = None,
        costs: Costs | None = None,
        exact: bool = False,
        draft_tokens: int = 0,
        drafter: Drafter | None = None,
        mumbles: bool = False,
        limits: BatchLimits = USUAL_LIMITS,
        cache_ram: int = 0,
        directory: StateDirectory | None = None,
        cache_disk: int = 0,
        limit: RamLimit | None = None,
        window: int | None = None,
        checkpoints: int = 4,
    ) -> None:
        """`exact`: results do not depend on the size of a call, which the batcher makes use of.

        `drafter`: proposes up to `draft_tokens` tokens; by default prompt lookup does.
        `cache_ram`, `cache_disk`: bytes of the tier that saves evicted states; `limit` may lower the former.
        `window`: of a context that cannot be cut at any token; each sequence has so many `checkpoints` then.
        """
        self.context = FakeContext(slots, capacity=capacity, rounding=not exact, mumbles=mumbles, window=window)
        context: Any = self.context
        costs = costs or SteadyCosts()
        self.states = SavedStates(cache_ram, cache_disk, whole=window is not None)
        self.checkpoints = Checkpoints(checkpoints, slots) if window is not None else None
        self.tier = CacheTier(context, costs, self.states, directory, limit) if cache_ram or directory else None
        times = StepTimes(costs, joined=exact, unified=capacity is not None)
        self.batcher = Batcher(
            context,
            slots,
            costs,
            reuse=reuse,
            grouping=Grouping(exact, exact),
            limits=limits,
            unified_capacity=capacity,
            speculation=Speculation(drafter or LookupDrafter(), draft_tokens, times) if draft_tokens else None,
            checkpoints=self.checkpoints,
            tier=self.tier,
        )
        self._places = checkpoints if window is not None else 0
        self.calls: list[Call] = []
        self._slots = slots
        self._slicing = BLOCKS if exact else SLICING
        self._reuse = reuse

    def submit(
        self,
        prompt: list[int] | tuple[int, ...],
        *,
        max_tokens: int = 8,
        choices: int = 1,
        key: str = "",
        priority: int = 0,
        deadlines: Deadlines = NO_DEADLINES,
        seed: int = SEED,
        matcher: Matcher | None = None,
        logprobs: int | None = None,
        echo: Echo | None = None,
        progress: bool = False,
        temperature: float = 0.0,
        scales: tuple[float, ...] = (),
        parsed: ParserChoice = PLAIN_TEXT,
        limit: ReasoningLimit | None = None,
        **sampling: Any,
    ) -> Call:
        """`parsed`: how the completions are. `limit`: of their reasoning."""
        section = parsed.reasoning_section
        request = Request(
            list(prompt),
            Inference(temperature=temperature, max_tokens=max_tokens, **sampling),
            choices=choices,
            logprobs=logprobs,
            echo=echo,
            prompt_progress=progress,
            fairness_key=key,
            priority=priority,
        )
        slices = self._slicing.cut(prompt)
        prepared = Prepared(
            request,
            list(prompt),
            0 if echo is Echo.ALONE else max_tokens,
            limited_by_context=False,
            matcher=matcher,
            slices=slices,
            scales=scales,
            reusable=self._reuse,
            places=checkpoint_places(prompt, slices[:-1], lambda token: token == BORDER, self._places),
            create_parser=parsed.create_parser,
            reasoning_ends=section.ends if section else (),
            reasoning_limit=limit,
        )
        ticket = Ticket(Source(0, len(self.calls)), choices, deadlines)
        call = Call(ticket, tuple(prompt), max_tokens, [""] * choices, [0] * choices, [""] * choices)
        self.calls.append(call)
        self.batcher.add([Sequence(ticket, number, prepared, seed, VOCABULARY) for number in range(choices)])
        return call

    def step(self) -> None:
        for source, event in self.batcher.step():
            self.calls[source.call].deliver(event)

    def finish(self) -> None:
        for _ in range(MOST_STEPS):
            if self.batcher.idle:
                return
            self.step()
        raise AssertionError("the calls do not end")

    def run(self, prompt: list[int] | tuple[int, ...], **options: Any) -> list[int]:
        """The tokens of a call, once everything is done."""
        call = self.submit(prompt, **options)
        self.finish()
        assert call.complete
        return call.tokens()

    def free_slots(self) -> int:
        """How many calls can start at once: counted by starting them on an idle batcher."""
        assert self.batcher.idle
        calls = [self.submit([number] * 2, max_tokens=1) for number in range(self._slots + 1)]
        before = len(self.context.calls)
        self.step()
        started = len({slot for call in self.context.calls[before:] for slot in call.slots})
        self.finish()
        assert all(call.complete for call in calls)
        return started


@lru_cache(maxsize=4096)
def solo(
    prompt: tuple[int, ...],
    max_tokens: int = 8,
    choice: int = 0,
    temperature: float = 0.0,
    exact: bool = False,
    mumbles: bool = False,
    plainly: bool = False,
) -> list[int]:
    """A choice's tokens where nothing else runs or has run. `plainly`: without any penalty."""
    batching = Batching(1, reuse=False, exact=exact, mumbles=mumbles)
    sampling = {"repeat_penalty": 1.0} if plainly else {}
    return batching.run(prompt, max_tokens=max_tokens, seed=SEED + choice, temperature=temperature, **sampling)
