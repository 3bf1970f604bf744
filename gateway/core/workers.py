"""The connections to the workers."""

import asyncio
from collections import Counter
from collections.abc import Mapping

from gateway.core.worker_connection import WorkerConnection
from gateway.fleet.snapshot import Instance, Launch, Snapshot


class Workers:
    """Owns one connection for each worker process that was called; opened by the first call.

    A connection whose stream was lost is forgotten: the next call opens a new one.
    """

    def __init__(self) -> None:
        self._connections: dict[Launch, WorkerConnection] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def connect(self, instance: Instance) -> WorkerConnection:
        connection = self._connections.get(instance.launch)
        if connection is None or connection.ended:
            connection = self._connections[instance.launch] = WorkerConnection(instance, self._forget)
        return connection

    def in_flight(self) -> Mapping[str, int]:
        """Choices in work, by instance id."""
        counts: Counter[str] = Counter()
        for connection in self._connections.values():
            counts[connection.instance.id] += connection.in_flight
        return counts

    def follow(self, snapshot: Snapshot) -> None:
        """Close the idle connections to processes that are no more; a busy one ends with its worker."""
        known = {instance.launch for instance in snapshot.instances.values()}
        for launch, connection in list(self._connections.items()):
            if launch not in known and not connection.in_flight:
                del self._connections[launch]
                task = asyncio.create_task(connection.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in list(self._connections.values())), *self._closing)

    def _forget(self, connection: WorkerConnection) -> None:
        if self._connections.get(connection.instance.launch) is connection:
            del self._connections[connection.instance.launch]
