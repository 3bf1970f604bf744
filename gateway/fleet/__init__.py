"""What exists, as the registry reports it: models, presets, instances."""
