"""Presets as prompts: those that have a system prompt. Pure."""

from mcp_types import GetPromptResult, Prompt, PromptArgument, PromptMessage, TextContent

from atelier.errors import PresetNotFound
from atelier.names import near_hint
from gateway.fleet.snapshot import Snapshot

TEXT = "text"  # the only argument


def system_prompts(snapshot: Snapshot) -> dict[str, str]:
    """By preset."""
    found = {name: preset.settings.get("prompt", {}).get("system_prompt") for name, preset in snapshot.presets.items()}
    return {name: str(text) for name, text in sorted(found.items()) if text}


def listed(snapshot: Snapshot) -> list[Prompt]:
    argument = PromptArgument(name=TEXT, description="What the user says after it.", required=False)
    return [
        Prompt(name=name, title=name, description=f"The system prompt of the preset {name}.", arguments=[argument])
        for name in system_prompts(snapshot)
    ]


def filled(snapshot: Snapshot, name: str, text: str | None) -> GetPromptResult:
    """MCP knows no system role: the system prompt is what the user says first. PresetNotFound."""
    prompts = system_prompts(snapshot)
    if name not in prompts:
        hint = near_hint(name, prompts)
        raise PresetNotFound(f'There is no preset "{name[:100]}" with a system prompt.{hint}', param="name")
    said = [prompts[name], *([text] if text else [])]
    messages = [PromptMessage(role="user", content=TextContent(text=each)) for each in said]
    return GetPromptResult(description=f"The system prompt of the preset {name}.", messages=messages)
