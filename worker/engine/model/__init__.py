"""llama.cpp: weights, context, vocabulary, devices."""
