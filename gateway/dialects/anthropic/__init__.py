"""Anthropic's REST dialect: messages, token counts and models."""
