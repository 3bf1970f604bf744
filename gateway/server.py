"""The gateway's parts, put together, and their lifecycle."""

import asyncio
import contextlib
from collections import Counter

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from atelier.config import Config
from atelier.errors import Draining
from atelier.metrics import GatewayMetrics
from gateway.app import create_app
from gateway.core.admission import Admission
from gateway.core.image_reader import ImageReader
from gateway.core.inference import InferenceCore
from gateway.core.outbound import AddressGuard
from gateway.core.routing import Dispatcher
from gateway.core.unary import Unary
from gateway.core.worker_connection import Workers
from gateway.dialects.anthropic.anthropic_routes import AnthropicRoutes
from gateway.dialects.download_follower import DownloadFollower
from gateway.dialects.lmstudio.lmstudio_chat_routes import LMStudioChatRoutes
from gateway.dialects.lmstudio.lmstudio_routes import LMStudioRoutes
from gateway.dialects.lmstudio.stored_conversation import KIND, Conversations
from gateway.dialects.lmstudio_sdk.sdk_calls import ModelCalls
from gateway.dialects.lmstudio_sdk.sdk_loading import LoadChannels
from gateway.dialects.lmstudio_sdk.sdk_namespaces import SDKSockets
from gateway.dialects.lmstudio_sdk.sdk_prediction import PredictChannel
from gateway.dialects.lmstudio_sdk.sdk_repository import RepositoryEndpoints
from gateway.dialects.mcp.mcp_resources import LogFiles, Resources
from gateway.dialects.mcp.mcp_routes import MCPRoutes
from gateway.dialects.mcp.tool_definition import ToolServices
from gateway.dialects.native.download_routes import DownloadRoutes
from gateway.dialects.native.health_routes import HealthRoutes
from gateway.dialects.native.mcp_server_routes import MCPServerRoutes
from gateway.dialects.native.native_routes import ManagementRoutes
from gateway.dialects.native.preset_routes import PresetRoutes
from gateway.dialects.ollama.keep_alive import ModelLoader
from gateway.dialects.ollama.ollama_pull import Pulls
from gateway.dialects.ollama.ollama_routes import OllamaRoutes
from gateway.dialects.openai.openai_completions import Completions, HostedChat
from gateway.dialects.openai.openai_routes import OpenAIRoutes
from gateway.dialects.responses.background_responses import Background
from gateway.dialects.responses.response_archive import Archive
from gateway.dialects.responses.response_creation import ResponseCreator
from gateway.dialects.responses.responses_routes import ResponseRoutes
from gateway.dialects.route import RouteTable
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.registry_client import RegistryClient, ResponseStore
from gateway.fleet.snapshot import InstanceState, Snapshot
from gateway.fleet.watcher import Watcher
from gateway.http.guards import ServerKey
from gateway.tools.elicitation import KIND as QUESTION_KIND
from gateway.tools.elicitation import OpenQuestions
from gateway.tools.loop.loop_policy import LoopLimits
from gateway.tools.loop.tool_host import ToolHost
from gateway.tools.mcp_client.connection_pool import ServerPool
from gateway.tools.mcp_client.mcp_limits import KIB, PoolLimits
from gateway.tools.mcp_client.mcp_servers_file import ServersFile
from gateway.tools.mcp_client.server_callbacks import ModelSampling

_log = structlog.get_logger(__name__)


