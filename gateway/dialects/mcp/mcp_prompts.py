"""The MCP server's prompts: presets that have a system prompt. Pure."""

from mcp_types import GetPromptResult, Prompt, PromptArgument, PromptMessage, TextContent

from atelier.errors import PresetNotFound
from atelier.names import near_hint
from gateway.fleet.snapshot import Snapshot

TEXT = "text"  # the only argument


def system_prompts(snapshot: Snapshot) -> dict[str, str]:
    """By preset."""
    texts = {name: preset.settings.get("prompt", {}).get("system_prompt") for name, preset in snapshot.presets.items()}
    return {name: str(text) for name, text in sorted(texts.items()) if text}


def listed(snapshot: Snapshot) -> list[Prompt]:
    argument = PromptArgument(name=TEXT, description="The user's message that follows.", required=False)
    return [
        Prompt(name=name, title=name, description=f"The system prompt of the preset {name}.", arguments=[argument])
        for name in system_prompts(snapshot)
    ]


def filled(snapshot: Snapshot, name: str, text: str | None) -> GetPromptResult:
    """The system prompt as the first user message, as MCP has no system role. Raises PresetNotFound."""
    prompts = system_prompts(snapshot)
    if name not in prompts:
        hint = near_hint(name, prompts)
        raise PresetNotFound(f'There is no preset "{name[:100]}" with a system prompt.{hint}', param="name")
    texts = [prompts[name], *([text] if text else [])]
    messages = [PromptMessage(role="user", content=TextContent(text=each)) for each in texts]
    return GetPromptResult(description=f"The system prompt of the preset {name}.", messages=messages)
