"""How adapters are named when an instance is loaded, and how the scales of a request are sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import InvalidRequest
from atelier.lora_adapters import LARGEST_SCALE, MOST_ADAPTERS, Adapter, AdapterScale, read_adapters
from atelier.submission import read_scales, set_scales
from protos.inference_pb2 import Submit


@pytest.mark.parametrize(
    ("entry", "name", "path", "scale"),
    [
        ("poet.gguf", "poet", "poet.gguf", 1.0),
        ("poet.gguf=0.5", "poet", "poet.gguf", 0.5),
        ("poet.gguf=-2", "poet", "poet.gguf", -2.0),
        ("verse=poet.gguf", "verse", "poet.gguf", 1.0),
        ("verse=poet.gguf=0", "verse", "poet.gguf", 0.0),
        ("en/poet v2.1.GGUF=1e-1", "poet v2.1", "en/poet v2.1.GGUF", 0.1),
        ("C:poet:2.gguf=0.5", "C:poet:2", "C:poet:2.gguf", 0.5),
        ("verse=a=b.gguf", "verse", "a=b.gguf", 1.0),
        ("verse=a=b/c.gguf=d.gguf=3", "verse", "a=b/c.gguf=d.gguf", 3.0),
    ],
)
def test_an_entry_is_a_path_with_an_optional_name_and_scale(entry: str, name: str, path: str, scale: float) -> None:
    assert read_adapters([entry]) == (Adapter(name, path, scale),)


@pytest.mark.parametrize(
    "entry", ["", "poet", "poet.bin", "poet.gguf=", "poet.gguf=much", "poet.gguf=nan", "poet.gguf=1e9"]
)
def test_an_invalid_entry_is_rejected(entry: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read_adapters(["other.gguf", entry])
    assert refusal.value.param == "lora"


def test_two_adapters_of_one_name_are_rejected() -> None:
    with pytest.raises(InvalidRequest, match='"poet"'):
        read_adapters(["en/poet.gguf", "de/poet.gguf"])
    assert [adapter.name for adapter in read_adapters(["en/poet.gguf", "dichter=de/poet.gguf"])] == ["poet", "dichter"]


scales = st.builds(
    AdapterScale, st.integers(0, 2**32 - 1) | st.text(max_size=20), st.floats(-LARGEST_SCALE, LARGEST_SCALE)
)


@given(st.lists(scales, max_size=MOST_ADAPTERS))
def test_scales_survive_the_wire(wanted: list[AdapterScale]) -> None:
    submit = Submit()
    set_scales(submit, wanted)
    assert read_scales(Submit.FromString(submit.SerializeToString())) == wanted


def test_more_scales_than_adapters_are_rejected() -> None:
    submit = Submit()
    set_scales(submit, [AdapterScale(0, 1.0)] * (MOST_ADAPTERS + 1))
    with pytest.raises(InvalidRequest):
        read_scales(submit)
