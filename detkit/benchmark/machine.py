"""Facts about the machine that a benchmark ran on."""

import datetime as dt
import importlib.metadata
import importlib.util
import os
import platform
import resource
import sys
from pathlib import Path

import torch

from detkit import __version__
from detkit.inference.device import processor_name

LIBRARIES = ("torch", "onnxruntime", "openvino")
_STATUS = Path("/proc/self/status")


def machine_facts(device: torch.device) -> dict[str, str]:
    """The machine, its load and the libraries, as text."""
    own = f"detkit {__version__}", f"Python {platform.python_version()}"
    facts = {
        "date": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        "processor": f"{processor_name()}, {usable_cores()} cores usable",
        "load": f"{os.getloadavg()[0]:.1f} programs at work in the last minute, before the first measurement",
        "software": ", ".join([*own, *_installed(), platform.system()]),
    }
    return {**facts, "GPU": torch.cuda.get_device_name(device)} if device.type == "cuda" else facts


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def peak_mb() -> float:
    """The peak of this process's memory, in MB (10^6 bytes).

    Linux's VmHWM is preferred to ``ru_maxrss``, which starts with the value of the parent process.
    """
    if _STATUS.is_file():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e6


def _installed() -> list[str]:
    """Installed packages with their versions; onnxruntime may come from onnxruntime-gpu."""
    packages = importlib.metadata.packages_distributions()
    found = dict.fromkeys(package for module in LIBRARIES for package in packages.get(module, []))
    return [f"{package} {importlib.metadata.version(package)}" for package in found]
