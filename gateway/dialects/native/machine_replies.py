"""What our own routes return of the server and its machine: the types, and builders of them. Pure."""

from dataclasses import fields
from typing import Literal, cast

from typing_extensions import TypedDict

from atelier.hardware import Readings
from protos.registry_pb2 import Device, DiskUse


class DeviceReadings(TypedDict):
    """null: the device does not report it."""

    uuid: str | None
    pci_bus_id: str | None
    driver_version: str | None
    utilization_percent: int | None
    memory_utilization_percent: int | None
    memory_used_bytes: int | None
    temperature_celsius: int | None
    power_watts: float | None
    power_limit_watts: float | None


class DeviceObject(TypedDict):
    id: str
    description: str
    memory_total_bytes: int
    memory_free_bytes: int
    instances: list[str]
    readings: DeviceReadings | None


class DeviceList(TypedDict):
    devices: list[DeviceObject]


class FileSystem(TypedDict):
    path: str
    total_bytes: int
    free_bytes: int


class ModelOnDisk(TypedDict):
    key: str
    size_bytes: int
    in_library: bool
    names: int


class DownloadOnDisk(TypedDict):
    job_id: str
    size_bytes: int


class Leftover(TypedDict):
    path: str
    size_bytes: int


class CacheOnDisk(TypedDict):
    directory: str
    instance: str | None
    size_bytes: int


class DiskObject(TypedDict):
    file_systems: list[FileSystem]
    models: list[ModelOnDisk]
    downloads: list[DownloadOnDisk]
    leftovers: list[Leftover]
    caches: list[CacheOnDisk]
    library_bytes: int
    adapters_bytes: int
    logs_bytes: int
    database_bytes: int
    other_bytes: int
    used_bytes: int


class RequestCounts(TypedDict):
    active: int
    waiting: int


class ServerStatus(TypedDict):
    version: str
    uptime_seconds: float
    registry: Literal["connected", "away"]
    models: int
    instances: int
    requests: RequestCounts


class Greeting(TypedDict):
    lmstudio: Literal[True]


def device_object(device: Device) -> DeviceObject:
    return {
        "id": device.id,
        "description": device.description,
        "memory_total_bytes": device.memory_total,
        "memory_free_bytes": device.memory_free,
        "instances": list(device.instances),
        "readings": _readings_object(device) if device.HasField("readings") else None,
    }


def _readings_object(device: Device) -> DeviceReadings:
    reported = {field.name: value for field, value in device.readings.ListFields()}
    return cast(DeviceReadings, {field.name: reported.get(field.name) for field in fields(Readings)})


def disk_object(use: DiskUse) -> DiskObject:
    return {
        "file_systems": [
            {"path": each.path, "total_bytes": each.total_bytes, "free_bytes": each.free_bytes}
            for each in use.file_systems
        ],
        "models": [
            {"key": each.key, "size_bytes": each.size_bytes, "in_library": each.in_library, "names": each.names}
            for each in use.models
        ],
        "downloads": [{"job_id": each.id, "size_bytes": each.size_bytes} for each in use.downloads],
        "leftovers": [{"path": each.path, "size_bytes": each.size_bytes} for each in use.leftovers],
        "caches": [
            {"directory": each.directory, "instance": each.instance_id or None, "size_bytes": each.size_bytes}
            for each in use.caches
        ],
        "library_bytes": use.library_bytes,
        "adapters_bytes": use.adapters_bytes,
        "logs_bytes": use.logs_bytes,
        "database_bytes": use.database_bytes,
        "other_bytes": use.other_bytes,
        "used_bytes": use.used_bytes,
    }
