"""Stored responses that clients may retrieve or continue."""
