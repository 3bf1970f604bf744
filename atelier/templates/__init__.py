"""Chat templates: how they are rendered, and what each of them accepts."""
