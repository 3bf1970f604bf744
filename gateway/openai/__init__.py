"""OpenAI's REST dialect."""
