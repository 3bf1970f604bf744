"""HTTP in, gRPC out: the dialects, admission, routing."""
