"""Bounds that more than one service holds a request against."""

MOST_CHOICES = 8  # completions of one prompt
MOST_LOGPROBS = 20  # likeliest tokens that are told beside each token
MOST_PRIORITY = 10  # of a request, either way; the lower goes first
LONGEST_TIMEOUT = 86_400.0  # seconds that a request may allow itself
MOST_REPLICAS = 64  # of a model
MOST_ADAPTERS = 16  # of an instance
LARGEST_SCALE = 100  # of an adapter, either way
