"""The steps of the set-up: observe the machine, choose a backend, fill `.venv`."""

import fcntl
import hashlib
import io
import json
import os
import signal
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.setup import SetupError
from deploy.setup.backend import Backend, choose_backend
from deploy.setup.build_command import run
from deploy.setup.build_machine import Machine, observe_machine, require_compilers, require_free_disk, require_venv
from deploy.setup.console import BuildDisplay, Console, Phase
from deploy.setup.llama_wheel import PACKAGE, WheelCache, build_wheel, cmake_args, require_loadable, wheel_key
from deploy.setup.virtualenv import Environment, EnvironmentStamp, Lock, read_lock

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """What to install on this machine."""

    lock: Lock
    backend: Backend
    cmake_args: str
    wheel_key: str
    stamp: EnvironmentStamp


def main() -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(sys.stdout, os.environ)
    # A CI runner or a closed window ends the compilers too, as Ctrl-C does.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        with alone(ROOT, console):
            set_up(ROOT, os.environ, console)
    except SetupError as error:
        print(f"set-up stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up interrupted; run `make setup` to start again", file=sys.stderr)
        return 130
    return 0


def set_up(root: Path, env: Mapping[str, str], console: Console) -> None:
    plan = plan_for(root, observe_machine(env), env)
    environment = Environment(root)
    if environment.holds(plan.stamp):
        console.done(f".venv is ready, with llama.cpp ({plan.backend.label})")
        return
    cache = WheelCache(env)
    require_venv()
    require_free_disk(root)
    if not cache.find(plan.wheel_key):
        require_compilers(env)
    console.say(f"llama.cpp backend: {plan.backend.label} ({plan.backend.why})")
    with environment.being_filled(plan.stamp):
        fill(environment, plan, cache, console)


def fill(environment: Environment, plan: Plan, cache: WheelCache, console: Console) -> None:
    with console.phase("environment"):
        environment.ensure_python()
    with console.phase(f"llama.cpp ({plan.backend.label})") as phase, environment.scratch() as scratch:
        wheel = cache.find(plan.wheel_key) or compile_wheel(environment, plan, cache, scratch, phase)
        environment.install("--force-reinstall", wheel)
    with console.phase("dependencies"), environment.scratch() as scratch:
        others = scratch / "others.txt"
        others.write_text(plan.lock.others)
        environment.install("--require-hashes", "-r", others)
    with console.phase("atelier"):
        # setuptools is locked: an isolated build would download another version.
        environment.install("--no-build-isolation", "--editable", environment.root)
        require_whole(environment, plan, cache)


def compile_wheel(environment: Environment, plan: Plan, cache: WheelCache, scratch: Path, phase: Phase) -> Path:
    phase.announce(expected_time(plan))
    log = environment.folder / "llama-build.log"
    display = BuildDisplay(phase)
    wheel = build_wheel(plan.lock.compiled, plan.cmake_args, environment.python, scratch, log, display.update)
    cache.keep(plan.wheel_key, wheel)
    return wheel


def expected_time(plan: Plan) -> str:
    compiling = f"compiling llama.cpp ({PACKAGE} {plan.lock.compiled.version}), once for this machine"
    if plan.backend.name == "cpu":
        return f"{compiling}: 4 to 6 minutes on two cores"
    return f"{compiling}: 4 to 6 minutes on two cores for the CPU backend, and several times that for the GPU's"


def require_whole(environment: Environment, plan: Plan, cache: WheelCache) -> None:
    """Check the installation. A wheel that does not load is removed from the cache: another CPU may have built it."""
    run([environment.python, "-m", "pip", "check"], environment.log)
    if not plan.backend.runs_here:
        return
    try:
        require_loadable(environment.python, environment.log)
    except SetupError:
        cache.discard(plan.wheel_key)
        raise


def plan_for(root: Path, machine: Machine, env: Mapping[str, str]) -> Plan:
    lock_text = (root / "requirements.lock").read_text()
    lock = read_lock(lock_text, PACKAGE)
    backend = choose_backend(machine, env.get("ATELIER_BACKEND"))
    args = cmake_args(backend, env)
    key = wheel_key(lock.compiled, args, backend, machine)
    contents = fingerprint(lock_text, key, *installed_project(root), *sources_of_setup())
    return Plan(lock, backend, args, key, EnvironmentStamp(str(root), f"{sys.base_prefix} {sys.version}", contents))


def installed_project(root: Path) -> Iterator[str]:
    """What an editable install depends on: the project's metadata and its top-level packages."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    yield json.dumps([project["build-system"], project["project"], project["tool"]["setuptools"]])
    yield from sorted(found.parent.name for found in root.glob("*/__init__.py"))


def sources_of_setup() -> Iterator[str]:
    return (path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")))


def fingerprint(*facts: str) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@contextmanager
def alone(root: Path, console: Console) -> Iterator[None]:
    """Allows one set-up at a time in a checkout: `make run` and `make test` in two windows share `.venv`."""
    folder = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say("another set-up is running in this checkout; waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
