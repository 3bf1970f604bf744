"""Adapters in the whole server: copied into the home, loaded by the command, selected by requests."""

import json
from pathlib import Path

import openai
import pytest

from tests.support.command.server_process import KEY, serving
from tests.support.models.lora_files import write_lora

pytestmark = pytest.mark.system


def test_an_operator_loads_an_adapter_and_requests_choose_its_scale(home: Path, starter_model: Path) -> None:
    write_lora(home / "adapters/en/poet.gguf", starter_model)
    with serving(home) as server:
        refused = server.atelier("load", KEY, "--lora", "../models/poet.gguf")
        assert refused.returncode == 1
        assert "nothing outside that folder is opened" in refused.stderr
        loaded = server.atelier("load", KEY, "-c", "512", "--identifier", "poet", "--lora", "en/poet.gguf=0.5")
        assert loaded.returncode == 0, loaded.stderr
        instances = json.loads(server.atelier("ps", "--json").stdout)["instances"]
        assert instances[0]["adapters"] == [{"id": 0, "name": "poet", "scale": 0.5}]

        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120, max_retries=0)

        def answer(model: str = "poet", lora: object = None) -> str:
            reply = client.completions.create(
                model=model,
                prompt="The capital of France is",
                temperature=0,
                max_tokens=16,
                extra_body={"lora": lora} if lora is not None else {},
            )
            return reply.choices[0].text

        half, off = answer(), answer(lora=[{"id": 0, "scale": 0}])
        assert answer(lora=[{"name": "poet", "scale": 0.5}]) == half != off
        with pytest.raises(openai.BadRequestError) as refusal:
            answer(lora=[{"name": "clerk", "scale": 1}])
        assert (refusal.value.param, '0 "poet"' in refusal.value.message) == ("lora[0].name", True)

        assert server.atelier("load", KEY, "-c", "512").returncode == 0
        assert {answer(KEY) for _ in range(2)} == {off}, "a key means the instance without adapters"
