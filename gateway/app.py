"""The HTTP application: the dialects' routes, behind the middleware."""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from atelier import __version__
from atelier.config import Config
from atelier.errors import AtelierError
from atelier.metrics import GatewayMetrics
from gateway.core.admission import Admission
from gateway.dialects.openapi import add_route, describe
from gateway.dialects.route import Route, RouteTable
from gateway.http.error_responses import handle_error, handle_http_exception
from gateway.http.streaming import ClientGone, handle_client_gone
from gateway.middleware import layers


def create_app(
    config: Config, dialects: Sequence[RouteTable], admission: Admission, metrics: GatewayMetrics
) -> FastAPI:
    """Of routes that match the same path the first one answers."""
    app = FastAPI(
        title="LM Atelier",
        version=__version__,
        description="Local models behind OpenAI's, Anthropic's, LM Studio's and Ollama's REST.",
        redoc_url=None,
        middleware=layers(config, admission, metrics),
        exception_handlers={
            AtelierError: handle_error,
            HTTPException: handle_http_exception,
            ClientGone: handle_client_gone,
            ClientDisconnect: handle_client_gone,  # while its body was read
        },
        redirect_slashes=False,
    )
    described = []
    for dialect in dialects:
        for route in dialect.routes():
            if isinstance(route, Route):
                add_route(app, route, dialect.tag)
                described.append(route)
            else:
                app.add_api_websocket_route(route.path, route.endpoint)
    describe(app, described)
    return app
