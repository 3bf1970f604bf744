"""`make gpu-check`: checks on a machine with an NVIDIA GPU what the other tests can only describe."""
