"""What every request passes before its route: the log, the guards, CORS."""

import socket

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from atelier.config import Config
from atelier.hosts import WILDCARDS
from atelier.metrics import GatewayMetrics
from gateway.core.admission import Admission
from gateway.dialects.error_formats import form_of
from gateway.dialects.lmstudio_sdk.sdk_namespaces import PATHS
from gateway.dialects.reply import SETTINGS_HEADER, TIMING_HEADER, TRUNCATED_HEADER, UNENFORCED_HEADER
from gateway.http.guards import BodyLimit, DrainGuard, HostGuard, KeyGuard, OriginGuard
from gateway.http.request_log import RequestLog


def layers(config: Config, admission: Admission, metrics: GatewayMetrics) -> list[Middleware]:
    """From the outside in. CORS is outside the key, since a browser's preflight carries none."""
    found = [
        Middleware(RequestLog, metrics=metrics, form_of=form_of),
        Middleware(HostGuard, names=[*_own_names(config), *config.allowed_hosts]),
    ]
    if config.cors:
        found.append(
            Middleware(
                CORSMiddleware,
                allow_origins=config.cors,
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=["*"],
                expose_headers=[
                    *("x-request-id", "request-id", "retry-after", "mcp-session-id"),
                    *(UNENFORCED_HEADER, TRUNCATED_HEADER, SETTINGS_HEADER, TIMING_HEADER),
                ],
            )
        )
    found.append(Middleware(OriginGuard, allowed=config.cors))
    found.append(Middleware(DrainGuard, admission=admission))
    if config.api_key is not None:
        found.append(Middleware(KeyGuard, key=config.api_key.get_secret_value(), asked_within=PATHS))
    return [*found, Middleware(BodyLimit, limit=int(config.body_limit_mb * 2**20))]


def _own_names(config: Config) -> list[str]:
    """Names under which others on the network reach us, if they can at all."""
    if config.host not in WILDCARDS:
        return [config.host]
    hostname = socket.gethostname()
    return [hostname, f"{hostname}.local"]
