"""What should run: instances of models, the processes that serve them, and who watches these."""
