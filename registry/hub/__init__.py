"""The Hugging Face hub, or a mirror of it: what it has, and its files brought into the library."""
