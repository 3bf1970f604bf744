"""A model is loaded with a context beyond the trained one, and answers."""

from pathlib import Path

import openai
import pytest

from tests.support.command.server_process import MODEL, serving

pytestmark = pytest.mark.system

TRAINED = 8192


def test_a_context_beyond_the_trained_one_needs_rope_scaling(home: Path) -> None:
    beyond = ("-c", str(2 * TRAINED), "--parallel", "1", "--k-type", "q8_0")
    with serving(home) as server:
        refused = server.atelier("load", MODEL, *beyond)
        assert f"context_length is at most {TRAINED}" in refused.stderr
        assert "rope_scaling" in refused.stderr
        assert server.atelier("load", MODEL, *beyond, "--rope-scaling", "yarn").returncode == 0
        assert server.instances()[0]["context_length"] == 2 * TRAINED
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            reply = client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "What is the capital of France?"}],
                max_tokens=16,
                temperature=0,
            )
    assert "Paris" in (reply.choices[0].message.content or "")
