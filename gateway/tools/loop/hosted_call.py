"""A call of a server's tool that the gateway runs. Pure."""

from dataclasses import dataclass

from gateway.core.events import HostedCallEnded
from gateway.core.hosted_tool import HostedTool, ToolOutput


@dataclass(frozen=True, slots=True)
class HostedCall:
    """A complete call. `number`: of the call in its answer."""

    number: int
    id: str
    tool: HostedTool
    arguments: str

    def ended(self, output: ToolOutput | None, error: str = "") -> HostedCallEnded:
        return HostedCallEnded(0, self.number, self.id, self.tool, self.arguments, output, error)
