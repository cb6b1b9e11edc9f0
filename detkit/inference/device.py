"""The device that a detector runs on."""

import platform
from pathlib import Path

import torch

from detkit.errors import RecipeError


def find_device(name: str) -> torch.device:
    """The device of this name; "auto" is the first GPU if there is one, else the CPU.

    Raises:
        RecipeError: if it cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise RecipeError(f"device={name}: cannot be used: {reason}; device=cpu works everywhere") from error


def processor_name() -> str:
    """The name of this machine's CPU as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def instruction_set() -> str:
    """The instructions of this CPU that affect int8: "AVX2", "AVX-512 with VNNI", or else its architecture."""
    has = torch.cpu.get_capabilities()
    widest = "AVX-512" if has.get("avx512_f") else "AVX2" if has.get("avx2") else has["architecture"]
    return f"{widest} with VNNI" if has.get("avx512_vnni") or has.get("avx_vnni") else widest
