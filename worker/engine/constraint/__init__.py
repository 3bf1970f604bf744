"""Grammars and schemas that a completion has to follow."""
