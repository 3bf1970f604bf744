"""From a request to what the engine's thread needs: tokenised, checked against the context, its constraint compiled."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from atelier.errors import ContextLengthExceeded
from atelier.generation_types import NOTHING_DROPPED, Dropped
from atelier.lora_adapters import Adapter, Scales
from atelier.prompt_end import PromptEnd
from atelier.settings.groups import STOP_AT_LIMIT, TRUNCATE_MIDDLE, UNLIMITED
from atelier.submission import Echo
from worker.engine.constraint.constraint_compiler import ConstraintCompiler
from worker.engine.constraint.constraint_matcher import Matcher
from worker.engine.constraint.tool_constraint import constrain_output
from worker.engine.interface import ChatPrompt, Prompt, Request
from worker.engine.model.decode_run import Image
from worker.engine.model.lora import choose_scales
from worker.engine.model.projector import ImageChunk, Projector
from worker.engine.model.vocabulary import Vocabulary
from worker.engine.prompt.checkpoint_places import checkpoint_places
from worker.engine.prompt.context_overflow import Fitted, fit, prompt_rooms
from worker.engine.prompt.final_message import continued_part
from worker.engine.prompt.prompt_slices import Slicing
from worker.engine.prompt.prompt_tokenizer import PromptTokenizer, too_long
from worker.engine.sampling.reasoning_budget import ReasoningLimit, limit_reasoning
from worker.output.completion_parts import OutputParser, PlainText
from worker.output.parser_choice import PLAIN_TEXT, ParserChoice, after_prompt, choose_parser, within
from worker.output.reasoning_section import ReasoningSection

LAST_TOKENS = 16  # of a prompt: enough for any mark that it may end with


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be computed."""

    request: Request
    tokens: list[int]
    limit: int  # most tokens to predict
    limited_by_context: bool  # the limit is the context's end, not the request's max_tokens
    matcher: Matcher | None
    slices: list[int]  # ends of the prompt's slices
    scales: Scales  # of the adapters
    reusable: bool  # such a prompt's slices are kept for others
    places: list[int] = field(default_factory=list)  # ends of slices after which a checkpoint is made
    dropped: Dropped = NOTHING_DROPPED  # from the prompt, to make it fit
    create_parser: Callable[[], OutputParser] = PlainText  # of a completion
    marks: frozenset[int] = frozenset()  # control tokens that the parser must see
    reasoning_ends: tuple[str, ...] = ()  # texts that may end a completion's reasoning; none: it has no reasoning
    reasoning_limit: ReasoningLimit | None = None
    image_chunks: Mapping[int, ImageChunk] = field(default_factory=dict)  # images, by where they start
    images: Mapping[int, Image] = field(default_factory=dict)  # the same as embeddings, once they are encoded


