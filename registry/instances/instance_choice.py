"""Which of a model's instances a caller waits for: pure."""

from collections.abc import Iterable

from registry.instances.instance_record import Instance, State

# Best first. One that is on its way is waited for, also when it stalls: a second copy of a model
# that does not answer would only take the memory that the first one needs.
PREFERENCE = (State.READY, State.LOADING, State.STARTING, State.RESTARTING, State.STALLED, State.STOPPING, State.FAILED)


def choose(instances: Iterable[Instance]) -> Instance | None:
    """The instance to use, wait for, or (when it failed) try again; None when there is none.

    Adapters make another model of it: those with some stand in only where there is none without.
    """
    return min(
        instances, key=lambda instance: (bool(instance.load.lora), PREFERENCE.index(instance.state)), default=None
    )
