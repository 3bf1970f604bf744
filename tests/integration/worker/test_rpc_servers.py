"""A worker and the RPC servers that it is given."""

import os
import socket
import subprocess
import sys

import pytest

PROGRAM = """
from atelier.errors import LoadFailed
from worker.engine.model import rpc_servers

rpc_servers.ANSWER_SECONDS = 0.2
try:
    rpc_servers.add_rpc_devices()
except LoadFailed as error:
    print(error.message)
"""


def output_for(address: str) -> str:
    environment = {**os.environ, "ATELIER_RPC_SERVERS": address}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=True
    ).stdout


def test_a_server_that_accepts_a_connection_without_answering_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "serves one instance at a time" in output_for(f"127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_an_unreachable_server_is_reported(address: str) -> None:
    assert f"The RPC server {address} does not answer" in output_for(address)


@pytest.mark.skipif(sys.platform != "linux", reason="reads which libraries a process has in /proc")
def test_devices_are_added_to_the_library_that_llama_cpp_itself_uses() -> None:
    program = (
        "from llama_cpp import llama_cpp as ll\n"
        "from worker.engine.model.llama_devices import open_ggml\n"
        "ll.llama_backend_init()\n"
        "loaded = {line.split()[-1] for line in open('/proc/self/maps') if 'libggml.' in line}\n"
        "open_ggml().ggml_backend_dev_count()\n"
        "assert loaded == {line.split()[-1] for line in open('/proc/self/maps') if 'libggml.' in line}, loaded\n"
        "assert len(loaded) == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
