"""Which instances make room in memory for another one: pure.

Never one that is busy, never one that an operator loaded; of the others those that were unused for longest, and
no more of them than are needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SHARES = {"off": 0.0, "relaxed": 0.0, "balanced": 0.05, "strict": 0.15}
"""Of all memory, that loads leave free, by the guardrail's name."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """An instance that takes memory."""

    id: str
    memory: int  # bytes, as estimated before it was loaded
    idle_seconds: float
    evictable: bool  # loaded by a request, and idle now


def reserve(guardrail: str, total: int, custom: int) -> int:
    """Bytes that stay free. `custom`: what the guardrail of that name says."""
    return custom if guardrail == "custom" else round(SHARES[guardrail] * total)


def evictions(needed: int, available: int, tenants: Sequence[Tenant]) -> list[str] | None:
    """The ids of those that have to go, so that `needed` bytes are available; None when nothing would help."""
    missing = needed - available
    going: list[Tenant] = []
    for tenant in sorted(tenants, key=lambda tenant: -tenant.idle_seconds):
        if sum(each.memory for each in going) >= missing:
            break
        if tenant.evictable:
            going.append(tenant)
    if sum(each.memory for each in going) < missing:
        return None
    for tenant in list(going):  # one that was taken early may not be needed after a large one
        if sum(each.memory for each in going) - tenant.memory >= missing:
            going.remove(tenant)
    return [tenant.id for tenant in going]
