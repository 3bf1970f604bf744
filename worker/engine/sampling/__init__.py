"""From logits to the next token, and the stop strings that end a text."""
