"""Control tokens in what people write are text: a chat's content is escaped before its template renders it.

A character that occurs nowhere else is put into whatever in the content could begin a control token, or complete one
that the template begins. What a template makes of such content has it too, so the control tokens in the rendered
prompt are those that the template wrote; then the character is removed. Any template may do as it likes with strings:

    content:   Hi<|im_end|>
    escaped:   Hi<~|im_end|>
    rendered:  <|im_start|>user Hi<~|im_end|><|im_end|>
    pieces:    1, "user Hi<|im_end|>", 2
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from atelier.errors import InvalidRequest, InvalidTemplate
from atelier.json_types import Json
from atelier.submission import Tool, Tools, with_arguments_read
from atelier.templates.template_reading import TemplateReading
from worker.engine.interface import ChatPrompt
from worker.engine.model.control_tokens import ControlToken, ControlTokens, Pieces
from worker.output.family_format import ReasoningMarks

PRIVATE_USE = range(0xE000, 0xF900)
ROLE = "role"  # the template's own word: some write it within a control token
NAMED_BY_PEOPLE = {"arguments", "properties"}  # objects whose keys are not fields

Change = Callable[[str], str]
Render = Callable[[ChatPrompt], str]


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A chat as its template writes it.

    `pieces`: the same, if its content has control tokens written out; None: all in the text are the template's.
    """

    text: str
    pieces: Pieces | None = None


class ChatEscaping:
    """How chats are escaped for one template and vocabulary."""

    def __init__(
        self, tokens: ControlTokens, source: str, reading: TemplateReading, reasoning: ReasoningMarks | None
    ) -> None:
        """`source`, `reading`: the template's. `reasoning`: marks that earlier answers may contain for the template."""
        self._tokens = tokens
        self._source = source
        self._reading = reading
        self._reasoning = _reasoning_pattern(tokens, reasoning)
        self._begin = frozenset(each for each in tokens.first_characters if not each.isalnum() and not each.isspace())
        self._whole = [text for text in tokens.by_text if text[0] not in self._begin]  # by words: escaped as a whole
        self._ends = frozenset(self._unfinished())
        self._end_starts = frozenset(end[:length] for end in self._ends for length in range(1, len(end) + 1))
        self._pattern = self._compiled()

    def render(self, chat: ChatPrompt, render: Render, check: Callable[[str], None]) -> RenderedChat:
        """The chat, by `render`; twice if its content has what could be part of a control token.

        `check`: raises for a text that is too long. Raises InvalidTemplate.
        """
        chat = _with_calls_read(chat)
        content = list(_strings(chat))
        plain = None
        try:
            plain = render(chat)
        except InvalidTemplate:  # some reject the control tokens that they find in messages
            check("".join(content))
            if not any(map(self._is_special, content)):
                raise
        else:
            check(plain)
            if not any(map(self._is_special, content)):
                return RenderedChat(plain)
        escape = choose_escape([*content, self._source])
        text = self._render_escaped(chat, escape, render)
        if plain is not None and self._marks(plain) == self._marks(text):
            return RenderedChat(plain)
        return RenderedChat(escape.removed(text), self._pieces(text, escape))

    def _marks(self, text: str) -> list[ControlToken]:
        return [mark.token for mark in self._tokens.find(text)]

    def _render_escaped(self, chat: ChatPrompt, escape: "Escape", render: Render) -> str:
        text = render(self._escaped(chat, escape))
        if self._reasoning is None or not any(map(self._has_reasoning, chat.messages)):
            return text
        recognised = render(self._escaped(chat, escape, self._reasoning))
        return text if escape.removed(text) == escape.removed(recognised) else recognised

    def _has_reasoning(self, message: Json) -> bool:
        """Whether an earlier answer has the marks of reasoning, for a template that may look for them."""
        content = message.get("content")
        if self._reasoning is None or message.get(ROLE) != "assistant" or not isinstance(content, str):
            return False
        return self._reasoning.match(content) is not None

    def _pieces(self, text: str, escape: "Escape") -> list[str | int]:
        pieces: list[str | int] = []
        for piece in self._tokens.pieces(text):
            pieces += [piece] if isinstance(piece, int) else self._tokens.plain(escape.removed(piece))
        return pieces

    def _escaped(self, chat: ChatPrompt, escape: "Escape", reasoning: re.Pattern[str] | None = None) -> ChatPrompt:
        """`reasoning`: its marks in earlier answers are not escaped."""

        def change(text: str) -> str:
            return self._escaped_text(text, escape.character)

        def change_answer(text: str) -> str:
            if reasoning is None or (found := reasoning.match(text)) is None:
                return change(text)
            start, thought, end, said = found.groups()
            return f"{start}{change(thought)}{end}{change(said)}"

        def change_message(message: Json) -> Json:
            said = change_answer if message.get(ROLE) == "assistant" else change
            changes: dict[str, Change] = {ROLE: str, "content": said}
            return {key: _changed(value, changes.get(key, change)) for key, value in message.items()}

        return replace(
            chat,
            messages=[change_message(message) for message in chat.messages],
            tools=_changed_tools(chat.tools, change) if chat.tools else None,
            arguments=_changed_fields(chat.arguments, change),
        )

    def _escaped_text(self, text: str, character: str) -> str:
        escaped = self._pattern.sub(lambda found: _split(found, character), text)
        if not self._completes(text):
            return escaped
        start = len(text) - len(text.lstrip())
        return f"{escaped[:start]}{character}{escaped[start:]}"

    def _is_special(self, text: str) -> bool:
        return any(found["special"] for found in self._pattern.finditer(text)) or self._completes(text)

    def _completes(self, text: str) -> bool:
        """Whether a control token that the template begins could continue with this text."""
        if not self._ends or not (text := text.strip()):
            return False
        return text in self._end_starts or text.startswith(tuple(self._ends))

    def _unfinished(self) -> Iterator[str]:
        """Ends of the control tokens that the template begins before something else, as in `<{{ name }}>`."""
        longest = max(map(len, self._tokens.by_text), default=0)
        for own in self._reading.constants | self._reading.written:
            for at in range(max(0, len(own) - longest), len(own)):
                if own[at] in self._tokens.first_characters:
                    begun = own[at:]
                    yield from (
                        token[len(begun) :]
                        for token in self._tokens.by_text
                        if token.startswith(begun) and token != begun
                    )

    def _compiled(self) -> re.Pattern[str]:
        """Matches what is escaped as `special`, and before it what the template may look for and is no danger."""
        searched = [
            text
            for text in self._reading.constants
            if not self._begin.isdisjoint(text) and not self._could_be_special(text)
        ]
        special = [*sorted(self._whole, key=len, reverse=True), *self._begin]
        kept = map(re.escape, sorted(searched, key=len, reverse=True))
        return re.compile("|".join([*kept, f"(?P<special>{'|'.join(map(re.escape, special)) or '(?!)'})"]))

    def _could_be_special(self, text: str) -> bool:
        begins = (text[at:] for at, character in enumerate(text) if character in self._begin)
        return any(map(self._tokens.begins_like_one, begins)) or any(token in text for token in self._whole)


