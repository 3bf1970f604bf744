"""Documents that a strict JSON Schema describes; each is checked against it."""

import json
from dataclasses import dataclass
from typing import Any

import jsonschema

from tests.bench.client import Client, user
from tests.bench.outcomes import Result
from tests.bench.percentiles import median
from tests.bench.stream_figures import stream_figures
from tests.bench.trace import Trace
from tests.bench.words import Words
from tests.bench.workloads.at_once import answered
from tests.bench.workloads.subject import Subject


def text(longest: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": longest}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


PERSON = closed(
    name=text(40),
    age={"type": "integer", "minimum": 1, "maximum": 120},
    email=text(40),
    occupation=text(60),
    address=closed(
        street=text(60),
        city=text(40),
        country={"type": "string", "enum": ["Austria", "Brazil", "Canada", "Denmark", "Egypt", "France"]},
        postcode=text(10),
    ),
    hobbies={"type": "array", "items": text(40), "minItems": 3, "maxItems": 5},
    biography=text(200),
)
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
MOST_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Documents:
    """`streams` at once until there are `documents`."""

    streams: int
    documents: int

    async def run(self, subject: Subject) -> Result:
        traces = await answered(self.streams, self.documents, lambda number: self._ask(subject, number))
        return Result(document_figures(traces), sum(trace.tokens for trace in traces))

    async def _ask(self, subject: Subject, number: int) -> Trace:
        return await ask_for_document(subject.client, subject.words(number))


async def ask_for_document(client: Client, words: Words) -> Trace:
    prompt = user(f"Invent a person, as JSON, from these words: {words.draw(12)}")
    return await client.chat([prompt], words, MOST_TOKENS, ignore_eos=False, response_format=FORMAT)


def document_figures(traces: list[Trace]) -> dict[str, float]:
    seconds = max(trace.last for trace in traces) - min(trace.sent for trace in traces)
    figures = stream_figures(traces)
    return {
        "documents_per_second": len(traces) / seconds,
        "valid_documents": sum(valid(trace.text) for trace in traces) / len(traces),
        "tokens_per_document": median([trace.tokens for trace in traces]),
        **{name: figures[name] for name in ("tokens_per_second", "ttft_median", "itl_median", "itl_p99")},
    }


def valid(document: str) -> bool:
    try:
        jsonschema.validate(json.loads(document), PERSON)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True
