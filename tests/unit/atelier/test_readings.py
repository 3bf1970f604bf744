"""What a GPU's driver tells, and the wire that it goes over."""

from dataclasses import fields

from atelier.readings import Readings
from protos import registry_pb2 as pb


def test_the_wire_has_every_reading_and_each_may_be_missing() -> None:
    assert list(pb.Readings.DESCRIPTOR.fields_by_name) == [field.name for field in fields(Readings)]
    assert all(field.has_presence for field in pb.Readings.DESCRIPTOR.fields)
