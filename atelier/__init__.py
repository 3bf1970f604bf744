"""What the gateway, the registry, the workers and the command share."""

import os

__version__ = "0.1.0"

# Read when gRPC is imported. Its fork handlers end a program that asyncio starts (a worker, an MCP server) before it is
# executed, in one of some fifteen starts while calls are in progress.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
