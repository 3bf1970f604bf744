"""The models that are measured: the starter, model files by path, and random weights in the shapes that people load.

`python -m tests.bench.bench_models 1.7b 1.7b:q8_0` writes files of shapes in advance, and prints their paths.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.models.cache_folder import cache_folder
from tests.support.models.network_shapes import SHAPES, NetworkShape
from tests.support.models.starter_model import starter_file

STARTER = "135m"
QUANTISATIONS = ("q4_k_m", "q4_0", "q8_0", "f16")  # the first one is the default
VERSION = 1  # of the files' contents: a change makes new ones
FOLDER = cache_folder("bench-models")


class UnknownModel(Exception):
    """The name is neither a shape's nor a file's."""


@dataclass(frozen=True, slots=True)
class RandomModel:
    """A shape and how its weights are quantised."""

    shape: NetworkShape
    quantisation: str

    @property
    def file(self) -> Path:
        return FOLDER / f"random-{self.shape.name}-{self.quantisation}-v{VERSION}.gguf"


def known_names() -> str:
    return f"{STARTER}, {', '.join(SHAPES)}, each shape also with :{' or :'.join(QUANTISATIONS)}, or a file's path"


def check_name(name: str) -> str:
    """The name itself; for options of a command. Raises UnknownModel."""
    if name != STARTER and not name.endswith(".gguf"):
        random_model(name)
    return name


def short_name(name: str) -> str:
    """As results show it: a file without its folder."""
    return Path(name).name if name.endswith(".gguf") else name


def random_model(name: str) -> RandomModel:
    """Raises UnknownModel."""
    shape, _, quantisation = name.lower().partition(":")
    if shape not in SHAPES or (quantisation and quantisation not in QUANTISATIONS):
        raise UnknownModel(f"no model {name!r}; known are {known_names()}")
    return RandomModel(SHAPES[shape], quantisation or QUANTISATIONS[0])


def model_file(name: str) -> Path:
    """The file of a model, written first if it is of a shape and not in the cache. Raises UnknownModel."""
    if name == STARTER:
        return starter_file()
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise UnknownModel(f"no model file {name}")
        return Path(name).absolute()
    model = random_model(name)
    if not model.file.exists():
        # Quantising changes llama.cpp's log and threads for the rest of a process, which may be about to measure.
        subprocess.run([sys.executable, "-m", "tests.bench.bench_models", name], check=True, stdout=sys.stderr)
    return model.file


def add_model_option(parser: argparse.ArgumentParser, default: str) -> None:
    """`--model`, as the file's path; the file is written if it has to be."""

    def file(name: str) -> Path:
        try:
            return model_file(name)
        except UnknownModel as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    parser.add_argument("--model", type=file, default=default, help=f"{known_names()}; by default {default}")


def add_load_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--load", type=json.loads, default={}, help='load settings, as {"kv_type": "q8_0"}')


def write(model: RandomModel) -> None:
    """Complete or not at all: the file gets its name last."""
    from tests.support.models.quantised_model import write_quantised
    from tests.support.models.random_model import write_random_model

    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=FOLDER) as scratch:
        plain, made = Path(scratch) / "f16.gguf", Path(scratch) / "made.gguf"
        progress = Progress(f"{model.shape.name}: random weights")
        write_random_model(plain, model.shape, starter_file(), progress=progress)
        if model.quantisation == "f16":
            made = plain
        else:
            write_quantised(plain, made, model.quantisation, Progress(f"{model.shape.name}: {model.quantisation}"))
        made.replace(model.file)


class Progress:
    """Prints each tenth of a long work to standard error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = 0

    def __call__(self, share: float) -> None:
        if (tenths := int(share * 10)) > self._shown:
            self._shown = tenths
            print(f"{self._name}, {tenths * 10} %", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_models", description=__doc__)
    parser.add_argument("models", nargs="+", help=known_names())
    options = parser.parse_args()
    try:
        models = [random_model(name) for name in options.models if name != STARTER]
    except UnknownModel as error:
        parser.error(str(error))
    for model in models:
        if not model.file.exists():
            write(model)
        print(model.file)


if __name__ == "__main__":
    main()
