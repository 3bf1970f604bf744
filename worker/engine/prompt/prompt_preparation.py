"""From a request to what the engine's thread needs: rendered, tokenised, checked, compiled.

Runs in a thread of its own, beside the decode loop: it reads the vocabulary and nothing else.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from atelier.adapters import Adapter, Scales
from atelier.errors import ContextLengthExceeded, InvalidRequest, InvalidTemplate
from atelier.settings.groups import STOP_AT_LIMIT, TRUNCATE_MIDDLE
from atelier.submission import Echo, definition
from atelier.templates.chat_template import ChatTemplate
from worker.engine.chat_images import decode_picture, with_images_written
from worker.engine.constraint.constraint_compiler import ConstraintCompiler
from worker.engine.constraint.constraint_matcher import Matcher
from worker.engine.constraint.tool_constraint import constrain_output
from worker.engine.interface import NOTHING, ChatPrompt, Dropped, InfillPrompt, Prompt, Request
from worker.engine.model.decode_run import Image
from worker.engine.model.lora import choose_scales
from worker.engine.model.projector import Projector, Sight
from worker.engine.model.vocabulary import Vocabulary
from worker.engine.prompt.context_overflow import Fitted, fit, prompt_rooms
from worker.engine.prompt.prompt_slices import Slicing
from worker.output.completion_parts import OutputParser, PlainText
from worker.output.family_detection import detect_family
from worker.output.parser_choice import PLAIN_TEXT, ParserChoice, after_prompt, choose_format, choose_parser
from worker.output.toolless_templates import AFTER, as_plain_chat, with_calls_written

IMAGE = "<image>"  # where people read a prompt
IMAGE_CELL = (2**32 - 1, b"")  # told in place of a token
LAST_TOKENS = 16  # of a prompt, that may hold a mark which the completion goes on after
CERTAINLY_SHORT = 16  # bytes a token: a text of fewer is tokenised without a look at its length


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
    reusable: bool  # the cache of such a prompt may be cut at its slices and gone on from
    dropped: Dropped = NOTHING  # from the prompt, to make it fit
    create_parser: Callable[[], OutputParser] = PlainText  # of a completion
    marks: frozenset[int] = frozenset()  # control tokens that the parser must see
    sights: Mapping[int, Sight] = field(default_factory=dict)  # images, by where they start
    images: Mapping[int, Image] = field(default_factory=dict)  # and as the model reads them, once encoded


class Preparer:
    def __init__(
        self,
        vocabulary: Vocabulary,
        template: str | None,
        context_length: int,
        slicing: Slicing,
        adapters: Sequence[Adapter] = (),
        *,
        reusable: bool,
        projector: Projector | None = None,
    ) -> None:
        self._vocabulary = vocabulary
        self._model_template = template
        self._context_length = context_length
        self._slicing = slicing
        self._adapters = adapters
        self._reusable = reusable
        self._projector = projector
        self._sights: dict[int, Sight] = {}  # of the prompt in work, by their first cell
        self._compiler = ConstraintCompiler(vocabulary)
        self._templates: dict[str, ChatTemplate] = {}

    def prepare(self, request: Request) -> Prepared:
        """The request, ready to run; an InvalidRequest says what to change."""
        self._sights = {}
        scales = choose_scales(request.lora, self._adapters)
        bound = request.sampling.max_tokens
        wanted = None if request.max_tokens_is_bound else bound  # what has to have room
        fitted = self._fit(request.prompt, request.sampling.context_overflow, wanted)
        tokens = fitted.tokens
        sights = self._sights_in(tokens)
        room = self._room(len(tokens), wanted)
        choice, matcher = self._parser_choice(request.prompt, tokens), None
        if request.constraint is not None or choice.tools is not None:
            choice, constraint = constrain_output(choice, request.constraint, self._vocabulary)
            matcher = self._compiler.compile(constraint) if constraint is not None else None
        return Prepared(
            request=request,
            tokens=tokens,
            limit=0 if request.echo is Echo.ALONE else room if bound is None else min(bound, room),
            limited_by_context=bound is None or bound > room,
            matcher=matcher,
            slices=self._slicing.cut(tokens, {start: len(sight.cells) for start, sight in sights.items()}),
            scales=scales,
            reusable=self._reusable,
            dropped=fitted.dropped,
            create_parser=choice.create_parser,
            marks=frozenset() if choice.is_plain else self._vocabulary.marks_in(choice.marks),
            sights=sights,
        )

    def _sights_in(self, tokens: Sequence[int]) -> dict[int, Sight]:
        if not self._sights:
            return {}
        found = {at: self._sights[token] for at, token in enumerate(tokens) if token in self._sights}
        self._sights = {}
        return found

    def encode(self, prepared: Prepared) -> Prepared:
        """With its images as the model reads them. Takes long, and may be called on another thread; DecodeFailed."""
        assert self._projector is not None
        return replace(prepared, images=self._projector.encode(prepared.sights))

    def _parser_choice(self, prompt: Prompt, tokens: Sequence[int]) -> ParserChoice:
        """How the completion of these tokens is parsed."""
        if not isinstance(prompt, ChatPrompt):
            return PLAIN_TEXT
        choice = choose_parser(prompt.output, self._template(prompt), prompt.tools)
        if choice.is_plain:
            return PLAIN_TEXT
        end = b"".join(self._vocabulary.mark(token) for token in tokens[-LAST_TOKENS:] if token >= 0)
        return after_prompt(choice, end.decode(errors="replace"))

    def _fit(self, prompt: Prompt, policy: str, max_tokens: int | None) -> Fitted:
        """The prompt as it is, or where the policy says so, what there is room for."""
        tokenize = functools.partial(self.tokenize, add_special=True)
        if policy == STOP_AT_LIMIT:
            return Fitted(tokenize(prompt))
        rooms = prompt_rooms(self._context_length, max_tokens)
        return fit(prompt, rooms, middle=policy == TRUNCATE_MIDDLE, bos=self._vocabulary.bos, tokenize=tokenize)

    def tokenize(self, prompt: Prompt, *, add_special: bool) -> list[int]:
        """The prompt's tokens, at least one."""
        if isinstance(prompt, list):
            tokens = self._vocabulary.check(prompt)
        elif isinstance(prompt, ChatPrompt):
            tokens = self._tokenize_chat(prompt, add_special=add_special)
        elif isinstance(prompt, InfillPrompt):
            tokens = self._infill(prompt)
        else:
            tokens = self._tokenize_text(prompt, add_special=add_special)
        if not tokens:
            raise InvalidRequest("The prompt is empty.", param="prompt")
        return tokens

    def _tokenize_chat(self, chat: ChatPrompt, *, add_special: bool) -> list[int]:
        text = self._render(chat, self._projector.marker if self._projector else IMAGE)
        has_bos = bool(self._vocabulary.bos_text) and text.startswith(self._vocabulary.bos_text)
        add_special = add_special and not has_bos
        if not chat.images:
            return self._tokenize_text(text, add_special=add_special)
        if self._projector is None:
            raise InvalidRequest(
                "This model sees no images: it has no projector (mmproj) beside it. Use another model, or send text.",
                param="messages",
            )
        pictures = [decode_picture(encoded, number) for number, encoded in enumerate(chat.images, 1)]
        tokens, sights = self._projector.read(text, pictures, add_special=add_special)
        self._sights.update({sight.cells[0]: sight for sight in sights})
        return tokens

    def read_tokens(
        self, prompt: ChatPrompt | str, *, add_special: bool, parse_special: bool
    ) -> list[tuple[int, bytes]]:
        """The tokens, of which there may be none, with what each is written as."""
        self._sights = {}
        if isinstance(prompt, ChatPrompt):
            tokens = self.tokenize(prompt, add_special=add_special)
        else:
            tokens = self._tokenize_text(prompt, add_special=add_special, read_special=parse_special)
        return [(token, self._vocabulary.mark(token)) if token >= 0 else IMAGE_CELL for token in tokens]

    def written(self, tokens: list[int]) -> str:
        """What the tokens are written as together; InvalidRequest when one is not in the vocabulary."""
        pieces = map(self._vocabulary.mark, self._vocabulary.check(tokens))
        return b"".join(pieces).decode(errors="replace")

    def _tokenize_text(self, text: str, *, add_special: bool, read_special: bool = True) -> list[int]:
        """The text's tokens, unless it is certainly too long: tokenising megabytes takes seconds."""
        size = len(text.encode())
        if size > CERTAINLY_SHORT * self._context_length:
            fewest = size // self._vocabulary.longest_piece
            if fewest > self._context_length:
                raise _too_long(f"at least {fewest}", self._context_length)
        return self._vocabulary.tokenize(text, add_special=add_special, read_special=read_special)

    def _infill(self, prompt: InfillPrompt) -> list[int]:
        if (marks := self._vocabulary.infill_tokens) is None:
            raise InvalidRequest("This model was not trained to fill gaps: leave suffix out.", param="suffix")
        before, after, middle = marks
        prefix = self._tokenize_text(prompt.prefix, add_special=False)
        suffix = self._tokenize_text(prompt.suffix, add_special=False)
        return [before, *prefix, after, *suffix, middle]

    def _template(self, chat: ChatPrompt) -> str:
        source = chat.template or self._model_template
        if source is None:
            raise InvalidTemplate(
                "This model has no chat template: use /v1/completions, or a model made for chat.", param="model"
            )
        return source

    def render(self, chat: ChatPrompt) -> str:
        """The prompt that the chat becomes; InvalidTemplate when there is none for it."""
        return self._render(chat, IMAGE)

    def _render(self, chat: ChatPrompt, image: str) -> str:
        """`image`: what stands where an image is."""
        if chat.images:
            chat = replace(chat, messages=with_images_written(chat.messages, lambda _: image))
        source = self._template(chat)
        if not _concerns_tools(chat):
            return self._write(source, chat, chat.messages)
        family = detect_family(source)
        if family.knows_tools:
            messages = chat.messages
            if family.drops_calls:
                messages = with_calls_written(messages, choose_format(chat.output, source))
            return self._write(source, chat, messages)
        try:
            text = self._write(source, chat, as_plain_chat(chat.messages, chat.tools, has_system=True))
        except InvalidTemplate:
            if chat.tools is None:
                raise
            text = ""
        if chat.tools is None or AFTER in text:
            return text
        return self._write(source, chat, as_plain_chat(chat.messages, chat.tools, has_system=False))

    def _write(self, source: str, chat: ChatPrompt, messages: list[dict[str, Any]]) -> str:
        if source not in self._templates:
            self._templates[source] = ChatTemplate(source)
        return self._templates[source].render(
            messages,
            bos=self._vocabulary.bos_text,
            eos=self._vocabulary.eos_text,
            tools=[definition(tool) for tool in chat.tools.tools] if chat.tools else None,
            arguments=chat.arguments,
        )

    def close(self) -> None:
        self._compiler.close()

    def _room(self, prompt_tokens: int, max_tokens: int | None) -> int:
        """Tokens left for the completion."""
        room = self._context_length - prompt_tokens
        if room < 1:
            raise _too_long(str(prompt_tokens), self._context_length)
        if max_tokens is not None and max_tokens > room:
            raise ContextLengthExceeded(
                f"The prompt's {prompt_tokens} tokens and max_tokens {max_tokens} are more than the context of "
                f"{self._context_length}: lower max_tokens to {room}, or leave it out.",
                param="max_tokens",
            )
        return room


def _concerns_tools(chat: ChatPrompt) -> bool:
    """Whether tools may be called, or were called in earlier turns."""
    if chat.tools is not None:
        return True
    return any(message.get("tool_calls") or message.get("role") == "tool" for message in chat.messages)


def _too_long(tokens: str, context_length: int) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"The prompt has {tokens} tokens and the context {context_length}: "
        "shorten the prompt, or load the model with a longer context_length.",
        param="messages",
    )
