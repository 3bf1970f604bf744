import shlex
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from deploy.setup import SetupError
from deploy.setup.backend import choose_backend
from deploy.setup.build_command import CommandFailed, explain_failure, hint_for, run
from deploy.setup.build_machine import Machine, Tool, cpu_identity, find_compiler
from deploy.setup.console import BuildDisplay, BuildProgress, Console, bar, clock
from deploy.setup.llama_wheel import WheelCache, cmake_args, wheel_key
from deploy.setup.virtualenv import Environment, EnvironmentStamp, LockedPackage, read_lock

BARE = Machine(
    system="Linux",
    arch="x86_64",
    platform="linux-x86_64 glibc 2.36",
    cpu="model name: one",
    cxx=Tool(("/usr/bin/c++",), "c++ 12.2.0"),
    nvcc=None,
    nvidia_gpus=(),
    hipcc=None,
    amd_gpus=(),
    glslc=None,
    vulkan_headers=False,
    render_nodes=(),
)
NVCC = Tool(("/opt/cuda/bin/nvcc",), "13.0")
CUDA = replace(BARE, nvcc=NVCC, nvidia_gpus=("NVIDIA H100",))
ROCM = replace(BARE, hipcc=Tool(("/opt/rocm/bin/hipcc",), "7.1"), amd_gpus=("gfx 90402",))
VULKAN = replace(BARE, glslc=Tool(("glslc",), "1"), vulkan_headers=True, render_nodes=("/dev/dri/renderD128",))
APPLE = replace(BARE, system="Darwin", arch="arm64", platform="macosx-14.0-universal2")

LOCK = """# made by uv
aiosqlite==0.22.1 \\
    --hash=sha256:aa
    # via lm-atelier
llama-cpp-python==0.3.36 \\
    --hash=sha256:bb
    # via lm-atelier
numpy==2.4.6 \\
    --hash=sha256:cc
"""


@pytest.mark.parametrize(
    ("machine", "name"),
    [(BARE, "cpu"), (CUDA, "cuda"), (ROCM, "rocm"), (VULKAN, "vulkan"), (APPLE, "metal")],
)
def test_a_gpu_with_its_toolchain_is_used_otherwise_the_cpu(machine: Machine, name: str) -> None:
    assert choose_backend(machine).name == name


def test_a_toolchain_without_a_device_does_not_choose_cuda() -> None:
    chosen = choose_backend(replace(BARE, nvcc=NVCC))
    assert chosen.name == "cpu"
    assert chosen.why == "found nvcc, but not an NVIDIA GPU"


def test_a_device_without_its_toolchain_says_what_to_install() -> None:
    chosen = choose_backend(replace(BARE, nvidia_gpus=("NVIDIA H100",)))
    assert chosen.name == "cpu"
    assert chosen.why == "found NVIDIA H100, but not nvcc (install the CUDA toolkit)"


def test_glslc_without_the_headers_does_not_choose_vulkan() -> None:
    assert choose_backend(replace(VULKAN, vulkan_headers=False)).name == "cpu"


def test_cuda_is_preferred_to_vulkan_on_the_same_gpu() -> None:
    both = replace(CUDA, glslc=VULKAN.glslc, vulkan_headers=True, render_nodes=VULKAN.render_nodes)
    assert choose_backend(both).name == "cuda"


def test_cuda_is_compiled_by_the_nvcc_that_was_found() -> None:
    assert "-DCMAKE_CUDA_COMPILER=/opt/cuda/bin/nvcc" in choose_backend(CUDA).cmake_args


def test_the_requested_backend_overrides_the_gpu() -> None:
    assert choose_backend(CUDA, "cpu").name == "cpu"


def test_a_requested_backend_without_its_toolchain_is_rejected() -> None:
    with pytest.raises(SetupError, match="ATELIER_BACKEND=cuda, but this machine lacks nvcc"):
        choose_backend(BARE, "cuda")


def test_an_unknown_backend_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(SetupError, match="cpu, cuda, rocm, vulkan, metal"):
        choose_backend(BARE, "tpu")


def test_a_requested_gpu_backend_without_a_device_is_compiled_for_any() -> None:
    chosen = choose_backend(replace(BARE, nvcc=NVCC), "cuda")
    assert "-DGGML_NATIVE=OFF" in chosen.cmake_args
    assert not chosen.runs_here


