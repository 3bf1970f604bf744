"""The models in a repository, and which of its files a reference selects. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from atelier.errors import InvalidRequest, NotFound
from registry.hub.hub_reference import HubReference
from registry.models.model_naming import QUANTIZATION_END
from registry.models.projector_files import usual as usual_projector
from registry.models.split_files import PART

# The default choice first: the smallest with little loss of quality.
PREFERRED = ("Q4_K_M", "Q4_K_S", "IQ4_XS", "Q4_0", "Q4_1", "Q5_K_M", "Q5_K_S", "Q5_0", "Q6_K", "Q8_0")
NOT_MODELS = re.compile(r"imatrix|mmproj|vocab", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RepoFile:
    """One file of a repository at one revision."""

    path: str
    size: int  # bytes
    digest: str  # "sha256:..." of a large file, "git:..." (the blob's object id) of others

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(frozen=True, slots=True)
class Variant:
    """One quantisation: a file, or the parts of one in their order."""

    quantization: str  # from the file's name; may be empty
    files: tuple[RepoFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all its parts."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit, as the hub describes it."""

    id: str  # user/repo
    commit: str
    files: tuple[RepoFile, ...]
    author: str = ""
    downloads: int = 0
    likes: int = 0
    gated: bool = False
    changed_at: str = ""  # ISO 8601
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to download: a model's parts in order, and its image projector if there is one."""

    variant: Variant
    projector: RepoFile | None = None

    @property
    def files(self) -> tuple[RepoFile, ...]:
        return (*self.variant.files, *([self.projector] if self.projector else []))


def variants_of(files: Sequence[RepoFile]) -> list[Variant]:
    """The models among the files, smallest first; without split models that lack parts."""
    groups: dict[tuple[str, str, str], list[RepoFile]] = {}
    for file in files:
        if file.name.lower().endswith(".gguf") and not NOT_MODELS.search(file.name):
            groups.setdefault(_group(file), []).append(file)
    variants = [
        Variant(quantization_of(group[0].name), tuple(sorted(group, key=lambda file: file.path)))
        for group in groups.values()
        if _is_whole(group)
    ]
    return sorted(variants, key=lambda variant: (variant.size, variant.files[0].path))


def select(repository: Repository, reference: HubReference) -> Selection:
    """The files that the reference selects. Raises NotFound, listing what exists; InvalidRequest if ambiguous."""
    variants = variants_of(repository.files)
    if not variants:
        raise NotFound(
            f"{repository.id} has no GGUF files. Find another repository with: atelier search NAME", param="model"
        )
    return Selection(_chosen(variants, repository, reference), projector_of(repository.files))


def quantization_of(name: str) -> str:
    """From a file's name: "Q4_K_M"; empty if the name has none."""
    part = PART.fullmatch(name)
    stem = part["stem"] if part else name.rpartition(".")[0]
    match = QUANTIZATION_END.search(stem)
    return match[0].lstrip("-._").upper() if match else ""


def projector_of(files: Sequence[RepoFile]) -> RepoFile | None:
    """The image projector, of the type that is both precise and small; see projector_files.usual."""
    name = usual_projector(file.name for file in files)
    return next((file for file in files if file.name == name), None)


def _chosen(variants: Sequence[Variant], repository: Repository, reference: HubReference) -> Variant:
    if reference.file:
        return _with_file(variants, repository, reference.file)
    if reference.quantization:
        return _with_quantization(variants, repository, reference.quantization)
    return default_variant(variants)


def default_variant(variants: Sequence[Variant]) -> Variant:
    """The variant for a reference that names none."""
    for kind in PREFERRED:
        for variant in variants:
            if variant.quantization == kind:
                return variant
    return variants[0]


def _with_file(variants: Sequence[Variant], repository: Repository, path: str) -> Variant:
    for variant in variants:
        if path in (file.path for file in variant.files):
            return variant
    if any(file.path == path for file in repository.files):
        raise InvalidRequest(f"{path} is not a model, or not all of its parts are in {repository.id}.", param="model")
    raise NotFound(f"{repository.id} has no file {path[:200]}. It has: {_names(variants)}.", param="model")


def _with_quantization(variants: Sequence[Variant], repository: Repository, wanted: str) -> Variant:
    found = [each for each in variants if wanted.upper() in (each.quantization, each.quantization.removeprefix("UD-"))]
    exact = [each for each in found if each.quantization == wanted.upper()] or found
    if len(exact) == 1:
        return exact[0]
    if exact:
        files = ", ".join(each.files[0].path for each in exact)
        raise InvalidRequest(
            f"{repository.id} has several files of {wanted}: {files}. Name one of them.", param="model"
        )
    raise NotFound(f"{repository.id} has no {wanted[:40]}. It has: {_names(variants)}.", param="model")


def _names(variants: Sequence[Variant]) -> str:
    return ", ".join(dict.fromkeys(each.quantization or each.files[0].path for each in variants))


def _group(file: RepoFile) -> tuple[str, str, str]:
    """A key that all parts of one model share."""
    folder = str(PurePosixPath(file.path).parent)
    part = PART.fullmatch(file.name)
    return (folder, part["stem"], part["count"]) if part else (folder, file.name, "")


def _is_whole(group: Sequence[RepoFile]) -> bool:
    numbers = [(int(part["number"]), int(part["count"])) for file in group if (part := PART.fullmatch(file.name))]
    return not numbers or sorted(number for number, _ in numbers) == list(range(1, numbers[0][1] + 1))
