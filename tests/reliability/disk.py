"""The calls through which a program writes to the disk, watched from outside of it."""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

Moment = Callable[[str], None]  # gets the moment's name, such as "before replace step-00000003.ckpt"


@contextlib.contextmanager
def watched(moment: Moment) -> Iterator[None]:
    """Call ``moment`` before and after everything that changes the disk, and in the middle of every write."""
    with contextlib.ExitStack() as stack:
        for name in ("replace", "unlink", "mkdir", "fsync", "open"):
            stack.enter_context(mock.patch.object(os, name, _around(getattr(os, name), name, moment)))
        stack.enter_context(mock.patch.object(io, "open", _opening(io.open, moment)))
        yield


class AtNumber:
    """Does something at the n-th moment.

    Args:
        number: from 0; -1: never, which counts them.
        action: what; its argument is the moment's name.
        lasting: at all later ones too.

    Attributes:
        names: of the moments so far.
    """

    def __init__(self, number: int, action: Moment, lasting: bool = False) -> None:
        self.number = number
        self.action = action
        self.lasting = lasting
        self.names: list[str] = []

    def __call__(self, name: str) -> None:
        at = len(self.names)
        self.names.append(name)
        if at == self.number or (self.lasting and 0 <= self.number < at):
            self.action(name)


class _Raw(io.FileIO):
    """A file whose writes are watched; it writes each piece in two halves."""

    moment: Moment

    def write(self, data: Any) -> int:
        view, name = memoryview(data).cast("B"), f"write {_plain(str(self.name))}"
        self.moment(f"before {name}")
        done = super().write(view[: len(view) // 2]) or 0
        self.moment(f"amid {name}")
        while done < len(view):
            done += super().write(view[done:]) or 0
        self.moment(f"after {name}")
        return done


def _opening(call: Any, moment: Moment) -> Any:
    def open_watched(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode != "wb":
            return call(file, mode, *args, **kwargs)
        moment(f"before open {_plain(str(file))}")
        raw = _Raw(file, "w")
        raw.moment = moment
        moment(f"after open {_plain(str(file))}")
        return io.BufferedWriter(raw)

    return open_watched


def _around(call: Any, name: str, moment: Moment) -> Any:
    def call_watched(target: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "open" and not os.path.isdir(target):  # noqa: PTH112 (of a folder, to sync it; files come by io.open)
            return call(target, *args, **kwargs)
        place = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)  # noqa: PTH115
        place = "folder" if os.path.isdir(place) else _plain(place)  # noqa: PTH112
        what = f"{name} {place}"
        moment(f"before {what}")
        result = call(target, *args, **kwargs)
        moment(f"after {what}")
        return result

    return call_watched


def _plain(path: str) -> str:
    return re.sub(r"\.tmp\.\d+$", ".tmp", path.rpartition("/")[2])
