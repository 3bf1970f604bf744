"""For tests of the gateway."""
