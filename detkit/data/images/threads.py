"""A function applied to many small files in threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(function: Callable[[_Item], _Result], items: list[_Item]) -> list[_Result]:
    """The results in the order of the items. Threads help on a network disk, where each file has a long latency."""
    batches = [items[start : start + 64] for start in range(0, len(items), 64)]
    with ThreadPoolExecutor(max_workers=8) as threads:
        return [result for batch in threads.map(lambda batch: list(map(function, batch)), batches) for result in batch]
