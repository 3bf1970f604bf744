"""The names of models in Ollama's clients: NAME, NAME:latest, NAME:TAG, hf.co/USER/REPO:TAG. Pure."""

from atelier.errors import ModelNotFound
from atelier.names import InstanceName, ModelName, find_name, may_mean
from gateway.core.call_plan import reported_name
from gateway.fleet.snapshot import Model, Snapshot

LATEST = "latest"  # the tag that clients append to a name without one
HUB_HOSTS = ("hf.co/", "huggingface.co/")


def find_target(name: str, snapshot: Snapshot) -> ModelName | InstanceName:
    """The model or instance with this name. Raises ModelNotFound, with near names, for an unknown or ambiguous one.

    In this order: a name as in every dialect, `key:2` included; the same without ":latest"; the model whose
    variant or quantization is the tag; the model that was downloaded from this repository.
    """
    base, tag = split_tag(name)
    for candidate in (name, base) if tag == LATEST else (name,):
        try:
            return find_name(candidate, snapshot.models, snapshot.instances)
        except ModelNotFound as error:
            unknown = error
    repo = without_host(base)
    matches = [key for key, model in snapshot.models.items() if _is_called(model, repo) and _has_tag(model, tag)]
    if len(matches) == 1:
        return ModelName(matches[0])
    if matches:
        raise ModelNotFound(f'"{name[:200]}" could be any of: {", ".join(sorted(matches))}.', param="model")
    raise unknown


def full_name(name: str, snapshot: Snapshot) -> str:
    """The key or the instance's id."""
    return reported_name(find_target(name, snapshot))


def model_of(name: str, snapshot: Snapshot) -> Model:
    """The model with this name, or the model of the instance with this name. Raises ModelNotFound."""
    target = find_target(name, snapshot)
    if isinstance(target, ModelName):
        return snapshot.models[target.key]
    return snapshot.model_of(snapshot.instances[target.id])


def hub_reference(name: str) -> str:
    """The registry's reference of what to download. Raises ModelNotFound for names of Ollama's own library."""
    if "://" in name or name.startswith("pypi:"):
        return name
    base, tag = split_tag(without_host(name))
    if "/" not in base:
        raise ModelNotFound(
            f'"{name[:200]}" is not a repository on the hub, and Ollama\'s own library is not available. '
            "Name a model as hf.co/user/repo:Q4_K_M.",
            param="model",
        )
    if tag in ("", LATEST):
        return base
    return f"{base}:{tag}" if tag.lower().endswith(".gguf") else f"{base}@{tag}"


def split_tag(name: str) -> tuple[str, str]:
    """The name before its tag, and the tag. A colon before a slash belongs to the port of an address."""
    base, _, tag = name.rpartition(":")
    return (base, LATEST if tag.lower() == LATEST else tag) if base and "/" not in tag else (name, "")


def without_host(name: str) -> str:
    for host in HUB_HOSTS:
        if name.lower().startswith(host):
            return name[len(host) :]
    return name


def _is_called(model: Model, name: str) -> bool:
    return may_mean(name, model.key) or name.lower() == model.hub_repo.lower() != ""


def _has_tag(model: Model, tag: str) -> bool:
    variant = model.key.partition("@")[2]
    return tag in ("", LATEST) or tag.lower() in (variant.lower(), model.quantization.lower())
