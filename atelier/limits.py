"""Bounds that more than one service holds a request against."""

MOST_CHOICES = 8  # completions of one prompt
MOST_LOGPROBS = 20  # likeliest tokens that are told beside each token
