"""The registry's lifecycle: startup, serve, drain."""

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from atelier.config import Config, make_private
from atelier.rpc import create_server
from protos.registry_pb2_grpc import add_RegistryServicer_to_server
from registry.database import Database, open_database
from registry.devices.device_probe import DeviceProbe
from registry.disk.disk_usage import Disk
from registry.feed import Feed
from registry.hub.download_store import DownloadStore
from registry.hub.downloads import Downloads
from registry.hub.hub_client import Hub
from registry.instances.adoption import adopt_instances
from registry.instances.core_shares import CoreShares
from registry.instances.instance_loader import InstanceLoader
from registry.instances.instance_set import InstanceSet
from registry.instances.instance_store import InstanceStore
from registry.instances.instance_supervisor import Supervisor
from registry.instances.launch_plan import LaunchPlanner, launch_rules
from registry.instances.launcher import Launcher
from registry.instances.memory_admission import MemoryAdmission
from registry.instances.reconciler import Reconciler
from registry.models.adapter_files import AdapterFolder
from registry.models.folder_watch import FolderWatch
from registry.models.model_catalogue import ModelCatalogue
from registry.models.model_store import ModelStore
from registry.presets.preset_catalogue import Presets
from registry.presets.preset_store import PresetStore
from registry.responses.response_retention import Responses
from registry.responses.response_rows import ResponseStore
from registry.servicer import RegistryServicer

SERVICE = "atelier.v1.Registry"
LAST_CALLS_SECONDS = 1.0  # for calls to end by themselves, when all that they wait for has stopped

_log = structlog.get_logger(__name__)


class CannotServe(Exception):
    """The configuration does not allow the registry to listen."""


class RegistryServer:
    """Assembles the parts, and owns the gRPC server and the background tasks. `start`, then `drain`."""

    def __init__(self, config: Config, database: Database, launcher: Launcher, hub: Hub) -> None:
        rules, probe = launch_rules(config), DeviceProbe(config.rpc_servers)
        self._config = config
        self._database = database
        self._launcher = launcher
        self._instance_store = InstanceStore(database)
        self.feed = Feed()
        self.catalogue = ModelCatalogue(config.models_dir, ModelStore(database), self.feed)
        self.folder_watch = FolderWatch(config.models_dir, self.catalogue)
        self.presets = Presets(PresetStore(database), self.catalogue, self.feed)
        self.instances = InstanceSet(self.catalogue, self._instance_store, self.feed, rules.shutdown_grace)
        self._planner = LaunchPlanner(self.catalogue, self.presets, AdapterFolder(config.adapters_dir), rules.cores)
        self._admission = MemoryAdmission(rules, self.instances, probe)
        core_shares = CoreShares(rules.cores, self.instances, probe)
        supervise = partial(
            Supervisor, rules, launcher, self._instance_store, self.feed, self._admission.admit, core_shares.settle
        )
        self.loader = InstanceLoader(self.catalogue, self._planner, self.instances, supervise, rules)
        self.downloads = Downloads(config.models_dir, hub, DownloadStore(database), self.catalogue, self.feed)
        self.responses = Responses(
            ResponseStore(database), days=config.response_days, most_bytes=int(config.response_limit_mb * 2**20)
        )
        self._disk = Disk(config, self.catalogue, self.downloads, self.instances)
        self._health = health.aio.HealthServicer()
        self._server = create_server(_token(config))
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Find the models, adopt the workers, and only then serve: the first snapshot is complete.

        Raises CannotServe with the reason.
        """
        check_target(self._config)
        await self.catalogue.scan()
        await self.presets.load()
        await adopt_instances(await self._instance_store.all(), self.loader, self._launcher, self._instance_store)
        self._launcher.clear_all_but(self.instances.addresses())
        await self.downloads.recover()
        await self._serve()
        self._background = [
            asyncio.create_task(Reconciler(self.instances, self.loader.start_replica, self.catalogue.all).run()),
            asyncio.create_task(self.folder_watch.run()),
            asyncio.create_task(self.responses.run()),
        ]
        self._launcher.prepare()
        _log.info("registry_ready", address=self._config.registry_target)

    async def drain(self) -> None:
        """Accept no more calls, let workers finish and end, leave no process and no socket."""
        await self._set_serving(False)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self.catalogue.stop_imports()
        await asyncio.gather(self.downloads.close(), self.instances.drain(self._config.shutdown_grace))
        await self._launcher.close()
        await self.catalogue.close()
        self.feed.close()
        await self._server.stop(LAST_CALLS_SECONDS)
        await self._database.close()
        _remove_socket(self._config.registry_target)
        with suppress(OSError):  # not empty: workers that did not end
            self._config.run_dir.rmdir()
        _log.info("registry_stopped")

    async def _serve(self) -> None:
        servicer = RegistryServicer(
            catalogue=self.catalogue,
            loader=self.loader,
            instances=self.instances,
            planner=self._planner,
            admission=self._admission,
            downloads=self.downloads,
            presets=self.presets,
            responses=self.responses,
            disk=self._disk,
            feed=self.feed,
        )
        add_RegistryServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._listen()
        await self._server.start()
        await self._set_serving(True)

    def _listen(self) -> None:
        target = self._config.registry_target
        try:
            self._server.add_insecure_port(target)
        except RuntimeError as error:
            raise CannotServe(
                f"The registry cannot listen on {target}: {error}. Is the address in use? "
                "Choose another with ATELIER_REGISTRY_ADDRESS."
            ) from error

    async def _set_serving(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, status)


async def open_server(config: Config, launcher: Launcher, hub: Hub | None = None) -> RegistryServer:
    """A server on the home's database, not started yet. `hub`: by default the one that the environment names."""
    return RegistryServer(config, await open_database(config.database_path), launcher, hub or Hub())


def check_target(config: Config) -> None:
    """Raises CannotServe if the registry would listen without authentication: it publishes the workers' tokens."""
    if config.registry_target.startswith("unix:"):
        make_private(config.run_dir)
    elif not _token(config):
        raise CannotServe(
            f"The registry does not listen on {config.registry_target} without a token. Set ATELIER_REGISTRY_TOKEN "
            "to a long random string, the same for the registry and the gateways."
        )


def _token(config: Config) -> str | None:
    return config.registry_token.get_secret_value() if config.registry_token else None


def _remove_socket(target: str) -> None:
    if target.startswith("unix:"):
        with suppress(FileNotFoundError):
            Path(target.removeprefix("unix:")).unlink()
