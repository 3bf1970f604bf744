"""How each figure is shown."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    label: str
    digits: int = 1
    factor: float = 1.0  # from the measured unit to the displayed one


MILLISECONDS = 1000.0


def _prefix_figures(phase: str) -> dict[str, Figure]:
    return {
        f"{phase}_tokens_per_second": Figure(f"{phase}: tokens/s"),
        f"{phase}_ttft_median": Figure(f"{phase}: TTFT median, ms", 0, MILLISECONDS),
        f"{phase}_ttft_p99": Figure(f"{phase}: TTFT p99, ms", 0, MILLISECONDS),
        f"{phase}_longest_gap": Figure(f"{phase}: longest gap, ms", 0, MILLISECONDS),
        f"{phase}_prompt_tokens": Figure(f"{phase}: prompt tokens", 0),
    }


FIGURES = {
    "tokens_per_second": Figure("tokens/s"),
    "over_streams_1": Figure("tokens/s over streams-1", 2),
    "ttft_median": Figure("TTFT median, ms", 0, MILLISECONDS),
    "ttft_p99": Figure("TTFT p99, ms", 0, MILLISECONDS),
    "itl_median": Figure("ITL median, ms", 2, MILLISECONDS),
    "itl_p99": Figure("ITL p99, ms", 2, MILLISECONDS),
    "longest_gap": Figure("longest gap, ms", 0, MILLISECONDS),
    "slowest_over_fastest": Figure("slowest over fastest stream", 2),
    "prompt_tokens": Figure("prompt tokens", 0),
    "ttft": Figure("TTFT, ms", 0, MILLISECONDS),
    "prompt_tokens_per_second": Figure("prompt tokens/s"),
    **_prefix_figures("cold"),
    **_prefix_figures("warm"),
    "ttft_later_turns": Figure("TTFT median of turns 2 on, ms", 0, MILLISECONDS),
    "computed_later_turns": Figure("tokens computed in them, median", 0),
    **{f"ttft_turn_{turn}": Figure(f"TTFT of turn {turn}, ms", 0, MILLISECONDS) for turn in range(1, 7)},
    "ttft_whole_history": Figure("TTFT of the history as a new prompt", 0, MILLISECONDS),
    "last_turn_over_whole_history": Figure("last turn's TTFT over that", 2),
    "newcomer_ttft_alone": Figure("newcomer's TTFT alone, ms", 0, MILLISECONDS),
    "newcomer_ttft_among": Figure("newcomer's TTFT among streams, ms", 0, MILLISECONDS),
    "newcomer_slowdown": Figure("newcomer's TTFT, among over alone", 2),
    "others_median_gap_before": Figure("streams' median gap before, ms", 1, MILLISECONDS),
    "others_p99_gap_during": Figure("streams' p99 gap meanwhile, ms", 0, MILLISECONDS),
    "others_longest_gap_during": Figure("streams' longest gap meanwhile, ms", 0, MILLISECONDS),
    "others_longest_over_median_gap": Figure("longest gap over median gap before", 1),
    "long_prompt_tokens": Figure("tokens of the long prompt", 0),
    "documents_per_second": Figure("documents/s", 2),
    "valid_documents": Figure("valid documents, %", 0, 100.0),
    "tokens_per_document": Figure("tokens per document", 0),
    "cold_ttft": Figure("first token, ms", 0, MILLISECONDS),
    "texts_per_second": Figure("texts/s"),
    "peak_rss": Figure("peak memory RSS, MiB", 0),
    "peak_pss": Figure("peak memory PSS, MiB", 0),
    "cpu_per_1000_tokens": Figure("CPU s per 1,000 tokens", 2),
}


def label(name: str) -> str:
    return FIGURES[name].label if name in FIGURES else name


def shown(name: str, value: float) -> str:
    figure = FIGURES.get(name, Figure(name))
    return f"{value * figure.factor:,.{figure.digits}f}"
