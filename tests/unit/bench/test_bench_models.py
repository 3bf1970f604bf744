"""The models and servers of a measurement, by its options and the machine's memory."""

from pathlib import Path

import pytest

from tests.bench import bench_models
from tests.bench.__main__ import read_options
from tests.bench.bench_models import RandomModel, UnknownModel, check_name, model_file, random_model, short_name
from tests.bench.memory_limits import DEFAULT_PROMPT_CACHE, fitting, prompt_cache_limit, server_bytes
from tests.bench.model_run import Choice, NoRoom, plan
from tests.bench.scenarios import LARGE_BYTES, STARTER_BYTES, scale_of, scenarios_at
from tests.bench.servers.contender import Settings
from tests.bench.servers.kinds import Native
from tests.support.models.network_shapes import SHAPES, SMOLLM2_1_7B, TINY_DENSE
from tests.support.models.random_model import write_random_model

GIB = 2**30
NOTHING_NAMED = Choice(None, None)
SERVERS = ("ours", "llama-server", "xllamacpp")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_random_model(tmp_path / "tiny.gguf", TINY_DENSE)


def test_both_sizes_are_measured_by_default() -> None:
    assert read_options([]).models == ["135m", "1.7b"]
    assert read_options(["--models", "1.7b:q8_0, sliding"]).models == ["1.7b:q8_0", "sliding"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--models", "7b"], "no model '7b'"),
        (["--models", "1.7b:q9"], "no model '1.7b:q9'"),
        (["--scenarios", "streams-3"], "no such scenario: streams-3"),
        (["--servers", "theirs"], "no such server: theirs"),
        (["--rounds", "0"], "at least one round"),
    ],
)
def test_options_are_checked(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_options(arguments)
    assert complaint in capsys.readouterr().err


def test_a_shapes_quantisation_has_a_default() -> None:
    assert random_model("1.7b") == RandomModel(SMOLLM2_1_7B, "q4_k_m")
    assert random_model("1.7B:Q8_0") == RandomModel(SMOLLM2_1_7B, "q8_0")
    assert all(check_name(f"{name}:q4_0") for name in SHAPES)


def test_the_file_of_a_shape_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_models, "FOLDER", tmp_path)
    path = random_model("1.7b").file
    path.write_bytes(b"written before")
    assert model_file("1.7b") == path
    assert path.name == "random-1.7b-q4_k_m-v1.gguf"


def test_a_file_is_shown_without_its_folder() -> None:
    assert short_name("/models/Some-Q4_K_M.gguf") == "Some-Q4_K_M.gguf"
    assert short_name("1.7b:q8_0") == "1.7b:q8_0"


def test_a_file_that_does_not_exist_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"no model file .*none\.gguf"):
        model_file(str(tmp_path / "none.gguf"))


def test_a_large_model_has_the_same_scenarios_with_fewer_tokens_and_more_time() -> None:
    small, large = scenarios_at(scale_of(STARTER_BYTES)), scenarios_at(scale_of(10 * STARTER_BYTES))
    assert list(small) == list(large)
    assert all(large[name].seconds > small[name].seconds for name in small)
    assert all(large[name].limit >= large[name].seconds * 5 for name in large)
    assert scale_of(LARGE_BYTES).tokens < scale_of(STARTER_BYTES).tokens


def test_the_first_servers_that_fit_are_chosen() -> None:
    needs = {"ours": 6, "llama-server": 5, "xllamacpp": 5, "llama_cpp": 2}
    assert fitting(list(needs), needs, 14) == ["ours", "llama-server", "llama_cpp"]
    assert fitting(list(needs), needs, 5) == ["llama-server"]


def test_a_server_needs_memory_for_weights_and_all_sequences(model: Path) -> None:
    settings = Settings(model, model.parent, 2)
    assert server_bytes(settings, "ours") > server_bytes(settings, "llama_cpp")  # which has one sequence


def test_peers_prompt_caches_are_limited_only_where_memory_is_short() -> None:
    assert prompt_cache_limit(100 * GIB, 2) is None
    limit = prompt_cache_limit(10 * GIB, 2)
    assert limit is not None
    assert limit * 2 < 10 * 1024 <= DEFAULT_PROMPT_CACHE * 2
    assert prompt_cache_limit(-1, 2) == 0


def test_servers_without_room_are_left_out_unless_they_were_named(model: Path) -> None:
    one = server_bytes(Settings(model, model.parent, 2), "ours")
    run = plan("tiny", model, Choice(None, ["streams-1"]), SERVERS, int(2.5 * one))
    assert (run.servers, run.left_out) == (["ours", "llama-server"], ["xllamacpp"])
    with pytest.raises(NoRoom, match="choose fewer with --servers"):
        plan("tiny", model, Choice(SERVERS, ["streams-1"]), SERVERS, int(2.5 * one))
    with pytest.raises(NoRoom):
        plan("tiny", model, Choice(None, ["streams-1"]), SERVERS, one // 2)


def test_a_scenario_for_which_peers_load_again_takes_the_room_of_one_more(model: Path) -> None:
    one = server_bytes(Settings(model, model.parent, 2), "ours")
    run = plan("tiny", model, Choice(None, ["cold-load"]), SERVERS, int(2.5 * one))
    assert run.servers == ["ours"]


def test_a_large_model_is_not_loaded_twice_by_default(tmp_path: Path, model: Path) -> None:
    small = plan("tiny", model, NOTHING_NAMED, SERVERS, 100 * GIB)
    with model.open("ab") as file:
        file.truncate(LARGE_BYTES)
    large = plan("large", model, NOTHING_NAMED, SERVERS, 100 * GIB)
    left_out = {each.name for each in small.scenarios} - {each.name for each in large.scenarios}
    assert left_out == {"cold-load", "embeddings"}


def test_a_native_peer_has_its_own_defaults_but_for_sequences_and_threads() -> None:
    command = Native(Path("/server")).command(Settings(Path("m.gguf"), Path(), 2), Path("m.gguf"), 80, embeddings=False)
    flags = dict(zip(command[1::2], command[2::2], strict=True))
    assert flags == {
        "--model": "m.gguf",
        "--host": "127.0.0.1",
        "--port": "80",
        "--ctx-size": "32768",
        "--parallel": "8",
        "--threads": "2",
        "--threads-batch": "2",
    }
    limited = Native(Path("/server")).command(
        Settings(Path("m.gguf"), Path(), 2, prompt_cache_mib=100), Path("m.gguf"), 80, embeddings=False
    )
    assert limited[-2:] == ["--cache-ram", "100"]
