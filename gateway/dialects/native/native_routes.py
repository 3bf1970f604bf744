"""Our own routes of models, instances, devices and the server's status."""

import time
from collections.abc import Sequence
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from atelier import __version__
from atelier.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    InstanceNotFound,
    InvalidRequest,
    ModelNotFound,
    WorkerLost,
)
from atelier.names import check_key
from gateway.core.admission import Admission
from gateway.core.unary import Unary
from gateway.dialects.body import read_body
from gateway.dialects.lmstudio.lmstudio_model_list import V1Model, v1_model
from gateway.dialects.native.machine_replies import (
    DeviceList,
    DiskObject,
    ServerStatus,
    device_object,
    disk_object,
)
from gateway.dialects.native.model_replies import (
    DescribedModel,
    InstanceList,
    ModelReplicas,
    RemovedModel,
    SequenceList,
    VerifiedModel,
    described_object,
    instance_object,
    read_replicas,
    replica_limits,
    sequence_object,
    verified_model,
)
from gateway.dialects.native.native_requests import ImportBody, ModelBody, ReplicasBody
from gateway.dialects.reply import json_response
from gateway.dialects.route import MODEL, Route
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.watcher import Watcher
from gateway.http.streaming import while_connected


class ManagementRoutes:
    tag: ClassVar[str] = "Management"

    def __init__(
        self, watcher: Watcher, catalogue: Catalogue, control: Control, unary: Unary, admission: Admission
    ) -> None:
        self._watcher = watcher
        self._catalogue = catalogue
        self._control = control
        self._unary = unary
        self._admission = admission
        self._started = time.monotonic()

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "POST /api/v1/models/import",
                self.import_model,
                "Import a GGUF file",
                body=ImportBody,
                request={"path": "/data/models/Tiny.Q4_1.gguf"},
                errors=(AlreadyExists,),
                reply=V1Model,
            ),
            Route(
                "POST /api/v1/models/remove",
                self.remove_model,
                "Delete a model's files",
                body=ModelBody,
                request={"model": MODEL},
                errors=(ModelNotFound, Conflict),
                reply=RemovedModel,
            ),
            Route(
                "POST /api/v1/models/verify",
                self.verify_model,
                "Check a model's files against their digests",
                body=ModelBody,
                request={"model": MODEL},
                errors=(ModelNotFound,),
                reply=VerifiedModel,
            ),
            Route("GET /api/v1/instances", self.list_instances, "List the instances", reply=InstanceList),
            Route(
                "GET /api/v1/instances/{id:path}/sequences",
                self.list_sequences,
                "List an instance's sequences in progress",
                errors=(InstanceNotFound, WorkerLost, DeadlineExceeded),
                reply=SequenceList,
            ),
            Route(
                "GET /api/v1/devices",
                self.list_devices,
                "List the devices for models",
                reply=DeviceList,
            ),
            Route("GET /api/v1/disk", self.measure_disk, "Disk space used by the server's files", reply=DiskObject),
            Route("GET /api/v1/status", self.status, "The server's status", reply=ServerStatus),
            Route(
                "POST /api/v1/models/replicas",
                self.set_replicas,
                "Set how many instances a model has",
                body=ReplicasBody,
                request={"model": MODEL, "min": 1, "max": 3},
                errors=(ModelNotFound,),
                reply=ModelReplicas,
            ),
            Route(
                "GET /api/v1/models/{id:path}/info",
                self.describe_model,
                "All that is known of a model",
                errors=(ModelNotFound,),
                reply=DescribedModel,
            ),
        )

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
        return json_response(RemovedModel(model=key, deleted=await self._control.remove_model(key)))

    async def set_replicas(self, request: Request) -> Response:
        body = await read_body(request, ReplicasBody)
        key = self._catalogue.find_model(body.model).key
        replicas = read_replicas(body)
        await self._control.set_replicas(key, replicas)
        return json_response(ModelReplicas(model=key, replicas=replica_limits(replicas) if replicas else None))

    async def verify_model(self, request: Request) -> Response:
        body = await read_body(request, ModelBody)
        key = self._catalogue.find_model(body.model).key
        async with while_connected(request.receive):
            reply = await self._control.verify_model(key)
        return json_response(verified_model(key, reply))

    async def list_instances(self, request: Request) -> Response:
        instances = sorted(self._watcher.snapshot.instances.items())
        return json_response(InstanceList(instances=[instance_object(instance) for _, instance in instances]))

    async def list_devices(self, request: Request) -> Response:
        return json_response(DeviceList(devices=[device_object(device) for device in await self._control.devices()]))

    async def measure_disk(self, request: Request) -> Response:
        async with while_connected(request.receive):
            use = await self._control.disk_use()
        return json_response(disk_object(use))

    async def list_sequences(self, request: Request) -> Response:
        sequences = await self._unary.sequences(self._catalogue.find_instance(request.path_params["id"]))
        return json_response(SequenceList(sequences=[sequence_object(sequence) for sequence in sequences]))

    async def status(self, request: Request) -> Response:
        snapshot = self._watcher.snapshot
        return json_response(
            ServerStatus(
                version=__version__,
                uptime_seconds=round(time.monotonic() - self._started, 3),
                registry="connected" if self._watcher.connected else "away",
                models=len(snapshot.models),
                instances=len(snapshot.instances),
                requests={"active": self._admission.active, "waiting": self._admission.waiting},
            )
        )
