"""The folder of LoRA adapters: which file an instance means, and whether it fits the instance's model."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from gguf import Keys

from atelier.adapters import Adapter, read_adapters
from atelier.errors import InvalidModelFile, InvalidRequest, UnsupportedField
from atelier.names import near_hint
from registry.models.gguf_header import Header, read_header
from registry.models.memory_estimate import Estimate
from registry.models.model_folder import find_files
from registry.models.model_record import Model

FIELD = "lora"


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter whose header was read. Its path is absolute, and no link."""

    adapter: Adapter
    tensor_bytes: int


def memory_of(files: Sequence[AdapterFile]) -> Estimate:
    """What they add to their model's."""
    return Estimate(weights=sum(file.tensor_bytes for file in files), kv_cache=0, compute=0)


class AdapterFolder:
    """Clients name adapters by paths below the root; nothing outside it is ever opened."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def find(self, model: Model, entries: Sequence[str]) -> tuple[AdapterFile, ...]:
        """The files that the load setting `lora` names, fit for this model; InvalidRequest says what is wrong."""
        adapters = read_adapters(entries)
        if adapters and model.facts.embedding:
            raise UnsupportedField(f"lora: {model.key} makes embeddings; adapters are for generating text", param=FIELD)
        return tuple([await asyncio.to_thread(self._open, adapter, model) for adapter in adapters])

    def _open(self, adapter: Adapter, model: Model) -> AdapterFile:
        path = self._locate(adapter.path)
        try:
            header = read_header(path)
            check_adapter(header, model.facts.architecture)
        except InvalidRequest as error:
            raise type(error)(f"lora: {adapter.path}: {error.message}", param=FIELD) from None
        except OSError as error:
            raise InvalidRequest(f"lora: {adapter.path} cannot be read: {error.strerror}", param=FIELD) from None
        return AdapterFile(replace(adapter, path=str(path)), header.tensor_bytes)

    def _locate(self, given: str) -> Path:
        """The file itself, below the root once every link is followed."""
        named = PurePosixPath(given)
        if named.is_absolute() or ".." in named.parts or "\0" in given:
            raise self._outside()
        try:
            path = (self._root / named).resolve(strict=True)
        except (OSError, RuntimeError):  # a loop of links is a RuntimeError
            known = [str(path.relative_to(self._root)) for path in find_files(self._root)]
            raise InvalidRequest(
                f'lora: there is no adapter "{given[:200]}" in {self._root}.{near_hint(given, known)}', param=FIELD
            ) from None
        if not path.is_relative_to(self._root.resolve()):
            raise self._outside()
        return path

    def _outside(self) -> InvalidRequest:
        return InvalidRequest(
            f"lora: adapters are named by their path below {self._root}, and lie there; nothing else is opened",
            param=FIELD,
        )


def check_adapter(header: Header, architecture: str) -> None:
    """InvalidRequest that says why these are not the weights of a LoRA for a model of this architecture."""
    metadata = header.metadata
    kind = metadata.get(Keys.General.TYPE)
    if kind != "adapter":
        raise InvalidModelFile(f"It is not an adapter: its general.type is {_told(kind)}.")
    if (method := metadata.get(Keys.Adapter.TYPE)) != "lora":
        raise InvalidModelFile(f"It is not a LoRA: its adapter.type is {_told(method)}.")
    if Keys.Adapter.ALORA_INVOCATION_TOKENS in metadata:
        raise UnsupportedField("It is an activated LoRA (aLoRA), which is not supported; take a plain one.")
    if (own := metadata.get(Keys.General.ARCHITECTURE)) != architecture:
        raise InvalidModelFile(f"It was made for a model of the architecture {_told(own)}, not {architecture}.")
    if not header.tensors:
        raise InvalidModelFile("It holds no tensors.")


def _told(value: object) -> str:
    return f'"{value[:40]}"' if isinstance(value, str) else "not given"
