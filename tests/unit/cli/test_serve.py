import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.cli.children import Crashes, _ending
from atelier.cli.main import command_of
from atelier.cli.output import Failure
from atelier.cli.preflight import check_exposure, check_home_is_free, claim_port, prepare_home
from atelier.cli.readiness import announcement
from atelier.cli.serve import configured
from atelier.cli.service_log import last_line, readable_record, set_aside_if_large, warning_in
from atelier.cli.service_supervisor import service_environment, without_api_key
from atelier.config import Config
from registry.devices.pinning import worker_environment
from tests.unit.cli.conftest import Atelier

INTERNAL = {"registry_address", "registry_token", "engine", "worker_grace", "log_format", "script"}  # variables only


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("ATELIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_the_options_of_serve_are_the_configurations_fields() -> None:
    options = {parameter.name for parameter in command_of("serve").params}
    assert options == set(Config.model_fields) - INTERNAL


def test_an_option_overrides_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_PORT", "5000")
    assert configured({"port": None}).port == 5000
    assert configured({"port": 6000, "cors": ["http://a", "http://b,http://c"]}).port == 6000
    assert configured({"cors": ["http://a", "http://b,http://c"]}).cors == ["http://a", "http://b", "http://c"]


def test_an_invalid_variable_is_named(monkeypatch: pytest.MonkeyPatch, atelier: Atelier) -> None:
    monkeypatch.setenv("ATELIER_PORT", "http")
    result = atelier("serve")
    assert result.exit_code == 1
    assert "ATELIER_PORT" in result.stderr
    assert "valid integer" in result.stderr


def test_a_port_in_use_is_reported_before_anything_starts(atelier: Atelier, taken_port: int, home: Path) -> None:
    result = atelier("serve", "--port", str(taken_port))
    assert result.exit_code == 1
    assert result.stderr == (
        f"atelier: Port {taken_port} is in use. "
        "Choose another one with --port (ATELIER_PORT), or stop the program that listens there.\n"
    )
    assert list((home / "logs").iterdir()) == []


def test_port_0_becomes_a_free_one() -> None:
    assert claim_port("127.0.0.1", 0) > 0


def test_a_foreign_host_address_is_reported() -> None:
    with pytest.raises(Failure, match="Cannot listen on 192"):
        claim_port("192.0.2.1", 0)


def test_a_public_server_needs_a_key_or_explicit_permission() -> None:
    with pytest.raises(Failure, match="ATELIER_API_KEY"):
        check_exposure(configured({"host": "0.0.0.0"}))
    check_exposure(configured({"host": "0.0.0.0", "api_key": "k"}))
    check_exposure(configured({"host": "0.0.0.0", "allow_open": True}))
    check_exposure(configured({"host": "localhost"}))
    check_exposure(configured({"host": "::1"}))


def test_a_home_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="--home"):
        prepare_home(configured({"home": tmp_path / "file" / "home"}))


def test_a_home_serves_one_server_at_a_time() -> None:
    config = configured({})
    prepare_home(config)
    path = config.registry_target.removeprefix("unix:")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        check_home_is_free(config)  # a socket that a killed server left behind
        listener.listen()
        with pytest.raises(Failure, match="runs already"):
            check_home_is_free(config)


def test_the_services_environment_is_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured({"port": 7, "cors": ["http://a", "http://b"], "api_key": "k", "load_on_demand": False})
    inherited = {"PATH": "/bin", "ATELIER_PORT": "5", "ATELIER_REGISTRY_TOKEN": "old", "ATELIER_UNKNOWN": "kept"}
    environment = service_environment(config, inherited)
    assert environment["PATH"] == "/bin"
    assert environment["ATELIER_UNKNOWN"] == "kept"
    assert "ATELIER_REGISTRY_TOKEN" not in environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Config() == config.model_copy(update={"log_format": "json"})


