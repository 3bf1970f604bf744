"""Which devices and cores a worker may use."""

import pytest

from atelier.errors import InvalidRequest
from atelier.settings import Load
from registry.devices.pinning import describe, format_cores, parse_cores, pin

EIGHT = range(8)


def environment(device: str) -> dict[str, str]:
    return pin(Load(device=device), EIGHT).environment


def test_auto_hides_nothing() -> None:
    assert environment("auto") == {}


@pytest.mark.parametrize("device", ["cpu", "metal"])
def test_cpu_and_metal_hide_the_other_backends(device: str) -> None:
    assert environment(device) == {
        "CUDA_VISIBLE_DEVICES": "-1",
        "HIP_VISIBLE_DEVICES": "-1",
        "GGML_VK_VISIBLE_DEVICES": "",
        "ATELIER_RPC_SERVERS": "",
    }


def test_cuda_devices_are_numbered_in_bus_order() -> None:
    assert environment("cuda:0,1") == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HIP_VISIBLE_DEVICES": "-1",
        "GGML_VK_VISIBLE_DEVICES": "",
        "ATELIER_RPC_SERVERS": "",
    }


def test_other_backends_have_their_own_variables() -> None:
    assert environment("rocm:1")["HIP_VISIBLE_DEVICES"] == "1"
    assert environment("vulkan:0,2")["GGML_VK_VISIBLE_DEVICES"] == "0,2"


@pytest.mark.parametrize(
    "device", ["", "gpu", "cuda", "cuda:", "cuda:a", "cuda:-1", "cuda:0,", "cuda:0,0", "cuda:0;rm", "CPU"]
)
def test_an_invalid_device_is_rejected(device: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        pin(Load(device=device), EIGHT)
    assert refusal.value.param == "device"


def test_cores_are_a_list_of_ranges() -> None:
    assert parse_cores("0-3,6", EIGHT) == [0, 1, 2, 3, 6]
    assert parse_cores("6, 0-1,1", EIGHT) == [0, 1, 6]


@pytest.mark.parametrize("cores", ["", "a", "3-1", "0-", "-1", "0,,1", "0-999999", "8", "0x1"])
def test_invalid_cores_are_rejected(cores: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        pin(Load(cores=cores), EIGHT)
    assert refusal.value.param == "cores"


def test_rejecting_a_core_names_the_available_ones() -> None:
    with pytest.raises(InvalidRequest, match="no core 8; available are 0-7"):
        parse_cores("7-9", EIGHT)


def test_the_description_shows_the_inherited_cores() -> None:
    assert pin(Load(device="cpu"), [0, 1]).description == "cpu cores 0-1"
    assert pin(Load(device="cuda:1", cores="0-3,6"), EIGHT).description == "cuda:1 cores 0-3,6"
    assert pin(Load(device="cpu"), [0, 1]).cores == []


def test_auto_is_described_by_what_the_worker_found() -> None:
    assert describe("auto", [0], ["CPU"]) == "cpu cores 0"
    assert describe("auto", [0]) == "auto cores 0"


def test_runs_of_cores_are_joined() -> None:
    assert format_cores([5, 0, 1, 2]) == "0-2,5"
