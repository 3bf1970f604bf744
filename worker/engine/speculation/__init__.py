"""Tokens guessed ahead of the model, and checked by it."""