def test_variables_that_only_look_like_the_configurations_are_inherited() -> None:
    inherited = {"HOME": "/home/me", "PORT": "80", "HOST": "lab1", "ENGINE": "x", "home": "y"}
    environment = service_environment(configured({}), inherited)
    assert inherited.items() <= environment.items()
    assert worker_environment(without_api_key(environment), {})["HOME"] == "/home/me"


def test_the_registry_never_sees_the_clients_key() -> None:
    environment = service_environment(configured({"api_key": "k"}), {"atelier_api_key": "k", "Atelier_Port": "5"})
    assert environment["ATELIER_API_KEY"] == "k"
    assert not {"atelier_api_key", "Atelier_Port"} & environment.keys()
    assert "k" not in without_api_key({**environment, "atelier_api_key": "k"}).values()


def test_a_crashed_service_waits_longer_each_time() -> None:
    crashes = Crashes()
    assert [crashes.delay_after(now, 20) for now in (20, 41, 63, 87, 115, 151, 201)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_service_that_ran_for_a_while_starts_without_delay() -> None:
    crashes = Crashes()
    assert [crashes.delay_after(0, 5), crashes.delay_after(10, 5), crashes.delay_after(100, 61)] == [1, 2, 1]


def test_five_crashes_within_a_minute_end_the_server() -> None:
    crashes = Crashes()
    assert [crashes.delay_after(now, 1) for now in (1, 3, 6, 11, 20)] == [1, 2, 4, 8, None]


def test_the_end_of_a_service_is_described_in_words() -> None:
    assert _ending(3) == "ended with exit code 3"
    assert _ending(-signal.SIGSEGV) == "was killed by SIGSEGV"


def test_a_warning_in_the_log_is_reported_with_its_fields() -> None:
    record = {"event": "worker_lost", "instance": "a/b", "level": "warning", "timestamp": "t", "service": "registry"}
    assert warning_in(json.dumps(record)) == "worker_lost instance=a/b"
    assert warning_in(json.dumps({**record, "level": "info"})) == ""
    assert warning_in("llama_model_loader: loaded meta data") == ""
    assert warning_in("[1, 2]") == ""


def test_an_exception_in_the_log_is_reported_by_its_last_line() -> None:
    record = {"event": "rpc_failed", "level": "error", "exception": "Traceback:\n  File x\nValueError: no"}
    assert readable_record(json.dumps(record)) == "rpc_failed (ValueError: no)"


def test_the_last_line_of_a_log_may_be_plain_text(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    log.write_text('{"event": "starting"}\nModuleNotFoundError: No module named x\n\n')
    assert last_line(log) == "ModuleNotFoundError: No module named x"
    log.write_text("")
    assert last_line(log) == ""


def test_a_large_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atelier.cli.service_log.KEPT_BYTES", 10)
    log = tmp_path / "gateway.log"
    log.write_text("x" * 11)
    set_aside_if_large(log)
    assert not log.exists()
    assert (tmp_path / "gateway.log.1").exists()


def test_the_announcement_has_the_address_and_a_first_request() -> None:
    text = announcement(configured({"host": "0.0.0.0", "api_key": "k"}), ["a/b"])
    assert "Ready at http://127.0.0.1:1234" in text
    assert "curl http://127.0.0.1:1234/v1/chat/completions" in text
    assert "Bearer $ATELIER_API_KEY" in text
    assert '"model": "a/b"' in text


def test_the_announcement_without_models_says_how_to_get_one() -> None:
    assert "atelier import FILE" in announcement(configured({}), [])


@pytest.mark.parametrize("field", ["cors", "allowed_hosts", "rpc_servers"])
def test_a_list_without_an_option_is_the_variables(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    monkeypatch.setenv(f"ATELIER_{field.upper()}", "a:1,b:2")
    given = command_of("serve").make_context("serve", []).params
    assert getattr(configured(given), field) == ["a:1", "b:2"]