def test_the_users_cmake_args_come_last() -> None:
    args = cmake_args(choose_backend(BARE), {"CMAKE_ARGS": "-DGGML_NATIVE=OFF"})
    assert args.index("-DGGML_NATIVE=ON") < args.index("-DGGML_NATIVE=OFF")


def test_tiles_are_disabled_and_the_users_flags_are_kept() -> None:
    """GCC 12 drops the setup of Intel's tiles: every prompt would crash the worker."""
    args = shlex.split(cmake_args(choose_backend(BARE), {"CFLAGS": "-O1", "CXXFLAGS": "-O1 -g"}))
    assert "-DCMAKE_C_FLAGS=-O1 -U__AMX_INT8__" in args
    assert "-DCMAKE_CXX_FLAGS=-O1 -g -U__AMX_INT8__" in args


def test_the_lock_is_split_into_the_compiled_package_and_the_others() -> None:
    lock = read_lock(LOCK, "llama-cpp-python")
    assert lock.compiled.version == "0.3.36"
    assert "sha256:bb" in lock.compiled.text
    assert "sha256:cc" not in lock.compiled.text
    assert "llama" not in lock.others
    assert lock.others.count("--hash") == 2


def test_a_lock_without_the_compiled_package_is_rejected() -> None:
    with pytest.raises(SetupError, match="make lock"):
        read_lock("numpy==2.4.6\n", "llama-cpp-python")


def test_this_repositorys_lock_can_be_split() -> None:
    text = (Path(__file__).parents[2] / "requirements.lock").read_text()
    assert "--hash=sha256:" in read_lock(text, "llama-cpp-python").compiled.text


@pytest.mark.parametrize(
    "other",
    [
        replace(BARE, cpu="model name: two"),
        replace(BARE, cxx=Tool(("/usr/bin/c++",), "c++ 14.2.0")),
        replace(BARE, platform="linux-x86_64 glibc 2.41"),
        replace(BARE, nvidia_gpus=("NVIDIA A100",)),
    ],
)
def test_a_wheel_is_not_reused_on_a_machine_that_compiles_differently(other: Machine) -> None:
    pin, chosen = LockedPackage("llama-cpp-python", "0.3.36", "llama"), choose_backend(BARE)
    assert wheel_key(pin, "-DA=1", chosen, BARE) == wheel_key(pin, "-DA=1", chosen, replace(BARE))
    assert wheel_key(pin, "-DA=1", chosen, BARE) != wheel_key(pin, "-DA=1", chosen, other)


def test_a_wheel_is_not_reused_for_another_source_or_other_arguments() -> None:
    chosen = choose_backend(BARE)
    keys = {
        wheel_key(LockedPackage("p", "1", text), args, chosen, BARE)
        for text in ("a", "b")
        for args in ("-DA=1", "-DA=2")
    }
    assert len(keys) == 4


def test_cores_that_differ_only_in_their_number_are_one_cpu() -> None:
    core = "processor : {0}\nmodel name : EPYC\ncpu MHz : 2{0}00\nflags : avx2 fma\n"
    assert cpu_identity(core.format(0) + core.format(1)) == "flags : avx2 fma\nmodel name : EPYC"


def test_a_compiler_named_in_the_environment_may_have_a_launcher() -> None:
    found = find_compiler("env c++", [])
    assert found is None or found.command == ("env", "c++")


def test_a_named_compiler_that_is_missing_is_not_replaced_by_a_usual_one() -> None:
    assert find_compiler("no-such-compiler", ["python3"]) is None


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "llama-1-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr("llama_cpp/__init__.py", "")
    return path


def test_a_kept_wheel_is_found_until_it_is_discarded(tmp_path: Path, wheel: Path) -> None:
    cache = WheelCache({"XDG_CACHE_HOME": str(tmp_path / "cache")})
    cache.keep("key", wheel)
    found = cache.find("key")
    assert found is not None
    assert found.read_bytes() == wheel.read_bytes()
    cache.discard("key")
    assert cache.find("key") is None


def test_keeping_a_wheel_twice_leaves_one(tmp_path: Path, wheel: Path) -> None:
    cache = WheelCache({"XDG_CACHE_HOME": str(tmp_path / "cache")})
    cache.keep("key", wheel)
    cache.keep("key", wheel)
    folder = tmp_path / "cache" / "lm-atelier" / "wheels"
    assert [path.name for path in folder.iterdir()] == ["key"]


def test_a_damaged_wheel_is_not_found(tmp_path: Path, wheel: Path) -> None:
    cache = WheelCache({"XDG_CACHE_HOME": str(tmp_path / "cache")})
    wheel.write_bytes(b"half of one")
    cache.keep("key", wheel)
    assert cache.find("key") is None


