"""The folder of LoRA adapters: finds the files that an instance names, and checks that they fit its model."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from gguf import Keys

from atelier.errors import InvalidModelFile, InvalidRequest, UnsupportedField
from atelier.lora_adapters import Adapter, read_adapters
from atelier.names import near_hint
from registry.models.gguf_header import Header, read_header
from registry.models.library_files import find_models
from registry.models.memory_estimate import Estimate
from registry.models.model_record import Model

FIELD = "lora"


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter whose header was read. Its path is absolute and resolved."""

    adapter: Adapter
    tensor_bytes: int


def memory_of(files: Sequence[AdapterFile]) -> Estimate:
    """The memory that adapters add to their model's."""
    return Estimate(weights=sum(file.tensor_bytes for file in files), kv_cache=0, compute=0)


class AdapterFolder:
    """Clients name adapters by paths relative to the root; nothing outside it is opened."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def find(self, model: Model, entries: Sequence[str]) -> tuple[AdapterFile, ...]:
        """The files that the load setting `lora` names. Raises InvalidRequest if one is missing or does not fit."""
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
        """The resolved path, which must be below the root."""
        named = PurePosixPath(given)
        if named.is_absolute() or ".." in named.parts or "\0" in given:
            raise self._outside()
        try:
            path = (self._root / named).resolve(strict=True)
        except (OSError, RuntimeError):  # a loop of links is a RuntimeError
            known = [str(path.relative_to(self._root)) for path in find_models(self._root)]
            raise InvalidRequest(
                f'lora: there is no adapter "{given[:200]}" in {self._root}.{near_hint(given, known)}', param=FIELD
            ) from None
        if not path.is_relative_to(self._root.resolve()):
            raise self._outside()
        return path

    def _outside(self) -> InvalidRequest:
        return InvalidRequest(
            f"lora: name an adapter by its path below {self._root}; nothing outside that folder is opened",
            param=FIELD,
        )


def check_adapter(header: Header, architecture: str) -> None:
    """Raises InvalidRequest unless these are the weights of a LoRA for this architecture."""
    metadata = header.metadata
    kind = metadata.get(Keys.General.TYPE)
    if kind != "adapter":
        raise InvalidModelFile(f"It is not an adapter: its general.type is {_quoted(kind)}.")
    if (method := metadata.get(Keys.Adapter.TYPE)) != "lora":
        raise InvalidModelFile(f"It is not a LoRA: its adapter.type is {_quoted(method)}.")
    if Keys.Adapter.ALORA_INVOCATION_TOKENS in metadata:
        raise UnsupportedField("It is an activated LoRA (aLoRA), which is not supported; use a plain LoRA.")
    if (own := metadata.get(Keys.General.ARCHITECTURE)) != architecture:
        raise InvalidModelFile(f"It was made for a model of architecture {_quoted(own)}, not {architecture}.")
    if not header.tensors:
        raise InvalidModelFile("It has no tensors.")


def _quoted(value: object) -> str:
    return f'"{value[:40]}"' if isinstance(value, str) else "not given"
