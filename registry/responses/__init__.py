"""Responses that their clients may ask for again, or continue."""
