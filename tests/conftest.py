"""Settings for all tests."""

from hypothesis import settings

import atelier  # noqa: F401 - before any test imports gRPC, whose environment it sets

# The time of one example depends more on the machine's load than on the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
