"""Which of llama.cpp's backends to compile: that of a usable GPU, otherwise the CPU."""

from dataclasses import dataclass

from deploy.setup import SetupError
from deploy.setup.build_machine import Machine


@dataclass(frozen=True)
class Backend:
    name: str
    label: str
    why: str
    cmake_args: tuple[str, ...]
    runs_here: bool = True


@dataclass(frozen=True)
class _Gpu:
    """One kind of GPU on this machine; `toolchain` and `device` are empty if it is missing."""

    name: str
    label: str
    toolchain: str
    device: str
    toolchain_needed: str
    device_needed: str
    cmake_args: tuple[str, ...]


def choose_backend(machine: Machine, wanted: str | None = None) -> Backend:
    """The first kind of GPU with both a toolchain and a device, otherwise the CPU; `wanted` is ATELIER_BACKEND."""
    gpus = _gpus(machine)
    if wanted:
        return _wanted_backend(gpus, wanted)
    usable = next((gpu for gpu in gpus if gpu.toolchain and gpu.device), None)
    if usable:
        return _gpu_backend(usable, f"found {usable.device} and {usable.toolchain}")
    # One reason is enough; a device without its toolchain is the most useful one.
    halves = [f"found {gpu.device}, but not {gpu.toolchain_needed}" for gpu in gpus if gpu.device]
    halves += [f"found {gpu.toolchain}, but not {gpu.device_needed}" for gpu in gpus if gpu.toolchain]
    return _cpu_backend(halves[0] if halves else "found no GPU that llama.cpp can use")


def _wanted_backend(gpus: tuple[_Gpu, ...], wanted: str) -> Backend:
    named = {gpu.name: gpu for gpu in gpus}
    asked = f"ATELIER_BACKEND={wanted}"
    if wanted == "cpu":
        return _cpu_backend(asked)
    if wanted not in named:
        raise SetupError(f"{asked} is not a backend; use one of cpu, {', '.join(named)}")
    gpu = named[wanted]
    if not gpu.toolchain:
        raise SetupError(f"{asked}, but this machine lacks {gpu.toolchain_needed}")
    return _gpu_backend(gpu, asked) if gpu.device else _portable_backend(gpu, asked)


def _cpu_backend(why: str) -> Backend:
    return Backend("cpu", "CPU, native", why, ("-DGGML_NATIVE=ON",))


def _gpu_backend(gpu: _Gpu, why: str) -> Backend:
    return Backend(gpu.name, gpu.label, why, (*gpu.cmake_args, "-DGGML_NATIVE=ON"))


def _portable_backend(gpu: _Gpu, why: str) -> Backend:
    # Container images are built on machines without a GPU, where there is no "native" device to compile for: this
    # build is for every device and CPU that llama.cpp supports.
    reason = f"{why}; found no device, so it is compiled for any"
    args = (*gpu.cmake_args, "-DGGML_NATIVE=OFF")
    return Backend(gpu.name, f"{gpu.label}, portable", reason, args, runs_here=False)


def _gpus(machine: Machine) -> tuple[_Gpu, ...]:
    return (_cuda(machine), _rocm(machine), _vulkan(machine), _metal(machine))


def _cuda(machine: Machine) -> _Gpu:
    compiler = (f"-DCMAKE_CUDA_COMPILER={machine.nvcc.command[0]}",) if machine.nvcc else ()
    return _Gpu(
        name="cuda",
        label="CUDA",
        toolchain="nvcc" if machine.nvcc else "",
        device=", ".join(machine.nvidia_gpus),
        toolchain_needed="nvcc (install the CUDA toolkit)",
        device_needed="an NVIDIA GPU",
        cmake_args=("-DGGML_CUDA=ON", *compiler),
    )


def _rocm(machine: Machine) -> _Gpu:
    return _Gpu(
        name="rocm",
        label="ROCm",
        toolchain="hipcc" if machine.hipcc else "",
        device=", ".join(machine.amd_gpus),
        toolchain_needed="hipcc (install ROCm's HIP SDK)",
        device_needed="an AMD GPU with /dev/kfd",
        cmake_args=("-DGGML_HIP=ON",),
    )


def _vulkan(machine: Machine) -> _Gpu:
    return _Gpu(
        name="vulkan",
        label="Vulkan",
        toolchain="glslc" if machine.glslc and machine.vulkan_headers else "",
        device=", ".join(machine.render_nodes),
        toolchain_needed="Vulkan's toolchain (apt install glslc libvulkan-dev spirv-headers)",
        device_needed="a GPU's render node in /dev/dri",
        cmake_args=("-DGGML_VULKAN=ON",),
    )


def _metal(machine: Machine) -> _Gpu:
    apple = machine.system == "Darwin" and machine.arch == "arm64"
    return _Gpu(
        name="metal",
        label="Metal",
        toolchain="Metal" if apple else "",
        device="an Apple GPU" if apple else "",
        toolchain_needed="macOS on Apple silicon",
        device_needed="an Apple GPU",
        cmake_args=("-DGGML_METAL=ON",),
    )
