"""Where a detector runs."""

import platform
from pathlib import Path

import torch

from detkit.errors import RecipeError


def find_device(name: str) -> torch.device:
    """As named; "auto": the first GPU, if there is one.

    Raises:
        RecipeError: if it cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise RecipeError(f"device={name}: cannot be used: {reason}; there is always cpu") from error


def processor_name() -> str:
    """Of this machine's CPU, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def instruction_set() -> str:
    """Of this machine's CPU, as far as int8 depends on it: "AVX2", "AVX-512 with VNNI"; else its architecture."""
    has = torch.cpu.get_capabilities()
    widest = "AVX-512" if has.get("avx512_f") else "AVX2" if has.get("avx2") else has["architecture"]
    return f"{widest} with VNNI" if has.get("avx512_vnni") or has.get("avx_vnni") else widest
