"""Placement on real devices other than the CPU: two of llama.cpp's RPC servers, in place of two GPUs."""

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from atelier.config import Config
from protos import registry_pb2 as pb
from registry.devices import device_probe as probe
from registry.devices.compute_device import Device
from registry.instances import memory_admission
from registry.instances.launcher import LocalLauncher
from registry.server import open_server
from tests.support.command.server_process import KEY, Server, put_starter, serving
from tests.support.registry.registry_client import RegistryClient, connect
from tests.support.worker.rpc_server import lending

pytestmark = pytest.mark.system

SMALL: Mapping[str, Any] = {"context_length": 512, "parallel": 1}


@contextmanager
def two_lenders() -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(lending()) for _ in range(2)]


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    with two_lenders() as addresses:
        yield addresses


@pytest.fixture
def unused() -> Iterator[list[str]]:
    """Addresses of two RPC servers that no client uses yet."""
    with two_lenders() as addresses:
        yield addresses


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, starter_model: Path, addresses: Sequence[str]) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("rpc") / "home"
    put_starter(home, starter_model)
    with serving(home, variables={"ATELIER_RPC_SERVERS": ",".join(addresses)}) as running:
        yield running


def answer(server: Server, instance: str) -> str:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "Name three colours."}]
    reply = client.chat.completions.create(model=instance, messages=messages, temperature=0, max_tokens=16)
    assert reply.choices[0].message.content
    return reply.choices[0].message.content


def first_word(server: Server, instance: str) -> dict[str, float]:
    """The three likeliest tokens that an answer may begin with, and their log-probabilities."""
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "Name three colours."}]
    reply = client.chat.completions.create(
        model=instance, messages=messages, max_tokens=1, logprobs=True, top_logprobs=3
    )
    assert reply.choices[0].logprobs
    assert reply.choices[0].logprobs.content
    return {each.token: each.logprob for each in reply.choices[0].logprobs.content[0].top_logprobs}


def load(server: Server, *options: str) -> None:
    done = server.atelier("load", KEY, "-c", "512", "--parallel", "1", *options)
    assert done.returncode == 0, done.stderr


def pins(server: Server) -> dict[str, str]:
    return {each["id"]: each["pin"].partition(" ")[0] for each in server.instances()}


def test_each_device_has_one_instance_and_one_can_be_split_over_both(server: Server) -> None:
    load(server, "--identifier", "first")
    load(server, "--identifier", "second")
    load(server, "--identifier", "third")
    assert pins(server) == {"first": "rpc:0", "second": "rpc:1", "third": "cpu"}
    full = server.atelier("load", KEY, "--device", "rpc:1", "-c", "512", "--parallel", "1")
    assert full.returncode == 1
    assert "rpc:1 lacks" in full.stderr
    answers = {answer(server, name) for name in ("first", "second")}
    # In main memory weights may lie in another order, and sums be rounded otherwise.
    lent, own = first_word(server, "first"), first_word(server, "third")
    assert lent == pytest.approx(own, abs=0.3)
    for name in ("first", "second"):
        assert server.atelier("unload", name).returncode == 0
    load(server, "--identifier", "split", "--device", "rpc:0,1")
    assert pins(server)["split"] == "rpc:0,1"
    assert answers == {answer(server, "split")}


def test_one_of_two_devices_has_the_whole_model_or_all_but_what_is_placed_by_name(server: Server) -> None:
    for each in server.instances():
        assert server.atelier("unload", each["id"]).returncode == 0
    main = ("--split-mode", "none", "--main-gpu", "1")
    load(server, "--identifier", "alone", "--device", "rpc:0,1", *main)
    expected = first_word(server, "alone")
    assert server.atelier("unload", "alone").returncode == 0
    load(server, "--identifier", "apart", "--device", "rpc:0,1", *main, "--override-tensor", r"blk\.\d+\.ffn_=cpu")
    assert first_word(server, "apart") == pytest.approx(expected, abs=0.3)
    assert server.atelier("unload", "apart").returncode == 0


def test_the_devices_command_lists_rpc_devices(server: Server, addresses: Sequence[str]) -> None:
    output = server.atelier("devices").stdout
    for number, address in enumerate(addresses):
        assert f"rpc:{number}" in output
        assert f"lent by {address}" in output


def test_an_unknown_rpc_device_is_rejected(server: Server) -> None:
    done = server.atelier("load", KEY, "--device", "rpc:7")
    assert done.returncode == 1
    assert "rpc:7" in done.stderr


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Sets the free bytes that each device reports; the real ones report the machine's whole memory."""
    free: dict[str, int] = {}
    real = probe.read_server

    def read(gpus: Sequence[probe.ReportedDevice], number: int, address: str) -> list[Device]:
        (device,) = real(gpus, number, address)
        room = free.get(device.id, device.free)
        return [Device(device.id, device.description, room, room)]

    monkeypatch.setattr(probe, "read_server", read)
    monkeypatch.setattr(memory_admission, "IDLE_SECONDS", 0.001)
    return free


async def test_a_model_that_fits_on_neither_is_split_over_both(
    home: Path, unused: list[str], lent: dict[str, int]
) -> None:
    config = Config(home=home, rpc_servers=unused, guardrail="relaxed", spare_worker=False, shutdown_grace=5)
    registry = await open_server(config, LocalLauncher(config))
    await registry.start()
    try:
        async with connect(config.registry_target) as client:
            estimate = await client.estimate(KEY, **SMALL)
            whole = estimate.weights + estimate.kv_cache + estimate.compute
            lent |= {"rpc:0": whole * 3 // 4, "rpc:1": whole * 3 // 4}
            instance = await client.create(KEY, **SMALL)
            assert (instance.state, instance.load.device) == (pb.READY, "rpc:0,1")
            assert list(instance.load.tensor_split) == [0.5, 0.5]
            assert sorted(await devices_of(client, KEY)) == ["rpc:0", "rpc:1"]
            # Listed as the model's, and in use: a server serves one process at a time.
            assert await asyncio.gather(*itertools.starmap(probe.probe_server, enumerate(unused))) == [None, None]
    finally:
        await registry.drain()


async def devices_of(client: RegistryClient, instance: str) -> list[str]:
    return [device.id for device in await client.devices() if instance in device.instances]
