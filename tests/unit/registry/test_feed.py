"""The snapshots and changes that watchers receive."""

import pytest

from atelier.errors import Unavailable
from atelier.settings import Load
from registry.feed import Feed, InstanceRemoved, Snapshot
from registry.instances.instance_record import Instance, InstanceState


def instance(number: int, state: InstanceState = InstanceState.READY) -> Instance:
    return Instance(id=f"a/b:{number}", model_key="a/b", load=Load(), pin="", on_demand=True, host="", state=state)


async def test_a_snapshot_comes_first_and_changes_follow_in_order() -> None:
    feed = Feed()
    feed.publish(instance(1))
    changes = feed.follow()
    assert await anext(changes) == Snapshot([], [instance(1)], [], [])
    feed.publish(instance(2))
    feed.publish(instance(1, InstanceState.STOPPING))
    feed.remove_instance("a/b:1")
    seen = [await anext(changes) for _ in range(3)]
    assert seen == [instance(2), instance(1, InstanceState.STOPPING), InstanceRemoved("a/b:1")]
    await changes.aclose()


async def test_only_a_watcher_that_reads_too_slowly_is_dropped() -> None:
    feed = Feed(most_behind=2)
    slow, quick = feed.follow(), feed.follow()
    await anext(slow)
    await anext(quick)
    for number in range(4):
        feed.publish(instance(number))
        await anext(quick)
    with pytest.raises(Unavailable):
        await anext(slow)
    await quick.aclose()


async def test_watchers_end_with_the_feed_after_the_remaining_changes() -> None:
    feed = Feed()
    changes = feed.follow()
    await anext(changes)
    feed.publish(instance(1))
    feed.close()
    assert [change async for change in changes] == [instance(1)]


async def test_removing_an_unknown_entry_sends_no_change() -> None:
    feed = Feed()
    changes = feed.follow()
    await anext(changes)
    feed.remove_model("a/b")
    feed.close()
    assert [change async for change in changes] == []
