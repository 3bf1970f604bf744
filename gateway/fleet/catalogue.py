"""The models and instances that requests may name."""

from atelier.errors import InstanceNotFound
from atelier.names import InstanceName, find_name, near_hint
from gateway.fleet.snapshot import LOADED, Instance, Model, Snapshot
from gateway.fleet.watcher import Watcher


class Catalogue:
    """A view of the watcher's snapshot, for the routes that list or look up names."""

    def __init__(self, watcher: Watcher, *, load_on_demand: bool) -> None:
        self._watcher = watcher
        self._load_on_demand = load_on_demand

    @property
    def snapshot(self) -> Snapshot:
        return self._watcher.snapshot

    def served(self) -> list[tuple[str, Model]]:
        """Names that a request may use: every model's key, or without loading on demand the loaded ones',
        and the identifiers that an operator chose for instances."""
        keys = [
            (key, model)
            for key, model in sorted(self.snapshot.models.items())
            if self._load_on_demand or loaded(self.snapshot, key)
        ]
        chosen = [
            (instance.id, self.snapshot.model_of(instance))
            for instance in self.snapshot.instances.values()
            if instance.id.partition(":")[0] != instance.model_key and instance.state in LOADED
        ]
        return keys + chosen

    def find(self, name: str) -> tuple[str, Model]:
        """The model or instance that a name means, with its full name. Raises ModelNotFound, with near names."""
        found = find_name(name, self.snapshot.models, self.snapshot.instances)
        if isinstance(found, InstanceName):
            return found.id, self.snapshot.model_of(self.snapshot.instances[found.id])
        return found.key, self.snapshot.models[found.key]

    def find_model(self, name: str) -> Model:
        """The model that a name means, even if an instance has the same name. Raises ModelNotFound."""
        found = find_name(name, self.snapshot.models, ())
        return self.snapshot.models[found.key if not isinstance(found, InstanceName) else found.id]

    def find_instance(self, name: str) -> Instance:
        """The instance of exactly this id: what is to be changed must be named in full. Raises InstanceNotFound."""
        if instance := self.snapshot.instances.get(name):
            return instance
        hint = near_hint(name, self.snapshot.instances)
        raise InstanceNotFound(f'No instance "{name[:200]}" is loaded.{hint}', param="instance_id")


def loaded(snapshot: Snapshot, key: str) -> list[Instance]:
    """The model's instances that can answer."""
    return [instance for instance in snapshot.instances_of(key) if instance.state in LOADED]
