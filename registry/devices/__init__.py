"""The devices of this machine, and which of them a model is put on."""
