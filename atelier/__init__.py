"""What the gateway, the registry and the workers share, and the `atelier` command."""

__version__ = "0.1.0"
