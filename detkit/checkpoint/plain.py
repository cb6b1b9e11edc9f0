"""Read torch files of plain data, after a scan of their pickles.

Note [why files are scanned]: ``weights_only=True`` runs no code of a file. But a small file can still need unlimited
memory and time: by compressed records, by tensors that repeat one number, by nested tuples whose hash takes years.
Files that ``torch.save`` wrote of tensors and plain values have none of them. A file that has is refused before torch
reads it.
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
LARGEST_TUPLE = 10_000  # values, including those of nested tuples at each occurrence
OLD_FORMAT_PICKLES = 5  # of a file that is no zip: three about the format, the content, the names of the storages
ZIP = b"PK\x03\x04"


class _PickledValue(NamedTuple):
    """The type of a pickled value, known without creating it."""

    kind: str  # its type, or the name of a function or class
    items: tuple[str, ...] = ()  # kinds of the items of a tuple
    values: int = 1  # number of values in a tuple


def load_plain(file: io.BufferedReader) -> object:
    """The content of a torch file that has only tensors and plain values; tensors on the CPU.

    Raises:
        pickle.UnpicklingError: if the file has other content, or would need more memory than its size.
        Exception: as torch raises for damaged files, see ``UNREADABLE``.
    """
    is_zip = file.read(len(ZIP)) == ZIP
    file.seek(0)
    if is_zip:
        _scan_zip(file)
    else:
        for _ in range(OLD_FORMAT_PICKLES):
            _scan_pickle(file)
    file.seek(0)
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    for tensor in _tensors(content):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise pickle.UnpicklingError(
                f"a tensor of shape {tuple(tensor.shape)} needs more numbers than the file has"
            )
    return content


def _scan_zip(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            names = {record.filename.partition("/")[2] for record in records}
            if "constants.pkl" in names:
                raise pickle.UnpicklingError("it is a TorchScript archive, which is a program")
            if len(names) < len(records) or min(record.header_offset for record in records):
                raise pickle.UnpicklingError("its records differ from those of torch.save")
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise pickle.UnpicklingError("its records are compressed, which torch.save never does")
            if sum(record.file_size for record in records) > size:
                raise pickle.UnpicklingError(f"its records are larger than its {size} bytes")
            for record in records:
                if record.filename.endswith("/data.pkl"):
                    _scan_pickle(io.BytesIO(archive.read(record)))
    except (zipfile.BadZipFile, NotImplementedError, OverflowError) as error:
        raise pickle.UnpicklingError(f"it is no complete zip file ({error})") from error


def _scan_pickle(stream: BinaryIO) -> None:
    """Execute the instructions of one pickle on types instead of values: nothing is created and nothing is called."""
    stack: list[_PickledValue] = []
    marks: list[list[_PickledValue]] = []
    memo: dict[str, _PickledValue] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "MARK":
            marks.append(stack)
            stack = []
        elif opcode.name.endswith("PUT"):
            memo[str(argument)] = stack[-1]
        elif opcode.name.endswith("GET"):
            stack.append(memo[str(argument)])
        else:
            items: list[_PickledValue] = []
            if pickletools.markobject in opcode.stack_before:
                stack, items = marks.pop(), stack
                below = opcode.stack_before.index(pickletools.markobject)
            else:
                below = len(opcode.stack_before)
            taken = [*(stack.pop() for _ in range(below))][::-1] + items
            if opcode.stack_after:
                stack.append(_result(opcode, argument, taken))


def _result(opcode: pickletools.OpcodeInfo, argument: object, taken: list[_PickledValue]) -> _PickledValue:
    if opcode.name == "GLOBAL":
        name = str(argument).replace(" ", ".")
        if name not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {name}")
        return _PickledValue(name)
    if opcode.name in ("REDUCE", "NEWOBJ"):
        called, arguments = taken
        if called.kind in FROM_CONTAINERS and not set(arguments.items) <= set(CONTAINERS):
            raise pickle.UnpicklingError(f"it creates {called.kind} from a {', '.join(arguments.items)}")
        return _PickledValue("any")
    if opcode.name.startswith(("TUPLE", "EMPTY_TUPLE")):
        values = 1 + sum(value.values for value in taken)
        if values > LARGEST_TUPLE:
            raise pickle.UnpicklingError(f"it has a tuple of more than {LARGEST_TUPLE} values")
        return _PickledValue("tuple", tuple(value.kind for value in taken), values)
    if opcode.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
        return taken[0]  # the container
    return _PickledValue(opcode.stack_after[0].name)


def _tensors(content: object) -> Iterator[Tensor]:
    """All tensors in any nesting."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
