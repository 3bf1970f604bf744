"""Parses what a model writes: text, reasoning and tool calls, in the format of its family."""