def test_an_unwritable_cache_causes_no_error(tmp_path: Path, wheel: Path) -> None:
    (tmp_path / "file").touch()
    cache = WheelCache({"XDG_CACHE_HOME": str(tmp_path / "file")})
    cache.keep("key", wheel)
    assert cache.find("key") is None


def test_progress_is_read_from_ninjas_lines_only() -> None:
    progress = BuildProgress()
    progress.read(["-- Configuring done", "  [41/83] /usr/bin/g++ -c a.cpp", "[see note 1/2] b"])
    assert (progress.done, progress.total, progress.percent) == (41, 83, 49)
    assert progress.remaining(elapsed=41.0) == 40


def test_a_smaller_build_inside_the_build_does_not_move_the_progress() -> None:
    progress = BuildProgress()
    progress.read(["[40/80] c++", "[5/5] glslc"])
    assert progress.percent == 50


def test_a_log_gets_a_line_every_tenth() -> None:
    stream = StringIO()
    with Console(stream, {}).phase("llama.cpp") as phase:
        display = BuildDisplay(phase)
        for done in range(1, 101):
            display.update([f"[{done}/100] c++"])
    lines = stream.getvalue().splitlines()
    assert [line.split(" %")[0].strip() for line in lines[:-1]] == [str(tenth) for tenth in range(10, 101, 10)]
    assert lines[-1] == "✓ llama.cpp  0 s"


def test_a_log_gets_no_colour_and_no_cursor_movement() -> None:
    stream = StringIO()
    with Console(stream, {}).phase("environment") as phase:
        phase.show("moving")
    assert stream.getvalue() == "✓ environment  0 s\n"


def test_a_failed_phase_is_marked() -> None:
    stream = StringIO()
    with pytest.raises(SetupError), Console(stream, {}).phase("environment"):
        raise SetupError("no")
    assert stream.getvalue().startswith("✗ environment")


def test_the_bar_is_empty_at_first_and_full_at_last() -> None:
    assert (bar(0, 4), bar(50, 4), bar(100, 4)) == ("░░░░", "██░░", "████")


@pytest.mark.parametrize(("seconds", "reported"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (205, "3:25")])
def test_times_are_reported_in_seconds_and_then_in_minutes(seconds: float, reported: str) -> None:
    assert clock(seconds) == reported


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        ("fatal error: No space left on device", "disk is full"),
        ("g++: fatal error: Killed signal terminated program cc1plus", "CMAKE_BUILD_PARALLEL_LEVEL=1"),
        ("ERROR: No matching distribution found for numpy", "network"),
        ("lm-atelier 0.1.0 requires rich, which is not installed.", "make lock"),
        ("undefined reference to `main'", "ATELIER_BACKEND=cpu"),
    ],
)
def test_a_failure_says_what_to_do_next(output: str, hint: str) -> None:
    assert hint in hint_for(output)


def test_a_failure_shows_the_logs_end_and_the_first_error_above_it() -> None:
    lines = ["a.cpp:1: error: no such type", *(f"line {number}" for number in range(40))]
    shown = explain_failure(lines).splitlines()
    assert shown[0] == "a.cpp:1: error: no such type"
    assert shown[2] == "line 10"
    assert shown[-2] == "line 39"


def test_a_commands_lines_are_followed_whole(tmp_path: Path) -> None:
    seen: list[str] = []
    run(["sh", "-c", "printf '[1/'; sleep 0.4; echo '2] c++'"], tmp_path / "log", follow=seen.extend)
    assert seen == ["[1/2] c++"]


def test_a_failing_command_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"broken(.|\n)*Complete log: .*log"):
        run(["sh", "-c", "echo broken; exit 3"], tmp_path / "log")


STAMP = EnvironmentStamp(root="/here", python="3.11", contents="one")


def test_an_interrupted_environment_is_rebuilt(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    with suppress(KeyboardInterrupt), environment.being_filled(STAMP):
        (environment.folder / "half").touch()
        raise KeyboardInterrupt
    assert not environment.holds(STAMP)
    with environment.being_filled(STAMP):
        assert not (environment.folder / "half").exists()


def test_a_finished_environment_records_what_it_was_made_from(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    with environment.being_filled(STAMP):
        environment.python.parent.mkdir()
        environment.python.touch()
    assert environment.holds(STAMP)
    assert not environment.holds(replace(STAMP, contents="two"))
