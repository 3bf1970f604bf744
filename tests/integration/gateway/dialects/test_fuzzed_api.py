"""Requests made from the server's own OpenAPI: none is answered with a 5xx or with a reply that its schema forbids."""

import asyncio
import os
import sys

from tests.support.gateway.gateway_server import RunningGateway

SECONDS = 240.0
EXAMPLES = 8  # of each route
CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance"
# Routes that use files of this machine, or stay open while something else runs; and those that always answer in
# events, because the checks mistake an event's name for part of its data.
LEFT_OUT = "^/(api/v1/models/(import|download|remove|verify|search)|api/(pull|delete)|metrics|mcp)"


async def test_no_request_that_the_api_describes_causes_a_server_error(gateway: RunningGateway) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json"),
        *("--checks", CHECKS, "--max-examples", str(EXAMPLES), "--phases", "examples,fuzzing", "--seed", "1"),
        *("--exclude-path-regex", LEFT_OUT, "--request-timeout", "30", "--no-color"),
        "--suppress-health-check=filter_too_much",  # concerns only the generator
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": ""},
    )
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()[-6000:]
