"""Model files: what a GGUF header says, what a model is called, and where its file lies."""
