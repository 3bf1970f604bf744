"""The engine: continuous batching on llama.cpp, and a scripted stand-in for tests."""

from atelier.errors import InvalidRequest
from atelier.launch import LaunchSpec
from worker.engine.interface import Engine, Publish


def create_engine(spec: LaunchSpec, publish: Publish) -> Engine:
    """The engine that the launch spec names."""
    if spec.engine == "scripted":
        from worker.engine.scripted import ScriptedEngine

        return ScriptedEngine(spec, publish)
    if spec.engine == "llama":
        from worker.engine.engine import LlamaEngine

        return LlamaEngine(spec, publish)
    raise InvalidRequest(f'There is no engine "{spec.engine}"', param="engine")
