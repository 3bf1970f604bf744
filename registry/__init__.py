"""The registry: which models, presets and downloads exist, and which instances of the models should run."""
