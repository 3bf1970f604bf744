"""Our own routes: parse, one call, render."""

import time

from starlette.requests import Request
from starlette.responses import Response

from atelier import __version__
from atelier.errors import InvalidRequest
from atelier.names import check_key
from gateway.core.admission import Admission
from gateway.core.sequences import Sequences
from gateway.dialects.body import read_body
from gateway.dialects.lmstudio.lmstudio_translation import v1_model
from gateway.dialects.native.native_requests import ImportBody, ModelBody, ReplicasBody
from gateway.dialects.native.native_translation import (
    described_object,
    device_object,
    disk_object,
    instance_object,
    read_replicas,
    sequence_object,
)
from gateway.dialects.reply import json_response
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.watcher import Watcher
from gateway.http.disconnect import while_connected


class ManagementRoutes:
    def __init__(
        self, watcher: Watcher, catalogue: Catalogue, control: Control, sequences: Sequences, admission: Admission
    ) -> None:
        self._watcher = watcher
        self._catalogue = catalogue
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

    async def describe_model(self, request: Request) -> Response:
        model = self._catalogue.find_model(request.path_params["id"])
        described = await self._control.describe_model(model.key)
        return json_response(described_object(described, v1_model(model, self._watcher.snapshot)))

    async def remove_model(self, request: Request) -> Response:
        body = await read_body(request, ModelBody)
        key = self._catalogue.find_model(body.model).key
        return json_response({"model": key, "deleted": await self._control.remove_model(key)})

    async def set_replicas(self, request: Request) -> Response:
        body = await read_body(request, ReplicasBody)
        key = self._catalogue.find_model(body.model).key
        replicas = read_replicas(body)
        await self._control.set_replicas(key, replicas)
        told = {"min": replicas.least, "max": replicas.most} if replicas else None
        return json_response({"model": key, "replicas": told})

    async def verify_model(self, request: Request) -> Response:
        body = await read_body(request, ModelBody)
        key = self._catalogue.find_model(body.model).key
        async with while_connected(request.receive):
            reply = await self._control.verify_model(key)
        files = [
            {
                "name": file.name,
                "found": file.found or None,
                "expected": file.expected or None,
                "fault": file.fault or None,
            }
            for file in reply.files
        ]
        return json_response({"model": key, "ok": not any(file.fault for file in reply.files), "files": files})

    async def list_instances(self, request: Request) -> Response:
        instances = sorted(self._watcher.snapshot.instances.items())
        return json_response({"instances": [instance_object(instance) for _, instance in instances]})

    async def list_devices(self, request: Request) -> Response:
        return json_response({"devices": [device_object(device) for device in await self._control.devices()]})

    async def measure_disk(self, request: Request) -> Response:
        async with while_connected(request.receive):
            use = await self._control.disk_use()
        return json_response(disk_object(use))

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
