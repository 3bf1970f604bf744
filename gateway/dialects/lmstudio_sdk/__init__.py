"""LM Studio's SDK protocol: calls and channels as JSON, over one WebSocket per namespace."""
