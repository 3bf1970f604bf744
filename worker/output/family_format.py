"""The ways in which model families write tool calls and reasoning, as data.

All texts are given as the models write them. Where a text has white space, readers accept any amount, or none.
"""

from dataclasses import dataclass

MESSAGE_START = "<|message|>"  # between a message's header and its text


@dataclass(frozen=True, slots=True, kw_only=True)
class CallForm:
    """The texts before and after each call."""

    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCall(CallForm):
    """{"name": "f", "arguments": {...}}, with these keys."""

    name_key: str = "name"
    arguments_key: str = "arguments"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCall(CallForm):
    """The tool's name, a text between, and the arguments as JSON."""

    between: str
    id_after: str = ""  # the text after the call's id, which precedes the name; "": no id is written
    numbered: bool = False  # the name is written as functions.name:0, which is also the call's id


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedCall(CallForm):
    """The tool's name, then each argument between tags, as plain text whose type the tool's schema gives."""

    name_after: str
    key_before: str
    key_after: str
    value_after: str
    raw: tuple[str, str] = ("", "")  # marks around a value that may contain `value_after`
    number_before: str = ""  # the text before the call's number, counted from 1, which precedes `name_after`


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedCall(TaggedCall):
    """A tagged call whose arguments give the type of their value, between `type_before` and `key_after`.

    Both of these texts begin with what ends the key.
    """

    type_before: str
    types: tuple[tuple[str, str], ...]  # JSON Schema's name of each type, and the family's


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedCall(CallForm):
    """The tool's name, then each argument in a tag of its name; objects and lists are nested tags.

    `mark` precedes every tag.
    """

    mark: str
    name_after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCall(CallForm):
    """f(a=1, b="x")"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BracedCall(CallForm):
    """f{a:1,b:<quote>x<quote>}: JSON, except that keys are bare and strings stand between `quote`s."""

    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """Every part of a completion (reasoning, answer, call) is a message with a header of its own."""

    reasoning: str  # the header of reasoning
    preamble: str  # the header of text before a call
    answer: str  # the header of an answer
    call: str = ""  # the header of a call, with {} for the tool's name; "": CallForm.before contains it
    end: str  # ends a message that another one follows
    next_start: str  # begins that next message
    ends: tuple[str, ...]  # every mark that may end a message
    starts: tuple[str, ...]  # marks that begin a message even where the one before has no end mark

    @property
    def marks(self) -> tuple[str, ...]:
        return (*self.starts, *self.ends, MESSAGE_START)


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyFormat:
    """A family's tool calls: `begin`, the calls with `separator` between them, `end`."""

    name: str
    call: CallForm
    messages: Messages | None = None
    begin: str = ""
    end: str = ""
    listed: bool = False  # the calls are in square brackets
    separator: str | None = ""  # None: a completion has at most one call
    other_marks: tuple[
        tuple[str, str], ...
    ] = ()  # further marks that may begin calls, each with the one that ends them
    bare: str = ""  # characters that may begin calls without a mark at the start of the answer
    bare_anywhere: bool = False  # and anywhere else in it
    ignored: tuple[str, ...] = ()  # marks without meaning, which are dropped
    empty_text: str = ""  # what may be written before calls in place of text; consists of ignored marks
    end_of_turn: str = ""  # ends a completion, in vocabularies that may not list it as an end token
    results_mark: str = ""  # begins the results of calls, which the model would go on to invent
    prompt_end: str = ""  # what prompts may end with and completions therefore lack at their beginning
    in_reasoning: bool = False  # calls may begin before the reasoning ends, and end it
    id_length: int = 0  # characters of a call's id, as the family's templates require; 0: ids as OpenAI has them

    @property
    def openings(self) -> tuple[str, ...]:
        """The marks that may begin calls."""
        first = self.messages.starts if self.messages else (self.begin or self.call.before).split()[:1]
        return (*first, *(mark for mark, _ in self.other_marks))

    @property
    def call_texts(self) -> tuple[str, ...]:
        """Every text around calls and within them, each of which may be a token of its own."""
        call = [getattr(self.call, name) for name in self.call.__dataclass_fields__]
        pairs = [text for pair in (*self.other_marks, getattr(self.call, "raw", ())) for text in pair]
        texts = [self.begin, self.end, self.results_mark, *call, *pairs]
        return tuple(text for text in texts if isinstance(text, str) and text)


@dataclass(frozen=True, slots=True)
class ReasoningMarks:
    """The texts that begin and end a model's reasoning. The answer follows `end`."""

    start: str
    end: str
