"""Model files, and images, that tests make or fetch."""
