"""The devices of this machine, their memory, and which of them a model is placed on."""
