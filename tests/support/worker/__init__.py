"""For tests of workers and their engine."""
