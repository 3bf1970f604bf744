import errno
import os

import pytest

from atelier.hosts import exposure_fault, is_loopback, listen_fault


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_only_this_machine_reaches_a_loopback_address(host: str) -> None:
    assert is_loopback(host)
    assert exposure_fault(host, has_key=False, allow_open=False) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "lab1", "localhost.example.org"])
def test_a_server_that_others_reach_needs_a_key_or_explicit_permission(host: str) -> None:
    assert "ATELIER_API_KEY" in (exposure_fault(host, has_key=False, allow_open=False) or "")
    assert exposure_fault(host, has_key=True, allow_open=False) is None
    assert exposure_fault(host, has_key=False, allow_open=True) is None


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EADDRINUSE, "in use"), (errno.EACCES, "above 1023"), (errno.EIO, "Cannot listen on h")]
)
def test_the_reason_why_a_port_is_unavailable_is_reported(number: int, words: str) -> None:
    fault = listen_fault("h", 80, OSError(number, os.strerror(number)))
    assert words in fault
    assert "80" in fault
