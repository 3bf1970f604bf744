"""Model keys and display names, from a model's path and facts. Pure."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType, LlamaFileType

from registry.models.model_facts import ModelFacts
from registry.models.split_files import stem_of

LOCAL = "local"  # publisher of files whose path names none
LONGEST_PART = 90  # characters; two of them and a variant fit into a name
QUANTIZATIONS = {kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType} | {
    kind.name for kind in GGMLQuantizationType
}
QUANTIZATION_END = re.compile(
    rf"[-._](?:UD-|i1-)?(?:{'|'.join(sorted(QUANTIZATIONS, key=len, reverse=True))}|FP16|FP32)(?:_(?:XL|L|M|S|XS))?$",
    re.IGNORECASE,
)
MEANINGLESS = re.compile(r"(?:ggml[-_])?model|sha256-[0-9a-f]+|[0-9a-f]{32,}|gguf|unsloth", re.IGNORECASE)
HUB_CACHE = re.compile(r"models--(?P<publisher>.+?)--(?P<repo>.+)")


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """The publisher and repository in a file's path; empty where it has none."""

    publisher: str
    repo: str


def origin_in(models_dir: Path, path: Path) -> FileOrigin:
    """Of a file in a `models/<publisher>/<repo>/<file>` tree."""
    folders = path.relative_to(models_dir).parts[:-1]
    return FileOrigin(folders[0] if folders else "", folders[1] if len(folders) > 1 else "")


def origin_of(path: Path) -> FileOrigin:
    """Of a file elsewhere: the hub's cache, or another program's `models/<publisher>/<repo>/<file>`."""
    for folder in path.parent.parts:
        if match := HUB_CACHE.fullmatch(folder):
            return FileOrigin(match["publisher"], match["repo"])
    folders = path.parent.parts
    if len(folders) >= 3 and folders[-3] == "models":
        return FileOrigin(folders[-2], folders[-1])
    return FileOrigin("", "")


def display_name(path: Path, origin: FileOrigin, facts: ModelFacts) -> str:
    """The model's name in its original spelling: from the file, the repository or the metadata."""
    repo = re.sub(r"[-_.]gguf$", "", origin.repo, flags=re.IGNORECASE)
    for candidate in (stem_of(path), repo, facts.title):
        name = QUANTIZATION_END.sub("", candidate).strip()
        if name and not MEANINGLESS.fullmatch(name):
            return name
    return facts.architecture


def key_for(publisher: str, name: str) -> str:
    return f"{name_part(publisher) or LOCAL}/{name_part(name) or 'model'}"


def free_key(key: str, quantization: str, taken: Collection[str]) -> str:
    """`key` if it is free, else `key@variant`, numbered if that is taken too."""
    if key not in taken:
        return key
    variant = f"{key.partition('@')[0]}@{name_part(quantization) or 'other'}"
    number, candidate = 1, variant
    while candidate in taken:
        number += 1
        candidate = f"{variant}-{number}"
    return candidate


def name_part(text: str) -> str:
    """`text` as a part of a key: lower case, other characters replaced by "-"."""
    cleaned = re.sub(r"[^a-z0-9._+-]+", "-", text.lower())[:LONGEST_PART]
    return re.sub(r"^[^a-z0-9]+|[^a-z0-9]+$", "", cleaned)
