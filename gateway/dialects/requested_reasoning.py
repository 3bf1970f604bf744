"""What requests say of reasoning, as settings and as arguments of the chat template. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from atelier.settings import TABLE
from atelier.settings.settings_schema import annotation
from gateway.dialects.body import Body

BUDGET = "reasoning_budget"
# Other names of it in chats' bodies: DashScope's and Qwen's, vLLM's, and two of llama-server.
OTHER_NAMES = ("thinking_budget", "thinking_token_budget", "thinking_budget_tokens", "reasoning_budget_tokens")

ROW = TABLE["inference"][BUDGET]
Budget: Any = annotation(ROW)
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class RequestedReasoning(Body):
    """OpenAI's `reasoning`, with OpenRouter's fields."""

    effort: Effort | None = Field(
        None, description="Passed to the chat template, with enable_thinking: false for none, true otherwise."
    )
    max_tokens: Annotated[Budget, Field(description="OpenRouter's name of reasoning_budget.")] | None = None
    enabled: bool | None = Field(None, description="OpenRouter's. false: no reasoning.")

    @property
    def budget(self) -> int | None:
        if self.enabled is False:
            return 0
        return None if self.max_tokens is None else int(self.max_tokens)

    @property
    def arguments(self) -> Json:
        """A budget without anything else turns reasoning on."""
        on = bool(self.max_tokens) if self.enabled is None and self.max_tokens is not None else self.enabled
        return {**({} if on is None else {"enable_thinking": on}), **effort_arguments(self.effort)}


def effort_arguments(effort: str | None) -> Json:
    """Under both names that templates use for it."""
    return {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort != "none"}


def template_budget(arguments: Mapping[str, object] | None) -> int | None:
    """The budget among a template's own arguments. Raises InvalidRequest for one out of bounds."""
    value = (arguments or {}).get("thinking_budget")
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    try:
        ROW.check(value)
    except InvalidRequest:
        param = "chat_template_kwargs.thinking_budget"
        raise InvalidRequest(f"{param}: must be {ROW.bounds()}", param=param) from None
    return value


def budget_setting(*budgets: int | None) -> Json:
    """The setting, from the first budget that is given."""
    return next(({BUDGET: budget} for budget in budgets if budget is not None), {})
