"""Instances of models: which should run, and the worker processes that serve them."""
