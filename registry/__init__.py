"""What exists and what should run: the models, and the instances of them that workers serve."""
