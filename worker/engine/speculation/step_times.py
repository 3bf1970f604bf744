"""How long a step takes that checks draft tokens, by the measured times of decode calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.engine.model.decode_costs import Costs
from worker.engine.model.graph_split import graph_rows


@dataclass(frozen=True, slots=True)
class StepTimes:
    """`joined`: runs of several tokens share a call; otherwise each has its own, and only single tokens share one.

    `unified`: all slots share a cache, so that a call is one graph.
    """

    costs: Costs
    joined: bool = True
    unified: bool = False

    def of(self, slots: Sequence[int], pending: Sequence[int]) -> Callable[[Sequence[int]], float | None]:
        """For these slots, which ascend, with so many pending tokens: the seconds of a step by each one's drafts.

        None while nothing is measured.
        """
        measured: dict[int, float] = {}

        def seconds_of_graph(rows: int) -> float:
            if rows not in measured:
                measured[rows] = self.costs.decode_seconds(rows) or 0.0
            return measured[rows]

        def seconds(drafts: Sequence[int]) -> float | None:
            rows = [own + drafted for own, drafted in zip(pending, drafts, strict=True)]
            return sum(map(seconds_of_graph, self._graphs(slots, rows))) or None

        return seconds

    def _graphs(self, slots: Sequence[int], rows: Sequence[int]) -> list[int]:
        if self.joined:
            return graph_rows(slots, rows, unified=self.unified)
        single = [slot for slot, own in zip(slots, rows, strict=True) if own == 1]
        longer = [own for own in rows if own > 1]
        return [*graph_rows(single, [1] * len(single), unified=self.unified), *longer]
