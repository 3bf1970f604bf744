"""For tests of the registry."""
