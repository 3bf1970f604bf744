"""OpenAI's responses: answers that the server stores, and conversations that continue them."""
