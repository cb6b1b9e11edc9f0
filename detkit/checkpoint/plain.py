"""Torch files of plain data, looked through before torch reads them.

Note [two locks]: ``weights_only=True`` runs nothing that is in a file. It still lets a small file ask for any memory
and time: compressed records, tensors that repeat one number for ever, tuples in tuples whose hash takes years. What
``torch.save`` makes of tensors and plain values has none of them; a file that does is refused before torch sees it.
"""

import io
import os
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

TYPES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
ALLOWED = {
    *(
        "collections.OrderedDict",
        "collections.Counter",
        "__builtin__.set",
        "builtins.set",
        "torch.Size",
        "torch.device",
    ),
    *(f"torch._utils.{name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")),
    *(f"torch.{name}Storage" for name in TYPES),
    *(str(dtype) for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)),
    "torch.nn.parameter.Parameter",
}
FROM_CONTAINERS = {name for name in ALLOWED if name.rpartition(".")[2] in ("OrderedDict", "Counter", "set", "Size")}
CONTAINERS = ("dict", "list", "tuple")
LARGEST_TUPLE = 10_000  # values, those in tuples within counted as often as they occur
OLD_FORMAT_PICKLES = 5  # of a file that is no zip: three of its kind, then the content, then its storages' names
ZIP = b"PK\x03\x04"


class _Value(NamedTuple):
    """What is known of a value without making it."""

    kind: str  # its type, or the name of what is called
    items: tuple[str, ...] = ()  # kinds, of a tuple
    values: int = 1  # in it, of a tuple


def load_plain(file: io.BufferedReader) -> object:
    """What a torch file holds, if that is tensors on the CPU, plain values and nothing else.

    Raises:
        pickle.UnpicklingError: if it holds more, or would take more memory than it has bytes.
        Exception: what torch raises of damaged files, see ``UNREADABLE``.
    """
    is_zip = file.read(len(ZIP)) == ZIP
    file.seek(0)
    if is_zip:
        _look_through_zip(file)
    else:
        for _ in range(OLD_FORMAT_PICKLES):
            _look_through(file)
    file.seek(0)
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    for tensor in _tensors(content):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise pickle.UnpicklingError(f"a tensor of shape {tuple(tensor.shape)} has fewer numbers in the file")
    return content


def _look_through_zip(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            names = {record.filename.partition("/")[2] for record in records}
            if "constants.pkl" in names:
                raise pickle.UnpicklingError("it is a TorchScript archive, which is a program")
            if len(names) < len(records) or min(record.header_offset for record in records):
                raise pickle.UnpicklingError("its records are not as torch.save writes them")
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise pickle.UnpicklingError("its records are compressed; torch.save stores them as they are")
            if sum(record.file_size for record in records) > size:
                raise pickle.UnpicklingError(f"its records are larger than its {size} bytes")
            for record in records:
                if record.filename.endswith("/data.pkl"):
                    _look_through(io.BytesIO(archive.read(record)))
    except (zipfile.BadZipFile, NotImplementedError, OverflowError) as error:
        raise pickle.UnpicklingError(f"it is no whole zip file ({error})") from error


def _look_through(stream: BinaryIO) -> None:
    """Follow the instructions of one pickle with kinds in place of values: nothing is made and nothing called."""
    stack: list[_Value] = []
    marks: list[list[_Value]] = []
    memo: dict[str, _Value] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "MARK":
            marks.append(stack)
            stack = []
        elif opcode.name.endswith("PUT"):
            memo[str(argument)] = stack[-1]
        elif opcode.name.endswith("GET"):
            stack.append(memo[str(argument)])
        else:
            items: list[_Value] = []
            if pickletools.markobject in opcode.stack_before:
                stack, items = marks.pop(), stack
                below = opcode.stack_before.index(pickletools.markobject)
            else:
                below = len(opcode.stack_before)
            taken = [*(stack.pop() for _ in range(below))][::-1] + items
            if opcode.stack_after:
                stack.append(_result(opcode, argument, taken))


def _result(opcode: pickletools.OpcodeInfo, argument: object, taken: list[_Value]) -> _Value:
    if opcode.name == "GLOBAL":
        name = str(argument).replace(" ", ".")
        if name not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {name}")
        return _Value(name)
    if opcode.name in ("REDUCE", "NEWOBJ"):
        called, given = taken
        if called.kind in FROM_CONTAINERS and not set(given.items) <= set(CONTAINERS):
            raise pickle.UnpicklingError(f"it makes {called.kind} of a {', '.join(given.items)}")
        return _Value("any")
    if opcode.name.startswith(("TUPLE", "EMPTY_TUPLE")):
        values = 1 + sum(value.values for value in taken)
        if values > LARGEST_TUPLE:
            raise pickle.UnpicklingError(f"it holds a tuple of more than {LARGEST_TUPLE} values")
        return _Value("tuple", tuple(value.kind for value in taken), values)
    if opcode.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
        return taken[0]  # the container
    return _Value(opcode.stack_after[0].name)


def _tensors(content: object) -> Iterator[Tensor]:
    """Every tensor, whatever lies in what and however often."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