class Preparer:
    """Prepares requests, in a thread beside the decode loop: it shares only the vocabulary and the projector."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        template: str | None,
        context_length: int,
        slicing: Slicing,
        adapters: Sequence[Adapter] = (),
        *,
        reusable: bool,
        checkpoints: int = 0,
        projector: Projector | None = None,
    ) -> None:
        """`checkpoints`: the most that a prompt has; 0 where the cache can be cut at any token."""
        self.tokenizer = PromptTokenizer(vocabulary, template, context_length, projector)
        self._vocabulary = vocabulary
        self._context_length = context_length
        self._slicing = slicing
        self._adapters = adapters
        self._reusable = reusable
        self._checkpoints = checkpoints
        self._projector = projector
        self._compiler = ConstraintCompiler(vocabulary)

    def prepare(self, request: Request) -> Prepared:
        """The request, ready to run. Raises InvalidRequest, which says what to change."""
        scales = choose_scales(request.lora, self._adapters) if request.lora or self._adapters else ()
        bound = request.sampling.max_tokens
        required = None if request.max_tokens_is_bound else bound  # there has to be room for so many
        prompt = request.prompt
        if isinstance(prompt, ChatPrompt):
            prompt = self.tokenizer.settle(prompt)
        fitted = self._fit(prompt, request.sampling.context_overflow, required)
        tokens = fitted.tokens
        image_chunks = self.tokenizer.take_image_chunks(tokens)
        room = self._room(len(tokens), required)
        choice, matcher = self._parser_choice(prompt, tokens), None
        if request.constraint is not None or choice.tools is not None:
            choice, constraint = constrain_output(choice, request.constraint, self._vocabulary)
            matcher = self._compiler.compile(constraint) if constraint is not None else None
        section = choice.reasoning_section
        slices = self._slicing.cut(tokens, {start: len(chunk.cells) for start, chunk in image_chunks.items()})
        return Prepared(
            request=request,
            tokens=tokens,
            limit=0 if request.echo is Echo.ALONE else room if bound is None else min(bound, room),
            limited_by_context=bound is None or bound > room,
            matcher=matcher,
            slices=slices,
            scales=scales,
            reusable=self._reusable,
            places=checkpoint_places(tokens, slices[:-1], self._vocabulary.is_control, self._checkpoints),
            dropped=fitted.dropped,
            create_parser=choice.create_parser,
            marks=frozenset() if choice.is_plain else self._vocabulary.marks_in(choice.marks),
            reasoning_ends=section.ends if section else (),
            reasoning_limit=self._reasoning_limit(request, section) if section else None,
            image_chunks=image_chunks,
        )

    def encode(self, prepared: Prepared) -> Prepared:
        """The same with its images encoded. Takes long; may be called on another thread. Raises DecodeFailed."""
        assert self._projector is not None
        return replace(prepared, images=self._projector.encode(prepared.image_chunks))

    def _parser_choice(self, prompt: Prompt, tokens: Sequence[int]) -> ParserChoice:
        """How the completion of these tokens is parsed."""
        if not isinstance(prompt, ChatPrompt):
            return PLAIN_TEXT
        choice = choose_parser(prompt.output, self.tokenizer.template(prompt), prompt.tools)
        if prompt.end is PromptEnd.CONTINUED_MESSAGE:
            return within(choice, continued_part(prompt))
        if choice.is_plain:
            return PLAIN_TEXT
        end = b"".join(self._vocabulary.mark(token) for token in tokens[-LAST_TOKENS:] if token >= 0)
        return after_prompt(choice, end.decode(errors="replace"))

    def _reasoning_limit(self, request: Request, section: ReasoningSection) -> ReasoningLimit | None:
        budget = request.sampling.reasoning_budget
        if budget is None or budget == UNLIMITED or not isinstance(request.prompt, ChatPrompt):
            return None
        return limit_reasoning(budget, section, request.prompt.output.budget_message, self._vocabulary)

    def _fit(self, prompt: Prompt, policy: str, max_tokens: int | None) -> Fitted:
        """The whole prompt, or where the policy allows it, as much as there is room for."""
        tokenize = functools.partial(self.tokenizer.tokenize, add_special=True)
        if policy == STOP_AT_LIMIT:
            return Fitted(tokenize(prompt))
        rooms = prompt_rooms(self._context_length, max_tokens)
        return fit(prompt, rooms, middle=policy == TRUNCATE_MIDDLE, bos=self._vocabulary.bos, tokenize=tokenize)

    def _room(self, prompt_tokens: int, max_tokens: int | None) -> int:
        """Tokens left for the completion. Raises ContextLengthExceeded if there are none, or fewer than max_tokens."""
        room = self._context_length - prompt_tokens
        if room < 1:
            raise too_long(str(prompt_tokens), self._context_length)
        if max_tokens is not None and max_tokens > room:
            raise ContextLengthExceeded(
                f"The prompt's {prompt_tokens} tokens and max_tokens {max_tokens} are more than the context of "
                f"{self._context_length}: lower max_tokens to {room}, or leave it out.",
                param="max_tokens",
            )
        return room

    def close(self) -> None:
        self._compiler.close()
