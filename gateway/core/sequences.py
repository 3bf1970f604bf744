"""What an instance has in work, asked of its worker when somebody wants to know."""

from collections.abc import Sequence

from atelier.errors import WorkerLost
from gateway.core.worker_connection import WorkerRefused, as_told
from gateway.core.workers import Workers
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.snapshot import LOADED
from protos import inference_pb2 as pb

ANSWER_SECONDS = 5.0  # a worker answers between two steps, unless it stands still


class Sequences:
    def __init__(self, catalogue: Catalogue, workers: Workers) -> None:
        self._catalogue = catalogue
        self._workers = workers

    async def of(self, instance_id: str) -> Sequence[pb.Sequence]:
        """The instance's sequences; InstanceNotFound, or why its worker does not answer."""
        instance = self._catalogue.find_instance(instance_id)
        if instance.state not in LOADED:
            return []
        try:
            connection = self._workers.connect(instance)
            reply = await connection.ask("ListSequences", pb.ListSequencesRequest(), ANSWER_SECONDS)
        except (WorkerLost, WorkerRefused) as error:
            raise as_told(error) from None
        sequences: Sequence[pb.Sequence] = reply.sequences
        return sequences
