"""Capped exponential backoff: pure."""

LARGEST_EXPONENT = 60  # 2**60 exceeds every cap; a long row of failures must not overflow a float


def backoff_delay(failures: int, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row: `first`, doubled after each, at most `longest`; 0 after none."""
    if failures < 1:
        return 0.0
    return float(min(first * 2 ** min(failures - 1, LARGEST_EXPONENT), longest))