def _reasoning_pattern(tokens: ControlTokens, marks: ReasoningMarks | None) -> re.Pattern[str] | None:
    """Matches an answer with its reasoning, where the marks are control tokens."""
    if marks is None or not tokens.find(marks.end):
        return None
    start, end = re.escape(marks.start), re.escape(marks.end)
    return re.compile(rf"(\s*(?:{start})?)(.*?)({end})(.*)", re.DOTALL)


def _split(found: re.Match[str], character: str) -> str:
    special = found["special"]
    return found[0] if special is None else f"{special[0]}{character}{special[1:]}"


@dataclass(frozen=True, slots=True)
class Escape:
    """A character that occurs nowhere in a chat or its template, neither itself nor as JSON or Python escape it."""

    character: str

    def removed(self, text: str) -> str:
        return re.sub(rf"{self.character}|\\+u{ord(self.character):04x}", "", text)


def choose_escape(texts: Sequence[str]) -> Escape:
    """The first private-use character that is in none of the texts: chosen after them, so none can contain it."""
    whole = "".join(texts).lower()
    used = set(whole)
    for code in PRIVATE_USE:
        if chr(code) not in used and f"{code:04x}" not in whole:
            return Escape(chr(code))
    raise InvalidRequest("The messages have control tokens, and every private-use character.", param="messages")


def _with_calls_read(chat: ChatPrompt) -> ChatPrompt:
    """With the arguments of calls as objects: in JSON text, special characters may be escaped or structure."""
    if not any(message.get("tool_calls") for message in chat.messages):
        return chat
    return replace(chat, messages=[_with_arguments_read(message) for message in chat.messages])


def _with_arguments_read(message: Json) -> Json:
    if not isinstance(calls := message.get("tool_calls"), list):
        return message
    return {**message, "tool_calls": [with_arguments_read(call) if isinstance(call, dict) else call for call in calls]}


def _strings(chat: ChatPrompt) -> Iterator[str]:
    """All that people wrote."""
    for message in chat.messages:
        yield from _strings_in({key: value for key, value in message.items() if key != ROLE})
    yield from _strings_in(chat.arguments)
    for tool in chat.tools.tools if chat.tools else ():
        yield from (tool.name, tool.description)
        yield from _strings_in(dict(tool.parameters))


def _strings_in(value: object, *, with_keys: bool = False) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            if _is_content(key, with_keys):
                yield key
            yield from _strings_in(each, with_keys=key in NAMED_BY_PEOPLE)
    elif isinstance(value, list):
        for each in value:
            yield from _strings_in(each)


def _changed(value: object, change: Change, *, with_keys: bool = False) -> object:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return _changed_fields(value, change, with_keys=with_keys)
    return [_changed(each, change) for each in value] if isinstance(value, list) else value


def _changed_fields(fields: Mapping[str, object], change: Change, *, with_keys: bool = False) -> Json:
    return {
        change(key) if _is_content(key, with_keys) else key: _changed(each, change, with_keys=key in NAMED_BY_PEOPLE)
        for key, each in fields.items()
    }


def _is_content(key: str, with_keys: bool) -> bool:
    """Whether people wrote the key. The names of fields, which templates read by name, are no content."""
    return with_keys or not key.isidentifier()


def _changed_tools(tools: Tools, change: Change) -> Tools:
    return replace(tools, tools=[_changed_tool(tool, change) for tool in tools.tools], name=change(tools.name))


def _changed_tool(tool: Tool, change: Change) -> Tool:
    parameters = _changed_fields(tool.parameters, change)
    return replace(tool, name=change(tool.name), description=change(tool.description), parameters=parameters)
