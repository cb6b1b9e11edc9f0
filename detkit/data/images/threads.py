"""Many small files at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(function: Callable[[_Item], _Result], items: list[_Item]) -> list[_Result]:
    """The results in the order of the items. On a network disk the waiting is long, and several can wait at once."""

    def several(batch: list[_Item]) -> list[_Result]:
        return [function(item) for item in batch]

    batches = [items[start : start + 64] for start in range(0, len(items), 64)]
    with ThreadPoolExecutor(max_workers=8) as threads:
        return [result for batch in threads.map(several, batches) for result in batch]
