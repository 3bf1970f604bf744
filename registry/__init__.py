"""What exists and what should run: models, instances, and the workers behind them."""
