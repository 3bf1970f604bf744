import json

import pytest

from atelier.cli.load import load_progress
from atelier.settings import TABLE
from tests.support.command.cli_facts import KEY, instance, model
from tests.support.command.cli_server import ScriptedServer
from tests.unit.cli.conftest import Atelier

REPLY = {"type": "llm", "instance_id": KEY, "load_time_seconds": 0.84, "status": "loaded"}


@pytest.fixture(autouse=True)
def loading_server(server: ScriptedServer) -> ScriptedServer:
    server.answers("GET /api/v1/models", {"models": [model()]})
    return server.answers("POST /api/v1/models/load", REPLY)


def sent(server: ScriptedServer) -> dict[str, object]:
    return server.bodies("/api/v1/models/load")[-1]


def test_load_sends_only_what_was_given(server: ScriptedServer, atelier: Atelier) -> None:
    assert atelier("load", KEY).stdout == f"Loaded {KEY} in 0.8 s\n"
    assert sent(server) == {"model": KEY}


def test_every_setting_has_a_flag_and_is_sent_under_its_rest_name(server: ScriptedServer, atelier: Atelier) -> None:
    flags = (
        "--identifier mine -c 2048 --parallel 2 --device cuda:1 --cores 0-3 --threads 4 --gpu off --tensor-split 3,1 "
        "--kv-type q8_0 --no-flash-attention --batch-size 512 --ubatch-size 128 --no-mmap --mlock --no-offload-kv "
        "--kv-unified --swa-full --load-seed 7 --speculation draft_model --draft-model small --draft-tokens 6 "
        "--threads-batch 8 --k-type q8_0 --v-type q4_0 --rope-scaling yarn --rope-freq-scale 0.5 --rope-freq-base 1e6 "
        "--yarn-original-context 512 --yarn-ext-factor 1 --yarn-beta-fast 32 --yarn-beta-slow 1 "
        "--split-mode none --main-gpu 1 --cpu-moe --cpu-moe-layers 4 --override-tensor exps=cpu --num-experts 2 "
        "--prefill-pause 2 --reproducible --checkpoints 8 "
        "--cache-ram 64 --cache-disk 128 --lora poet.gguf --lora en/clerk.gguf=0.5"
    )
    result = atelier("load", KEY, *flags.split())
    assert result.exit_code == 0, result.output
    body = sent(server)
    assert {row.facts.lmstudio for row in TABLE["load"].values()} <= body.keys()
    assert body["identifier"] == "mine"
    assert body["context_length"] == 2048
    assert body["tensor_split"] == [3.0, 1.0]
    assert body["flash_attention"] is False
    assert body["lora"] == ["poet.gguf", "en/clerk.gguf=0.5"]
    assert body["eval_batch_size"] == 512
    assert body["gpu_layers"] == 0


@pytest.mark.parametrize(
    ("gpu", "layers"), [("off", 0), ("12", 12), ("0.5", 15), ("1.0", 30), ("0.0", 0), ("max", None)]
)
def test_gpu_is_off_max_layers_or_a_fraction(server: ScriptedServer, atelier: Atelier, gpu: str, layers: int) -> None:
    assert atelier("load", "smollm2-135m-instruct", "--gpu", gpu).exit_code == 0
    assert sent(server).get("gpu_layers") == layers


@pytest.mark.parametrize(
    "flags",
    [
        ["--gpu", "half"],
        ["--gpu", "1.5"],
        ["--gpu", "nan"],
        ["--parallel", "0"],
        ["--tensor-split", "1;2"],
        ["-c", "x"],
    ],
)
def test_an_invalid_value_is_a_usage_error(server: ScriptedServer, atelier: Atelier, flags: list[str]) -> None:
    assert atelier("load", KEY, *flags).exit_code == 2
    assert server.bodies("/api/v1/models/load") == []


def test_a_fraction_needs_a_listed_model(atelier: Atelier) -> None:
    result = atelier("load", "other", "--gpu", "0.5")
    assert (result.exit_code, 'There is no model "other"' in result.stderr) == (1, True)


@pytest.mark.parametrize(("name", "layers"), [("acme/tiny", 5), ("Tiny@Q8_0", 10)])
def test_a_fraction_applies_to_the_model_that_the_name_refers_to(
    server: ScriptedServer, atelier: Atelier, name: str, layers: int
) -> None:
    variants = [model("acme/tiny", layers=10), model("acme/tiny@q8_0", layers=20)]
    server.answers("GET /api/v1/models", {"models": variants})
    assert atelier("load", name, "--gpu", "0.5").exit_code == 0
    assert sent(server)["gpu_layers"] == layers


def test_a_fraction_accepts_a_variants_short_name(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/models", {"models": [model("acme/tiny@q8_0", layers=20)]})
    assert atelier("load", "tiny", "--gpu", "0.5").exit_code == 0
    assert sent(server)["gpu_layers"] == 10


def test_a_fraction_for_an_ambiguous_name_is_rejected(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/models", {"models": [model("acme/tiny"), model("other/tiny")]})
    result = atelier("load", "tiny", "--gpu", "0.5")
    assert (result.exit_code, "acme/tiny, other/tiny" in result.stderr) == (1, True)


def test_load_json_is_the_servers_reply(atelier: Atelier) -> None:
    assert json.loads(atelier("load", KEY, "--json").stdout) == REPLY


def test_an_error_of_the_server_is_reported_on_stderr(server: ScriptedServer, atelier: Atelier) -> None:
    server.refuses("POST /api/v1/models/load", 404, 'There is no model "smol". Near names: smollm2.')
    result = atelier("load", "smol")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == 'atelier: There is no model "smol". Near names: smollm2.\n'


def test_progress_is_that_of_the_newest_load() -> None:
    older = instance("a", state="loading", load_progress=0.9, started_at=1.0)
    newer = instance("b", state="loading", load_progress=0.3, started_at=2.0)
    assert load_progress([older, newer, instance("c", started_at=3.0)]) == 0.3
    assert load_progress([instance()]) == 0


def test_an_estimate_shows_the_weights_in_main_memory_where_some_are(server: ScriptedServer, atelier: Atelier) -> None:
    memory = {"weights": 2**21, "weights_in_main_memory": 2**20, "kv_cache": 0, "compute": 0, "total": 2**21}
    server.answers("POST /api/v1/models/load", {"model": KEY, "status": "estimated", "memory_bytes": memory})
    lines = atelier("load", KEY, "--estimate-only", "--cpu-moe").stdout.splitlines()
    assert lines[2].split() == ["of", "these", "in", "main", "memory", "1", "MiB"]


def test_estimate_only_shows_the_memory_and_loads_nothing(server: ScriptedServer, atelier: Atelier) -> None:
    memory = {"weights": 92 * 2**20, "kv_cache": 720 * 2**20, "compute": 100 * 2**20, "total": 912 * 2**20}
    server.answers("POST /api/v1/models/load", {"model": KEY, "status": "estimated", "memory_bytes": memory})
    result = atelier("load", KEY, "--estimate-only", "-c", "2048")
    assert sent(server) == {"model": KEY, "context_length": 2048, "estimate_only": True}
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [
        ["MEMORY", "ESTIMATE"],
        ["Weights", "92", "MiB"],
        ["KV", "cache", "720", "MiB"],
        ["Compute", "100", "MiB"],
        ["Total", "912", "MiB"],
    ]
