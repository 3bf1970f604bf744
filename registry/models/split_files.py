"""Models split over several files: `name-00001-of-00003.gguf` and the other parts."""

import re
from pathlib import Path

from atelier.errors import InvalidModelFile
from registry.models.gguf_header import read_header
from registry.models.model_facts import ModelFacts, facts_of

PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
MOST_PARTS = 1000


def parts_of(path: Path) -> list[Path]:
    """All files of the model whose first file is `path`. Raises InvalidModelFile if it is another part."""
    match = PART.fullmatch(path.name)
    if match is None:
        return [path]
    number, count = int(match["number"]), int(match["count"])
    if number != 1:
        raise InvalidModelFile(f"It is part {number} of {count}: name the first part.")
    if not 1 <= count <= MOST_PARTS:
        raise InvalidModelFile(f"It claims to be one of {count} parts.")
    suffix = path.name[-len(".gguf") :]
    return [path.with_name(f"{match['stem']}-{part:05d}-of-{count:05d}{suffix}") for part in range(1, count + 1)]


def is_later_part(path: Path) -> bool:
    match = PART.fullmatch(path.name)
    return match is not None and int(match["number"]) != 1


def stem_of(path: Path) -> str:
    """The file's name without part number and suffix."""
    match = PART.fullmatch(path.name)
    return match["stem"] if match else path.name.removesuffix(path.suffix)


def read_facts(path: Path) -> ModelFacts:
    """Check every part's header and return the model's facts. Blocks; for a thread.

    Raises InvalidModelFile that names the faulty file; OSError when one cannot be read.
    """
    parts = parts_of(path)
    if missing := [part.name for part in parts if not part.exists()]:
        raise InvalidModelFile(f"{path.name}: {len(missing)} of {len(parts)} parts are missing, first {missing[0]}.")
    headers = []
    for part in parts:
        try:
            headers.append(read_header(part))
        except InvalidModelFile as error:
            raise InvalidModelFile(f"{part.name}: {error.message}", param="path") from None
    try:
        return facts_of(headers)
    except InvalidModelFile as error:
        raise InvalidModelFile(f"{path.name}: {error.message}", param="path") from None
