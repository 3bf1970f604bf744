"""What a repository offers, and which of its files a reference means: pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from atelier.errors import InvalidRequest, NotFound
from registry.hub.hub_reference import HubReference
from registry.models.model_naming import QUANTIZATION_END
from registry.models.projector_files import usual as usual_projector
from registry.models.split_files import PART

# The usual choice first: the smallest that loses little.
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

    quantization: str  # as the file's name says; may be empty
    files: tuple[RepoFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all its parts."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Repository:
    """What the hub says of a repository at one commit."""

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
    """What is to be downloaded: a model's parts in their order, and its projector for images if it has one."""

    variant: Variant
    projector: RepoFile | None = None

    @property
    def files(self) -> tuple[RepoFile, ...]:
        return (*self.variant.files, *([self.projector] if self.projector else []))


def variants_of(files: Sequence[RepoFile]) -> list[Variant]:
    """The models among the files, smallest first; those whose parts are not all there are left out."""
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
    """The files that the reference means. NotFound, naming what there is; InvalidRequest when it could be several."""
    variants = variants_of(repository.files)
    if not variants:
        raise NotFound(f"{repository.id} has no GGUF files. Look for one with: atelier search NAME", param="model")
    return Selection(_chosen(variants, repository, reference), projector_of(repository.files))


def quantization_of(name: str) -> str:
    """As a file's name tells: "Q4_K_M"; empty when it does not."""
    part = PART.fullmatch(name)
    stem = part["stem"] if part else name.rpartition(".")[0]
    match = QUANTIZATION_END.search(stem)
    return match[0].lstrip("-._").upper() if match else ""


def projector_of(files: Sequence[RepoFile]) -> RepoFile | None:
    """The file that turns images into what the model reads, of the type that is both exact and small."""
    name = usual_projector(file.name for file in files)
    return next((file for file in files if file.name == name), None)


def _chosen(variants: Sequence[Variant], repository: Repository, reference: HubReference) -> Variant:
    if reference.file:
        return _with_file(variants, repository, reference.file)
    if reference.quantization:
        return _with_quantization(variants, repository, reference.quantization)
    return usual(variants)


def usual(variants: Sequence[Variant]) -> Variant:
    """What one takes who does not say which."""
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
    raise NotFound(f"{repository.id} has no file {path[:200]}. It has: {_told(variants)}.", param="model")


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
    raise NotFound(f"{repository.id} has no {wanted[:40]}. It has: {_told(variants)}.", param="model")


def _told(variants: Sequence[Variant]) -> str:
    return ", ".join(dict.fromkeys(each.quantization or each.files[0].path for each in variants))


def _group(file: RepoFile) -> tuple[str, str, str]:
    """The same for the parts of one model."""
    folder = str(PurePosixPath(file.path).parent)
    part = PART.fullmatch(file.name)
    return (folder, part["stem"], part["count"]) if part else (folder, file.name, "")


def _is_whole(group: Sequence[RepoFile]) -> bool:
    numbers = [(int(part["number"]), int(part["count"])) for file in group if (part := PART.fullmatch(file.name))]
    return not numbers or sorted(number for number, _ in numbers) == list(range(1, numbers[0][1] + 1))
