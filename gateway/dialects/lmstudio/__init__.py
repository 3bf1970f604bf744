"""LM Studio's REST dialects: v0 (OpenAI's shape with statistics) and v1."""
