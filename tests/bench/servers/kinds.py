"""The peers there are: xllamacpp's server, llama-cpp-python's, and a native llama-server."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from atelier.json_types import Json
from tests.bench.peer_environment import PYTHON, ROOT
from tests.bench.servers.contender import Settings, unchanged

LAUNCHERS = ROOT / "tests" / "bench" / "launchers"


def prompt_cache_option(settings: Settings) -> list[str]:
    return [] if settings.prompt_cache_mib is None else ["--cache-ram", str(settings.prompt_cache_mib)]


class Xllamacpp:
    name = "xllamacpp"

    def command(self, settings: Settings, model: Path, port: int, *, embeddings: bool) -> list[str]:
        sizes = map(str, (port, settings.context, settings.slots, settings.threads))
        return [
            str(PYTHON),
            str(LAUNCHERS / "xllamacpp_server.py"),
            str(model),
            *sizes,
            *(["--embeddings"] if embeddings else []),
            *prompt_cache_option(settings),
        ]

    def adapt(self, body: Json) -> Json:
        return unchanged(body)


class LlamaCppPython:
    """It has one sequence. When a second request comes, it ends the stream that runs."""

    name = "llama_cpp"

    def command(self, settings: Settings, model: Path, port: int, *, embeddings: bool) -> list[str]:
        options = {
            "model": model,
            "host": "127.0.0.1",
            "port": port,
            "n_ctx": settings.context,
            "n_threads": settings.threads,
            "n_threads_batch": settings.threads,
            "embedding": embeddings,
            "logits_all": False,  # its default computes logits that were not requested
            "verbose": False,
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [str(PYTHON), str(LAUNCHERS / "llama_cpp_server.py"), *flags]

    def adapt(self, body: Json) -> Json:
        """Its schema has another field, and it reports no usage in streams."""
        body = {name: value for name, value in body.items() if name != "stream_options"}
        if "response_format" in body:
            schema = body["response_format"]["json_schema"]["schema"]
            body["response_format"] = {"type": "json_object", "schema": schema}
        return body


@dataclass(frozen=True, slots=True)
class Native:
    """A llama-server that was built for this machine."""

    name: ClassVar[str] = "llama-server"

    program: Path

    def command(self, settings: Settings, model: Path, port: int, *, embeddings: bool) -> list[str]:
        options = {
            "--model": model,
            "--host": "127.0.0.1",
            "--port": port,
            "--ctx-size": settings.context * settings.slots,
            "--parallel": settings.slots,
            "--threads": settings.threads,
            "--threads-batch": settings.threads,
        }
        flags = [str(word) for pair in options.items() for word in pair]
        embedding = ["--embeddings", "--pooling", "mean"] if embeddings else []
        return [str(self.program), *flags, *embedding, *prompt_cache_option(settings)]

    def adapt(self, body: Json) -> Json:
        return unchanged(body)
