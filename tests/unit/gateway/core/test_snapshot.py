from atelier.errors import LoadFailed, to_message
from gateway.fleet.snapshot import Instance, InstanceState, Model, Snapshot
from gateway.fleet.wire import STATES, apply, read_instance, read_model
from protos import registry_pb2 as pb
from protos.settings_pb2 import LoadSettings, SamplingSettings


def change(before: Snapshot, /, **changed: object) -> Snapshot:
    return apply(before, pb.Change(**changed))  # type: ignore[arg-type]


def test_changes_add_replace_and_remove() -> None:
    first = change(
        Snapshot(), snapshot=pb.Snapshot(models=[pb.Model(key="a/b")], instances=[pb.Instance(id="i", model_key="a/b")])
    )
    assert (set(first.models), set(first.instances)) == ({"a/b"}, {"i"})
    second = change(first, instance=pb.Instance(id="i", model_key="a/b", state=pb.READY))
    assert second.instances["i"].state is InstanceState.READY
    assert first.instances["i"].state is InstanceState.UNKNOWN
    third = change(change(second, model=pb.Model(key="c/d")), instance_removed="i")
    assert (set(third.models), set(third.instances)) == ({"a/b", "c/d"}, set())
    assert set(change(third, model_removed="a/b").models) == {"c/d"}
    assert set(change(third, instance_removed="never was").models) == {"a/b", "c/d"}


def test_a_snapshot_replaces_the_earlier_state() -> None:
    assert change(Snapshot({"x/y": Model(key="x/y")}, {}), snapshot=pb.Snapshot()) == Snapshot({}, {})


def test_a_change_of_an_unknown_kind_changes_nothing() -> None:
    before = Snapshot({"x/y": Model(key="x/y")}, {})
    assert change(before) == before


def test_every_protobuf_state_has_a_name() -> None:
    assert set(STATES) == set(pb.InstanceState.values()) - {pb.INSTANCE_STATE_UNSPECIFIED}


def test_every_field_of_an_instance_is_read() -> None:
    error = to_message(LoadFailed("no"))
    message = pb.Instance(
        id="i", model_key="a/b", state=pb.FAILED, load=LoadSettings(parallel=2), error=error, pid=7, host="lab1"
    )
    instance = read_instance(message)
    assert (instance.id, instance.state, instance.pid, instance.host) == ("i", InstanceState.FAILED, 7, "lab1")
    assert instance.load == {"parallel": 2}
    assert isinstance(instance.error, LoadFailed)
    assert read_instance(pb.Instance(id="i")) == Instance(id="i", model_key="")


def test_every_field_of_a_model_is_read() -> None:
    sampling = SamplingSettings(temperature=0.2, stop=["x"])
    message = pb.Model(key="a/b", layers=30, made_for_tools=True, sampling_defaults=sampling)
    assert read_model(message) == Model(
        key="a/b", layers=30, made_for_tools=True, sampling_defaults={"temperature": 0.2, "stop": ["x"]}
    )
