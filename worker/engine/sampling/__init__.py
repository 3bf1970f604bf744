"""From logits to the next token, and from tokens to text."""
