"""What there is to say of how a family of models writes tool calls and reasoning.

The texts are as the models write them. Where they have white space, readers take any, or none.
"""

from dataclasses import dataclass

from worker.output.message_headers import MESSAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is written around each call."""

    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCall(Call):
    """{"name": "f", "arguments": {...}}, by these keys."""

    name_key: str = "name"
    arguments_key: str = "arguments"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCall(Call):
    """The name, something between, and the arguments as JSON."""

    between: str
    id_after: str = ""  # what ends the call's id, which comes before the name
    numbered: bool = False  # functions.name:0, which is the call's id too


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedCall(Call):
    """The name, then each argument between marks of its own, as plain text of the type in the schema."""

    name_after: str
    key_before: str
    key_after: str
    value_after: str
    raw: tuple[str, str] = ("", "")  # marks around a value in which there may be `value_after`
    number_before: str = ""  # the call's number, from 1, which comes before `name_after`


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedCall(MarkedCall):
    """Each argument says its value's type before `key_after`. Both texts around it begin with the key's end."""

    type_before: str
    types: tuple[tuple[str, str], ...]  # JSON Schema's, and how the family calls them


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedCall(Call):
    """The name, then each argument in a tag of its name, objects and lists as tags within, a mark before each tag."""

    mark: str
    name_after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCall(Call):
    """f(a=1, b="x")"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BracedCall(Call):
    """f{a:1,b:<mark>x<mark>}: as JSON, with keys as they are and each string between marks."""

    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """Every part of a completion is a message with a header: reasoning, an answer, a call."""

    reasoning: str  # the headers
    preamble: str  # of text before a call
    answer: str
    call: str = ""  # with the tool's name in place of {}; "": it is in what is written before a call
    end: str  # of a message before another one
    next: str  # what begins that
    ends: tuple[str, ...]  # of any message
    borders: tuple[str, ...]  # where a message begins though no end is written

    @property
    def marks(self) -> tuple[str, ...]:
        return (*self.borders, *self.ends, MESSAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """`begin`, calls with `separator` between them, `end`."""

    name: str
    call: Call
    messages: Messages | None = None
    begin: str = ""
    end: str = ""
    listed: bool = False  # the calls are in square brackets
    separator: str | None = ""  # None: one call in a completion
    also: tuple[tuple[str, str], ...] = ()  # what else may begin calls, and end them; marks of their own
    bare: str = ""  # characters that may begin calls without a mark where the answer begins
    anywhere: bool = False  # or where any text does
    ignored: tuple[str, ...] = ()  # marks that stand for nothing
    unsaid: str = ""  # what may be written before calls in place of text; marks that are ignored
    last: str = ""  # the mark that ends a completion, in vocabularies that may not know it for an end
    results: str = ""  # the mark that begins what calls returned: the model goes on to make that up
    prompted: str = ""  # what prompts may end with, as the beginning of the completion
    in_reasoning: bool = False  # calls may begin before the reasoning ends, and end it
    id_length: int = 0  # characters of a call's id, as the family's templates want it; 0: OpenAI's ids

    @property
    def openings(self) -> tuple[str, ...]:
        """The marks that begin calls."""
        first = self.messages.borders if self.messages else (self.begin or self.call.before).split()[:1]
        return (*first, *(mark for mark, _ in self.also))

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is written around calls and in them, and that may be tokens of its own."""
        call = [getattr(self.call, name) for name in self.call.__dataclass_fields__]
        around = [text for pair in (*self.also, getattr(self.call, "raw", ())) for text in pair]
        return tuple(
            text for text in [self.begin, self.end, self.results, *call, *around] if isinstance(text, str) and text
        )


@dataclass(frozen=True, slots=True)
class ReasoningMarks:
    """What begins a model's reasoning, and what ends it, up to where its answer begins."""

    start: str
    end: str
