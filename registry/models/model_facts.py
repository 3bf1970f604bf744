"""The facts about a model that its file headers and its chat template contain."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
from gguf import LlamaFileType
from jinja2 import nodes

from atelier.errors import InvalidModelFile, InvalidRequest
from atelier.settings import TABLE
from registry.models.gguf_header import Header
from registry.models.model_shape import Shape, shape_of

VERSION = 4  # of this reader; raise it when a fact is added, so that known files are read again
LONGEST_TEXT = 200  # characters of a name: a file may hold megabytes, and every watcher would receive them
GUESSED = 1024  # a flag in general.file_type
LONGEST_TEMPLATE = 200_000  # characters of a template that is parsed for its capabilities
REASONING_MARKS = ("<think>", "enable_thinking", "reasoning_content", "<|channel|>analysis")
EMBEDDING_ARCHITECTURES = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)
NOT_MODELS = {
    "adapter": "a LoRA adapter",
    "clip": "the image or audio projector of a model",
    "imatrix": "an importance matrix",
    "mmproj": "the image or audio projector of a model",
}
SAMPLING_KEYS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
    "general.sampling.penalty_last_n": "repeat_last_n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Of all parts of one model. A number that the file does not have is 0."""

    title: str  # general.name, shortened
    architecture: str
    quantization: str  # such as "Q4_1"
    bits_per_weight: float
    size_bytes: int
    parameters: int
    layers: int
    context_length: int  # tokens, as trained
    embedding_length: int
    chat_template: str | None = None
    embedding: bool = False
    sampling_defaults: dict[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    licence: str = ""  # as the file names it: "apache-2.0"
    made_for_tools: bool = False
    made_for_reasoning: bool = False
    version: int = 0  # of the reader that made these facts


def facts_of(headers: Sequence[Header]) -> ModelFacts:
    """The facts of a model's headers, part by part. Raises InvalidModelFile if they are not a language model's."""
    metadata = headers[0].metadata
    architecture = _architecture(headers)
    parameters = sum(header.parameters for header in headers)
    template = _text(metadata, "tokenizer.chat_template") or None
    capabilities = capabilities_of(template)
    if not parameters:
        raise InvalidModelFile("It has no tensors: it is a vocabulary, not a model.")
    return ModelFacts(
        title=_name(metadata, "general.name"),
        architecture=architecture,
        quantization=_quantization(headers),
        bits_per_weight=round(sum(header.tensor_bytes for header in headers) * 8 / parameters, 2),
        size_bytes=sum(header.file_bytes for header in headers),
        parameters=parameters,
        layers=_whole(metadata, f"{architecture}.block_count"),
        context_length=_whole(metadata, f"{architecture}.context_length"),
        embedding_length=_whole(metadata, f"{architecture}.embedding_length"),
        chat_template=template,
        embedding=architecture in EMBEDDING_ARCHITECTURES or _whole(metadata, f"{architecture}.pooling_type") > 0,
        sampling_defaults=_sampling_defaults(metadata),
        shape=shape_of(headers, architecture),
        licence=_name(metadata, "general.license"),
        made_for_tools=capabilities.tools,
        made_for_reasoning=capabilities.reasoning,
        version=VERSION,
    )


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model was trained for, judging by its chat template."""

    chat: bool  # it has a template
    tools: bool  # the template reads the tools that may be called
    reasoning: bool  # the template separates reasoning from answers


def capabilities_of(template: str | None) -> Capabilities:
    if template is None:
        return Capabilities(chat=False, tools=False, reasoning=False)
    reasoning = any(mark in template for mark in REASONING_MARKS)
    return Capabilities(chat=True, tools=_reads(template, "tools"), reasoning=reasoning)


def _reads(template: str, name: str) -> bool:
    """Whether the template uses a variable of this name that it does not set; False if it is not valid Jinja.

    Uses the syntax tree alone: compiling an untrusted template would evaluate its constant expressions.
    """
    if len(template) > LONGEST_TEMPLATE:
        return False
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except (jinja2.TemplateError, RecursionError, ValueError):
        return False
    names = [node for node in tree.find_all(nodes.Name) if node.name == name]
    return any(node.ctx == "load" for node in names) and not any(node.ctx == "store" for node in names)


def _architecture(headers: Sequence[Header]) -> str:
    metadata = headers[0].metadata
    architecture = _name(metadata, "general.architecture")
    kind = _text(metadata, "general.type")
    if other := NOT_MODELS.get(architecture) or NOT_MODELS.get(kind):
        raise InvalidModelFile(f"It is {other}, not a model.")
    if not architecture:
        raise InvalidModelFile("The header has no architecture: it is not a language model.")
    return architecture


def _quantization(headers: Sequence[Header]) -> str:
    file_type = headers[0].metadata.get("general.file_type")
    try:
        name = LlamaFileType(int(file_type) & ~GUESSED).name if isinstance(file_type, int) else ""
    except ValueError:
        name = ""
    if not name:
        largest = max(headers, key=lambda header: header.parameters)
        return largest.main_type
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _sampling_defaults(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling settings that the file recommends; those outside this server's bounds are ignored."""
    found = {}
    for key, name in SAMPLING_KEYS.items():
        row = TABLE["inference"][name]
        value = metadata.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            continue
        try:
            found[name] = row.check(int(value) if row.type is int else round(float(value), 6))
        except InvalidRequest:
            continue
    return found


def _text(metadata: Mapping[str, Any], key: str) -> str:
    value = metadata.get(key)
    return value.strip("\0") if isinstance(value, str) else ""


def _name(metadata: Mapping[str, Any], key: str) -> str:
    return _text(metadata, key)[:LONGEST_TEXT]


def _whole(metadata: Mapping[str, Any], key: str) -> int:
    value = metadata.get(key)
    return value if isinstance(value, int) and 0 <= value < 2**32 else 0
