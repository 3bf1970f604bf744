"""LM Studio's REST dialects: v0 (OpenAI's objects with statistics) and v1."""
