"""A chat whose last message is continued: which part of it, and the prompt that it leaves open.

Templates write whole messages. So the last one is written with marks in place of its texts, and the prompt is cut at
the mark of the part that is continued: what a template strips from a text, or makes of it, does not matter then.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from atelier.errors import InvalidTemplate
from atelier.json_types import Json
from atelier.prompt_end import PromptEnd
from atelier.templates.template_adaptation import REASONING
from worker.engine.interface import ChatPrompt
from worker.output.completion_parts import AnswerText, PartType, Reasoning
from worker.output.family_format import ReasoningMarks
from worker.output.parser_choice import ParserChoice

CONTENT = "content"

Render = Callable[[Sequence[Json], PromptEnd], str]
"""The prompt of these messages, by the chat's template."""


def settled(chat: ChatPrompt, marks: ReasoningMarks | None) -> ChatPrompt:
    """The chat with its last message as it is continued; an empty one is left out, as the next message begins there.

    Content None: its thought is open, and continued. A thought within the content, between the template's marks, is
    taken out of it. `marks`: None if the template has no reasoning.
    """
    if chat.end is not PromptEnd.CONTINUED_MESSAGE:
        return chat
    *before, final = chat.messages
    text, thought = _text(final), final.get(REASONING) or ""
    if not text and not thought:
        return replace(chat, messages=before, end=PromptEnd.NEW_MESSAGE)
    content = text or None
    if not thought and marks is not None and text.lstrip().startswith(marks.start):
        thought, end, answer = text.lstrip().removeprefix(marks.start).partition(marks.end)
        thought, content = (thought.strip(), answer.lstrip()) if end else (thought.lstrip(), None)
    message = {key: value for key, value in final.items() if key != REASONING}
    kept = {REASONING: thought} if thought or content is None else {}
    return replace(chat, messages=[*before, {**message, CONTENT: content, **kept}])


def continued_part(chat: ChatPrompt) -> PartType:
    """What of its last message the completion of a settled chat continues."""
    return Reasoning if chat.messages[-1][CONTENT] is None else AnswerText


def thought_marks(choice: ParserChoice) -> ReasoningMarks | None:
    """What begins a thought, and what is between it and the answer."""
    if choice.format is not None and (messages := choice.format.messages):
        return ReasoningMarks(messages.reasoning, f"{messages.end}{messages.next_start}{messages.answer}")
    return choice.reasoning


@dataclass(slots=True)
class OpenPrompt:
    """The prompt of a settled chat, up to the end of its last message's text.

    Raises InvalidTemplate if the template writes no such message, or drops its thought.
    """

    messages: Sequence[Json]
    marks: ReasoningMarks | None
    template: str  # its source
    render: Render
    _content_mark: str = field(default_factory=lambda: f"qzc{secrets.token_hex(8)}")  # in no other text
    _thought_mark: str = field(default_factory=lambda: f"qzt{secrets.token_hex(8)}")

    @property
    def text(self) -> str:
        final = self.messages[-1]
        content: str | None = final[CONTENT]
        thought: str = final.get(REASONING, "")
        if content is None:
            return self._open_thought() + thought
        return self._open_content(content, thought) + content

    def _open_content(self, content: str, thought: str) -> str:
        head, found, _ = self._marked(thought=bool(thought)).rpartition(self._content_mark)
        if not found:
            raise _refused("the chat template does not write its text")
        head = head.replace(self._content_mark, content)
        if thought and self._thought_mark in head:
            return head.replace(self._thought_mark, thought)
        if thought:
            opened = self._open_thought()
            return opened + thought + self._closing(opened)
        if self._opens_thought(head):
            return head + self._closing(head)
        if content[:1].isspace() and head.rstrip() == (begun := self._begun()).rstrip():
            return begun  # the model itself wrote the white space, after the generation prompt
        return head

    def _open_thought(self) -> str:
        """Up to the thought's first word: as the model began it, or the template writes it, or by the marks."""
        begun = self._begun()
        if self._opens_thought(begun):
            return begun
        head, found, _ = self._marked(thought=True).partition(self._thought_mark)
        if found and self._opens_thought(head):
            return head
        if self.marks is None or begun.rstrip().endswith(self.marks.end):
            raise _refused(
                "the chat template writes no reasoning here; leave reasoning_content out, or turn reasoning on"
            )
        start = self.marks.start
        newline = any(start + form in self.template for form in ("\n", "\\n"))
        return f"{begun}{start}\n" if newline else f"{begun}{start}"

    def _closing(self, opened: str) -> str:
        """What ends the thought: on a line of its own if it began on a new line."""
        assert self.marks is not None
        return f"\n{self.marks.end}\n\n" if opened.endswith("\n") else self.marks.end

    def _opens_thought(self, text: str) -> bool:
        return self.marks is not None and text.rstrip().endswith(self.marks.start.rstrip())

    def _begun(self) -> str:
        return self.render(self.messages[:-1], PromptEnd.NEW_MESSAGE)

    def _marked(self, *, thought: bool) -> str:
        """The chat with marks for the last message's texts."""
        *before, final = self.messages
        marked = {**final, CONTENT: self._content_mark}
        marked |= {REASONING: self._thought_mark} if thought else {}
        return self.render([*before, marked], PromptEnd.CLOSED_MESSAGE)


def _refused(reason: str) -> InvalidTemplate:
    return InvalidTemplate(f"The last message cannot be continued: {reason}.", param="messages")


def _text(message: Json) -> str:
    content = message.get(CONTENT) or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
