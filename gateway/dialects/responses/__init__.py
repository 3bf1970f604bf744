"""OpenAI's responses: answers that the server keeps, and conversations that go on from them."""
