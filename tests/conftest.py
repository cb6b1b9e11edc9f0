"""What all tests share: real data beside the checkout, one thread for torch, no account, gpu tests only on a GPU."""

import os
from pathlib import Path

import pytest
import torch

from tests.helpers.real_data import SHARED


def pytest_configure() -> None:
    """One thread: small tensors are slower on several, and sums would depend on their number. No W&B login."""
    torch.set_num_threads(1)
    os.environ.pop("WANDB_API_KEY", None)
    os.environ["NETRC"] = os.devnull


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that both processes end together. Tests marked gpu need a GPU."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in slow)
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real data sets in COCO format."""
    return _folder(SHARED / "data", "real data sets")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """The folder of reference outputs that other implementations gave."""
    return _folder(SHARED / "reference", "reference outputs")


def _folder(path: Path, what: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"no {what} in {path}; DETKIT_TEST_DATA names the folder that {path.name}/ lies in")
    return path
