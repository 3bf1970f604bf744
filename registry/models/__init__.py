"""The models that exist: files, facts, names, estimates."""