class Gateway:
    """One gateway. `start` it on a running event loop, serve `app`, then `drain` and `close` it."""

    def __init__(self, config: Config, metrics: GatewayMetrics | None = None) -> None:
        self.metrics = metrics or GatewayMetrics(CollectorRegistry())
        self.admission = Admission(config.max_queued)
        self.registry = RegistryClient(config)
        self.workers = Workers()
        self.watcher = Watcher(self.registry, self._on_change)
        self._dispatcher = Dispatcher(
            self.watcher, self.registry, self.workers, self.metrics, load_on_demand=config.load_on_demand
        )
        self._images = ImageReader(AddressGuard(config.outbound_hosts) if config.fetch_images else None)
        core = (self.watcher, self._dispatcher, self.workers, self.admission, self.metrics, self._images)
        self.inference = InferenceCore(*core, queue_timeout=config.queue_timeout)
        self.unary = Unary(*core)
        self.mcp_pool = ServerPool(
            AddressGuard(config.outbound_hosts),
            limits=PoolLimits(
                result=int(config.mcp_result_kb * KIB),
                idle_seconds=config.mcp_idle,
                asking_seconds=config.mcp_elicitation,
            ),
            sampling=ModelSampling(self.inference),
        )
        self.mcp_file = ServersFile(config.mcp_file, on_read=self.mcp_pool.keep_only)
        self.tool_host = ToolHost(
            self.inference,
            self.mcp_pool,
            self.mcp_file.servers,
            self.metrics,
            LoopLimits(config.mcp_steps, seconds=config.mcp_seconds),
            own_servers=config.mcp_requests,
        )
        self.questions = OpenQuestions(ResponseStore(self.registry, QUESTION_KIND), config.mcp_elicitation)
        self.archive = Archive(ResponseStore(self.registry, "openai"))
        self.answers = ResponseCreator(self.inference, self.tool_host, self.archive)
        self.background = Background(
            self.inference, self.answers, self.archive, ResponseStore(self.registry, "openai-run")
        )
        catalogue = Catalogue(self.watcher, load_on_demand=config.load_on_demand)
        control = Control(self.registry, self.watcher)
        self.sdk = self._create_sdk(config, catalogue, control)
        self.mcp = self._create_mcp(config, catalogue, control)
        self.app = self._create_app(config, catalogue, control)
        self.metrics.watch_requests(lambda: self.admission.active, lambda: self.admission.waiting)
        self.metrics.registry_connected.set_function(lambda: self.watcher.connected)
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._watching = asyncio.create_task(self.watcher.run())
        await self.mcp.start()

    async def drain(self, grace_seconds: float) -> None:
        """Admit no more requests, let running ones finish within the grace period, end the rest with an error."""
        self.admission.close()
        self.mcp.drain()
        _log.info("draining", requests=self.admission.active + self.admission.waiting)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.admission.idle(), grace_seconds)
        too_late = Draining("The server stopped before the answer was complete; send the request again.")
        self.inference.end_all(too_late)
        self.unary.end_all(too_late)
        self.tool_host.end_all(too_late)
        await self.questions.close()
        await self.background.close()
        await self.registry.close()  # fails the requests that wait for a load
        await self.sdk.drain()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self.mcp.close()
        await self.questions.close()
        await self.background.close()
        await self.registry.close()
        await self.workers.close()
        await self._images.close()
        await self.mcp_pool.close()

    def _create_sdk(self, config: Config, catalogue: Catalogue, control: Control) -> SDKSockets:
        return SDKSockets(
            ModelCalls(catalogue, control, self.unary, self.watcher),
            LoadChannels(catalogue, control, self.watcher),
            PredictChannel(self.inference, self.watcher),
            RepositoryEndpoints(self.watcher, control, DownloadFollower(self.watcher, self.admission)),
            ServerKey(config.api_key.get_secret_value()) if config.api_key is not None else None,
            self.watcher,
            self.admission,
            self.metrics,
        )

    def _create_mcp(self, config: Config, catalogue: Catalogue, control: Control) -> MCPRoutes:
        follower = DownloadFollower(self.watcher, self.admission)
        services = ToolServices(self.inference, self.unary, catalogue, control, self.watcher, follower)
        resources = Resources(self.watcher, control, LogFiles(config.logs_dir), self.metrics.registry)
        return MCPRoutes(services, resources, int(config.body_limit_mb * 2**20))

    def _create_app(self, config: Config, catalogue: Catalogue, control: Control) -> FastAPI:
        completions = Completions(self.inference, HostedChat(self.tool_host, self.questions))
        anthropic = AnthropicRoutes(self.inference, self.unary, catalogue)
        openai = OpenAIRoutes(
            completions,
            self.unary,
            catalogue,
            anthropic,
            numbers_alone=config.embedding_encoding == "float",
        )
        conversations = Conversations(ResponseStore(self.registry, KIND))
        dialects: tuple[RouteTable, ...] = (
            openai,
            ResponseRoutes(self.answers, self.archive, self.background),
            anthropic,
            LMStudioRoutes(completions, catalogue, control, openai.embeddings),
            LMStudioChatRoutes(self.inference, self.tool_host, self.watcher, conversations, self.questions),
            self._ollama_routes(catalogue, control),
            DownloadRoutes(self.watcher, control),
            ManagementRoutes(self.watcher, catalogue, control, self.unary, self.admission),
            PresetRoutes(self.watcher, control),
            MCPServerRoutes(self.mcp_file, self.mcp_pool, self.questions),
            self.mcp,
            self.sdk,
            HealthRoutes(self.watcher, self.admission, self.metrics),
        )
        return create_app(config, dialects, self.admission, self.metrics)

    def _ollama_routes(self, catalogue: Catalogue, control: Control) -> OllamaRoutes:
        loader = ModelLoader(self.watcher, self._dispatcher, control)
        pulls = Pulls(self.watcher, control, DownloadFollower(self.watcher, self.admission))
        return OllamaRoutes(self.inference, self.unary, self.watcher, catalogue, control, loader, pulls)

    def _on_change(self, snapshot: Snapshot) -> None:
        self.workers.follow(snapshot)
        states = Counter(instance.state for instance in snapshot.instances.values())
        self.metrics.set_inventory(len(snapshot.models), {state.value: states[state] for state in InstanceState})
