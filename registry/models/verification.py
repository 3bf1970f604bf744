"""Whether a model's files are still what was downloaded. Blocks; for threads."""

import threading
from dataclasses import dataclass
from pathlib import Path

from atelier.errors import InvalidModelFile
from registry.hub.file_digest import digest_of
from registry.models.model_record import Model
from registry.models.split_files import parts_of, read_facts


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one file. `expected` is empty where nobody knows: the file was not downloaded by this registry."""

    name: str
    found: str  # "sha256:...", or empty when the file cannot be read
    expected: str
    fault: str = ""  # empty: none was found


def verify(model: Model, stop: threading.Event) -> list[Verdict]:
    """A verdict on every part of the model. Stopped when told to."""
    expected = dict(model.provenance.digests) if model.provenance else {}
    verdicts = [_verdict(path, expected.get(path.name, ""), stop) for path in parts_of(model.path)]
    if all(not verdict.fault for verdict in verdicts):
        try:
            read_facts(model.path)
        except (InvalidModelFile, OSError) as error:
            verdicts[0] = Verdict(verdicts[0].name, verdicts[0].found, verdicts[0].expected, str(error))
    return verdicts


def _verdict(path: Path, expected: str, stop: threading.Event) -> Verdict:
    try:
        found = digest_of(path, expected.partition(":")[0] or "sha256", stop)
    except OSError as error:
        return Verdict(path.name, "", expected, f"It cannot be read: {error.strerror or error}.")
    fault = "Its content is another than when it was downloaded." if expected and found != expected else ""
    return Verdict(path.name, found, expected, fault)
