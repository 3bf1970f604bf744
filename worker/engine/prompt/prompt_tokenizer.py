"""From a prompt to its tokens: a chat is rendered by its template, and its images become cells among the tokens."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from atelier.errors import ContextLengthExceeded, InvalidRequest, InvalidTemplate
from atelier.json_types import Json
from atelier.prompt_end import PromptEnd
from atelier.submission import OutputFormat, definition
from atelier.templates.chat_template import ChatTemplate
from worker.engine.chat_images import decode_picture, with_images_written
from worker.engine.interface import ChatPrompt, InfillPrompt, Prompt
from worker.engine.model.projector import ImageChunk, Projector, TextPart
from worker.engine.model.vocabulary import Vocabulary
from worker.engine.prompt.chat_escaping import ChatEscaping, RenderedChat
from worker.engine.prompt.final_message import OpenPrompt, settled, thought_marks
from worker.output.family_detection import detect_family
from worker.output.parser_choice import choose_format, choose_parser, choose_reasoning
from worker.output.toolless_templates import AFTER, as_plain_chat, with_calls_written

IMAGE = "<image>"  # in a prompt for people to read
IMAGE_CELL = (2**32 - 1, b"")  # reported in place of a token
CERTAINLY_SHORT = 16  # bytes a token: of a shorter text the least number of tokens is not computed


class PromptTokenizer:
    """Used on one thread at a time: it keeps the images of the prompts that it tokenises until they are taken."""

    def __init__(
        self, vocabulary: Vocabulary, template: str | None, context_length: int, projector: Projector | None = None
    ) -> None:
        """`template`: the model's. `projector`: None for models without vision."""
        self._vocabulary = vocabulary
        self._control_tokens = vocabulary.control_tokens  # read here, with the load: this takes a while
        self._model_template = template
        self._context_length = context_length
        self._projector = projector
        self._image_chunks: dict[int, ImageChunk] = {}  # by their first cell
        self._templates: dict[str, ChatTemplate] = {}
        self._escapings: dict[tuple[str, OutputFormat], ChatEscaping] = {}

    def tokenize(self, prompt: Prompt, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """The prompt's tokens, at least one. A chat is settled. Raises InvalidRequest, and ContextLengthExceeded.

        `parse_special`: control tokens that are written out in a text are recognised. A chat has its own setting.
        """
        if isinstance(prompt, list):
            tokens = self._vocabulary.check(prompt)
        elif isinstance(prompt, ChatPrompt):
            tokens = self._tokenize_chat(prompt, add_special=add_special)
        elif isinstance(prompt, InfillPrompt):
            tokens = self._tokenize_infill(prompt)
        else:
            tokens = self._tokenize_text(prompt, add_special=add_special, parse_special=parse_special)
        if not tokens:
            raise InvalidRequest("The prompt is empty.", param="prompt")
        return tokens

    def take_image_chunks(self, tokens: Sequence[int]) -> dict[int, ImageChunk]:
        """The images among these tokens, by where they start; all others are forgotten."""
        if not self._image_chunks:
            return {}
        image_chunks, self._image_chunks = self._image_chunks, {}
        return {at: image_chunks[token] for at, token in enumerate(tokens) if token in image_chunks}

    def read_tokens(
        self, prompt: ChatPrompt | str, *, add_special: bool, parse_special: bool
    ) -> list[tuple[int, bytes]]:
        """The tokens, possibly none, with the bytes that each is written as."""
        if isinstance(prompt, ChatPrompt):
            tokens = self.tokenize(self.settle(prompt), add_special=add_special)
            self._image_chunks = {}
        else:
            tokens = self._tokenize_text(prompt, add_special=add_special, parse_special=parse_special)
        return [(token, self._vocabulary.mark(token)) if token >= 0 else IMAGE_CELL for token in tokens]

    def detokenize(self, tokens: list[int]) -> str:
        """The text of the tokens. Raises InvalidRequest for a token that is not in the vocabulary."""
        pieces = map(self._vocabulary.mark, self._vocabulary.check(tokens))
        return b"".join(pieces).decode(errors="replace")

    def template(self, chat: ChatPrompt) -> str:
        """The source of the chat's template. Raises InvalidTemplate when neither it nor the model has one."""
        source = chat.template or self._model_template
        if source is None:
            raise InvalidTemplate(
                "This model has no chat template: use /v1/completions, or a model made for chat.", param="model"
            )
        return source

    def settle(self, chat: ChatPrompt) -> ChatPrompt:
        """The chat; if its last message is continued, with the part of it that is."""
        if chat.end is not PromptEnd.CONTINUED_MESSAGE:
            return chat
        return settled(chat, choose_parser(chat.output, self.template(chat), None).reasoning)

    def render(self, chat: ChatPrompt, image: str = IMAGE) -> str:
        """A settled chat as its template writes it. `image`: stands for each image. Raises InvalidTemplate."""
        try:
            return self._render_text(self.template(chat), _with_images(chat, image))
        except InvalidTemplate:  # unless it only rejects the control tokens in the content
            return self._render(chat, image).text

    def _render(self, chat: ChatPrompt, image: str) -> RenderedChat:
        source, chat = self.template(chat), _with_images(chat, image)
        if chat.parse_special:
            return RenderedChat(self._render_text(source, chat))
        render, check = partial(self._render_text, source), self._check_length
        try:
            return self._escaping(source, chat.output).render(chat, render, check)
        except RecursionError:
            raise InvalidRequest("The arguments of a tool call are nested too deeply.", param="messages") from None

    def _escaping(self, source: str, output: OutputFormat) -> ChatEscaping:
        key = (source, output)
        if key not in self._escapings:
            reasoning = choose_reasoning(output, source)
            reading = self._compiled(source).reading
            self._escapings[key] = ChatEscaping(self._control_tokens, source, reading, reasoning)
        return self._escapings[key]

    def _render_text(self, source: str, chat: ChatPrompt) -> str:
        if chat.end is not PromptEnd.CONTINUED_MESSAGE:
            return self._render_messages(source, chat)
        marks = thought_marks(choose_parser(chat.output, source, None))
        return OpenPrompt(
            chat.messages,
            marks,
            source,
            lambda messages, end: self._render_messages(source, replace(chat, messages=list(messages), end=end)),
        ).text

    def _render_messages(self, source: str, chat: ChatPrompt) -> str:
        return self._render_tools(source, chat) if _concerns_tools(chat) else self._write(source, chat, chat.messages)

    def _render_tools(self, source: str, chat: ChatPrompt) -> str:
        """A chat with tools or calls, also by a template that supports them partly or not at all."""
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

    def _write(self, source: str, chat: ChatPrompt, messages: list[Json]) -> str:
        return self._compiled(source).render(
            messages,
            bos=self._vocabulary.bos_text,
            eos=self._vocabulary.eos_text,
            tools=[definition(tool) for tool in chat.tools.tools] if chat.tools else None,
            arguments=chat.arguments,
            generation_prompt=chat.end is PromptEnd.NEW_MESSAGE,
        )

    def _compiled(self, source: str) -> ChatTemplate:
        if source not in self._templates:
            self._templates[source] = ChatTemplate(source)
        return self._templates[source]

    def _tokenize_chat(self, chat: ChatPrompt, *, add_special: bool) -> list[int]:
        rendered = self._render(chat, self._projector.marker if self._projector else IMAGE)
        add_special = add_special and not self._has_bos(rendered)
        if not chat.images:
            return self._tokenize_rendered(rendered, add_special=add_special)
        if self._projector is None:
            raise InvalidRequest(
                "This model has no vision: no projector (mmproj) is beside its file. Use another model, or send text.",
                param="messages",
            )
        pictures = [decode_picture(encoded, number) for number, encoded in enumerate(chat.images, 1)]
        parts = self._parts(rendered)
        tokens, image_chunks = self._projector.read(parts, pictures, add_special=add_special)
        self._image_chunks.update({chunk.cells[0]: chunk for chunk in image_chunks})
        return tokens

    def _parts(self, rendered: RenderedChat) -> list[TextPart]:
        """What libmtmd tokenises: texts with or without their control tokens."""
        if rendered.pieces is None:
            return [TextPart(rendered.text, parse_special=True)]
        known = self._control_tokens.by_id
        return [
            TextPart(known[piece].text, parse_special=True)
            if isinstance(piece, int)
            else TextPart(piece, parse_special=False)
            for piece in rendered.pieces
        ]

    def _has_bos(self, rendered: RenderedChat) -> bool:
        if rendered.pieces is not None:
            return rendered.pieces[:1] == [self._vocabulary.bos]
        return bool(self._vocabulary.bos_text) and rendered.text.startswith(self._vocabulary.bos_text)

    def _tokenize_rendered(self, rendered: RenderedChat, *, add_special: bool) -> list[int]:
        if rendered.pieces is None:
            return self._tokenize_text(rendered.text, add_special=add_special)
        return self._vocabulary.tokenize_pieces(rendered.pieces, add_special=add_special)

    def _tokenize_text(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        self._check_length(text)
        return self._vocabulary.tokenize(text, add_special=add_special, read_special=parse_special)

    def _check_length(self, text: str) -> None:
        """Rejects a text that is certainly too long: tokenising megabytes takes seconds."""
        size = len(text.encode())
        if size > CERTAINLY_SHORT * self._context_length:
            fewest = size // self._vocabulary.longest_piece
            if fewest > self._context_length:
                raise too_long(f"at least {fewest}", self._context_length)

    def _tokenize_infill(self, prompt: InfillPrompt) -> list[int]:
        if (marks := self._vocabulary.infill_tokens) is None:
            raise InvalidRequest("This model was not trained to fill gaps: leave suffix out.", param="suffix")
        before, after, middle = marks
        prefix = self._tokenize_text(prompt.prefix, add_special=False, parse_special=False)
        suffix = self._tokenize_text(prompt.suffix, add_special=False, parse_special=False)
        return [before, *prefix, after, *suffix, middle]


def too_long(tokens: str, context_length: int) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"The prompt has {tokens} tokens and the context {context_length}: "
        "shorten the prompt, or load the model with a longer context_length.",
        param="messages",
    )


def _with_images(chat: ChatPrompt, image: str) -> ChatPrompt:
    """The chat with this text in place of each image."""
    return replace(chat, messages=with_images_written(chat.messages, lambda _: image)) if chat.images else chat


def _concerns_tools(chat: ChatPrompt) -> bool:
    """Whether tools may be called, or were called in earlier turns."""
    if chat.tools is not None:
        return True
    return any(message.get("tool_calls") or message.get("role") == "tool" for message in chat.messages)
