"""Programs that a process starts while its gRPC calls are in progress."""

import subprocess
import sys

PROGRAM = """
import asyncio

import uvloop

import atelier
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


async def check_again_and_again(stub):
    while True:
        await stub.Check(health_pb2.HealthCheckRequest())


async def run_program():
    process = await asyncio.create_subprocess_exec("true", start_new_session=True)
    return await process.wait()


async def main():
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        calls = [asyncio.create_task(check_again_and_again(stub)) for _ in range(4)]
        codes = [await run_program() for _ in range(100)]
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    await server.stop(None)
    print([code for code in codes if code])


uvloop.run(main())
"""


def test_every_program_that_is_started_is_executed() -> None:
    """gRPC's fork handlers, which are off, end some of them before that."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"
