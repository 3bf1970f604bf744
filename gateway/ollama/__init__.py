"""Ollama's REST dialect."""
