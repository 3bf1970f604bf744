import pytest

from registry.models.memory_estimate import context_lengths
from registry.models.model_facts import Capabilities, capabilities_of


@pytest.mark.parametrize(
    ("template", "tools", "reasoning"),
    [
        ("{{ messages }}", False, False),
        ("{% if tools %}x{% endif %}", True, False),
        ("{% set tools = 1 %}{{ tools }}", False, False),  # its own, not given
        ("my tools are fine {{ messages }}", False, False),
        ("{% if enable_thinking %}<think>{% endif %}", False, True),
        ("{% if %}", False, False),
        ("{{ tools }}{{ 7**10**9 }}", True, False),  # looked at, not computed
        ("{{ 10**5000 }}", False, False),
    ],
)
def test_a_models_capabilities_are_read_from_its_template(template: str, tools: bool, reasoning: bool) -> None:
    assert capabilities_of(template) == Capabilities(chat=True, tools=tools, reasoning=reasoning)


def test_a_model_without_a_template_cannot_chat() -> None:
    assert capabilities_of(None) == Capabilities(chat=False, tools=False, reasoning=False)


@pytest.mark.parametrize(
    ("longest", "lengths"),
    [(0, [2048]), (512, [512]), (2048, [2048]), (5000, [2048, 4096, 5000]), (8192, [2048, 4096, 8192])],
)
def test_estimates_end_at_the_trained_context_length(longest: int, lengths: list[int]) -> None:
    assert context_lengths(longest) == lengths
