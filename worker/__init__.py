"""One process, one loaded model: the engine and its gRPC server."""
