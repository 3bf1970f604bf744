"""Which prompt prefixes are held, in slots, in memory and on disk."""
