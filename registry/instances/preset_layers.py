"""The presets below the settings that an instance was asked for, as they were when it was loaded.

They are kept with it: a preset that is changed later changes no instance that runs, and none that is
launched again.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from atelier.settings import Layer
from atelier.settings.load_resolution import preset_layers
from atelier.settings.preset import Preset, Settings, settings_from_json, settings_json


@dataclass(frozen=True, slots=True)
class PresetLayers:
    """`chosen`: named by who loaded it. `default`: the model's."""

    chosen: Preset | None = None
    default: Preset | None = None

    @property
    def load(self) -> list[Layer]:
        """Their load settings, the stronger first."""
        return preset_layers(self.chosen, self.default)

    @property
    def own(self) -> Settings:
        """What requests to the instance find set, where they are silent."""
        if self.chosen is None:
            return {}
        return {group: values for group, values in self.chosen.settings.items() if group != "load"}

    def to_json(self) -> dict[str, Any]:
        return {"chosen": _to_json(self.chosen), "default": _to_json(self.default)}

    @classmethod
    def from_json(cls, values: dict[str, Any] | None) -> "PresetLayers":
        return cls(_from_json(values.get("chosen")), _from_json(values.get("default"))) if values else cls()


def _to_json(preset: Preset | None) -> dict[str, Any] | None:
    if preset is None:
        return None
    return {"name": preset.name, "version": preset.version, "settings": orjson.loads(settings_json(preset.settings))}


def _from_json(values: dict[str, Any] | None) -> Preset | None:
    if values is None:
        return None
    settings = settings_from_json(orjson.dumps(values["settings"]))
    return Preset(name=values["name"], version=values["version"], settings=settings)
