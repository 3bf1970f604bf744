"""A model from a hub to an answer, as a user gets it: real processes, the real model, a test double of the hub."""

from collections.abc import Iterator
from pathlib import Path

import lmstudio
import openai
import pytest

from tests.support.command.server_process import Server, serving
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.hub_double import Hub, Repo, hub_double
from tests.support.waiting import reaches

pytestmark = pytest.mark.system

ID = "Acme/Smol-GGUF"
FILE = "Smol-Q4_1.gguf"
KEY = "acme/smol"
SECONDS = 60


@pytest.fixture
def hub(starter_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_double() as hub:
        hub.repos[ID] = Repo({FILE: starter_model.read_bytes()})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def answer(server: Server) -> str:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        messages = [{"role": "user", "content": "Hello!"}]
        reply = client.chat.completions.create(model=KEY, messages=messages, max_tokens=8)  # type: ignore[arg-type]
    return reply.choices[0].message.content or ""


def downloaded_by_sdk(server: Server, words: str) -> tuple[str, int, bool]:
    """The model's key, its size as reported by the progress, and whether the progress ended."""
    sizes, ends = [], []
    with lmstudio.Client(server.url.removeprefix("http://")) as client:
        (model,) = client.repository.search_models(words)
        (option,) = model.get_download_options()
        key = option.download(lambda update: sizes.append(update.total_bytes), lambda: ends.append(True))
    return key, sizes[-1], ends == [True]


def test_search_get_chat_verify_remove(hub: Hub, tmp_path: Path) -> None:
    with serving(tmp_path / "home") as server:
        found = server.atelier("search", "smol")
        assert "Q4_1 98.4 MB" in found.stdout, found.stderr
        got = server.atelier("get", f"{ID}@q4_1")
        assert got.returncode == 0, got.stderr
        assert f"{KEY} is downloaded" in got.stdout
        assert answer(server)
        assert server.atelier("verify", KEY).stdout == f"{KEY}: matches its digests\n"
        refused = server.atelier("rm", "--yes", KEY)
        assert (refused.returncode, "unload" in refused.stderr) == (1, True)
        assert server.atelier("unload", "--all").returncode == 0
        assert server.atelier("rm", "--yes", KEY).returncode == 0
        assert not (tmp_path / "home/models/Acme").exists()
        content = write_gguf(tmp_path / "fresh.gguf", name="Fresh").read_bytes()
        hub.repos["Acme/Fresh-GGUF"] = Repo({"Fresh-Q4_1.gguf": content})
        assert downloaded_by_sdk(server, "fresh") == ("acme/fresh", len(content), True)


def test_a_registry_killed_in_the_middle_resumes_its_download(hub: Hub, tmp_path: Path) -> None:
    size = len(hub.repos[ID].files[FILE])
    hub.hold_after = size * 6 // 10
    with serving(tmp_path / "home") as server:
        assert server.atelier("get", ID, "--detach").returncode == 0
        assert hub.held.wait(SECONDS)
        registry = next(each for each in server.tree() if "registry" in each.cmdline())
        registry.kill()
        assert reaches(lambda: len(hub.transfers()) == 2, SECONDS)
        hub.released.set()
        assert reaches(lambda: KEY in server.atelier("ls").stdout, SECONDS)
        assert answer(server)
    first, second = hub.transfers()
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").removesuffix("-")) > size // 2
