"""Settings for all tests."""

from hypothesis import settings

# The time of one example depends more on the machine's load than on the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
