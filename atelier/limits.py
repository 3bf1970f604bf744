"""Bounds that more than one service holds a request against."""

MOST_CHOICES = 8  # completions of one prompt
