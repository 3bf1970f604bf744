"""What a model is called: pure functions from its path and facts to its key."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType, LlamaFileType

from registry.models.model_facts import Facts
from registry.models.split_files import stem_of

LOCAL = "local"  # publisher of files that come from nowhere in particular
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
class Origin:
    """Where a file comes from, as its path tells. Empty when it does not."""

    publisher: str
    repo: str


def origin_in(models_dir: Path, path: Path) -> Origin:
    """Of a file within a `models/<publisher>/<repo>/<file>` tree."""
    folders = path.relative_to(models_dir).parts[:-1]
    return Origin(folders[0] if folders else "", folders[1] if len(folders) > 1 else "")


def origin_of(path: Path) -> Origin:
    """Of a file anywhere: the hub's cache, or another program's `models/<publisher>/<repo>/<file>`."""
    for folder in path.parent.parts:
        if match := HUB_CACHE.fullmatch(folder):
            return Origin(match["publisher"], match["repo"])
    folders = path.parent.parts
    if len(folders) >= 3 and folders[-3] == "models":
        return Origin(folders[-2], folders[-1])
    return Origin("", "")


def display_name(path: Path, origin: Origin, facts: Facts) -> str:
    """The model's name in its own spelling: of the file, or the repository, or the metadata."""
    repo = re.sub(r"[-_.]gguf$", "", origin.repo, flags=re.IGNORECASE)
    for candidate in (stem_of(path), repo, facts.title):
        name = QUANTIZATION_END.sub("", candidate).strip()
        if name and not MEANINGLESS.fullmatch(name):
            return name
    return facts.architecture


def key_for(publisher: str, name: str) -> str:
    return f"{name_part(publisher) or LOCAL}/{name_part(name) or 'model'}"


def free_key(key: str, quantization: str, taken: Collection[str]) -> str:
    """`key` if no other model has it, else `key@variant`; the one that has it keeps it."""
    if key not in taken:
        return key
    variant = f"{key.partition('@')[0]}@{name_part(quantization) or 'other'}"
    number, candidate = 1, variant
    while candidate in taken:
        number += 1
        candidate = f"{variant}-{number}"
    return candidate


def name_part(text: str) -> str:
    """`text` in the form that a part of a key has: lower case, only its letters, digits and signs."""
    cleaned = re.sub(r"[^a-z0-9._+-]+", "-", text.lower())[:LONGEST_PART]
    return re.sub(r"^[^a-z0-9]+|[^a-z0-9]+$", "", cleaned)
