"""Our own routes: parse, one call, render."""

import time

from starlette.requests import Request
from starlette.responses import Response

from atelier import __version__
from atelier.errors import InvalidRequest
from atelier.names import check_key
from gateway.admission import Admission
from gateway.answer import json_response
from gateway.control import Control
from gateway.lmstudio.translate import v1_model
from gateway.management.schema import ImportBody
from gateway.management.translate import instance_object, sequence_object
from gateway.parsing import read_body
from gateway.sequences import Sequences
from gateway.watcher import Watcher


class ManagementRoutes:
    def __init__(self, watcher: Watcher, control: Control, sequences: Sequences, admission: Admission) -> None:
        self._watcher = watcher
        self._control = control
        self._sequences = sequences
        self._admission = admission
        self._started = time.monotonic()

    async def import_model(self, request: Request) -> Response:
        body = await read_body(request, ImportBody)
        if "\0" in body.path:
            raise InvalidRequest("path: must not contain NUL", param="path")
        key = check_key(body.key) if body.key is not None else None
        model = await self._control.import_model(body.path, key, body.mode)
        return json_response(v1_model(model, self._watcher.snapshot))

    async def list_instances(self, request: Request) -> Response:
        instances = sorted(self._watcher.snapshot.instances.items())
        return json_response({"instances": [instance_object(instance) for _, instance in instances]})

    async def list_sequences(self, request: Request) -> Response:
        sequences = await self._sequences.of(request.path_params["id"])
        return json_response({"sequences": [sequence_object(sequence) for sequence in sequences]})

    async def status(self, request: Request) -> Response:
        snapshot = self._watcher.snapshot
        return json_response(
            {
                "version": __version__,
                "uptime_seconds": round(time.monotonic() - self._started, 3),
                "registry": "connected" if self._watcher.connected else "away",
                "models": len(snapshot.models),
                "instances": len(snapshot.instances),
                "requests": {"active": self._admission.active, "waiting": self._admission.waiting},
            }
        )
