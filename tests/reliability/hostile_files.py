"""Files that are none, manifests that lie, and safetensors files that are not what they say."""

import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPARSE_BYTES = 10 << 30


def safetensors_files() -> dict[str, Callable[[], bytes]]:
    """Whole files by kind."""
    one: dict[str, Any] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    headers: dict[str, Any] = {
        "overlapping tensors": {"a": one, "b": one},
        "tensor behind the end": {"a": one | {"data_offsets": [0, 4000]}},
        "offsets backwards": {"a": one | {"data_offsets": [4, 0]}},
        "shape without end": {"a": one | {"shape": [2**62, 2**62]}},
        "shape below zero": {"a": one | {"shape": [-1]}},
        "unknown dtype": {"a": one | {"dtype": "OBJECT"}},
        "metadata of numbers": {"a": one, "__metadata__": {"sha256": 3}},
        "metadata in maps": {"a": one, "__metadata__": {"sha256": {"x": "y"}}},
        "wrong digest": {"a": one, "__metadata__": {"sha256": "0" * 64, "recipe": "{}"}},
        "no map": [one],
    }
    files = {key: safetensors_file(json.dumps(header).encode()) for key, header in headers.items()}
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    files |= {
        "header of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}",
        "header longer than the file": struct.pack("<Q", 10**6) + b"{}",
        "deep header": safetensors_file(deep),
        "header that is no JSON": safetensors_file(b"\xff" * 64),
        "name twice": safetensors_file(b'{"a":%s,"a":%s}' % ((json.dumps(one).encode(),) * 2)),
        "nothing": b"",
        "pickle": b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.",
    }
    return {key: lambda content=content: content for key, content in files.items()}


def safetensors_file(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(4)


def manifests() -> dict[str, str | None]:
    """Texts of a manifest beside a checkpoint; None: a pipe."""
    good = {"format": 1, "step": 1, "epoch": 0, "score": None, "size": 4, "sha256": "0" * 64, "facts": {}}
    return {
        "deep": "[" * 100_000,
        "endless step": json.dumps(good | {"step": float("inf")}),
        "step of 6000 digits": json.dumps(good).replace('"step": 1', '"step": ' + "9" * 6000),
        "list": "[]",
        "text": '"x"',
        "null facts": json.dumps(good | {"facts": None}),
        "size of another": json.dumps(good | {"size": 10**12}),
        "format of another": json.dumps(good | {"format": {"a": 1}}),
        "a NaN everywhere": json.dumps({key: float("nan") for key in good}),
        "a pipe": None,
    }


def pipes_and_devices(folder: Path) -> dict[str, Callable[[], Path]]:
    """Paths that are no files, each with the ending that sends it to another reader."""
    makers: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "socket": _socket,
        "10 GB of nothing": _sparse,
        "folder": Path.mkdir,
        "endless link": lambda path: path.symlink_to(path),
    }
    for device in ("/dev/zero", "/dev/full", "/proc/self/mem"):
        makers[device] = lambda path, device=device: path.symlink_to(device)
    return {
        f"{kind}{suffix}": lambda make=make, suffix=suffix: _made(folder / f"evil{suffix}", make)
        for kind, make in makers.items()
        for suffix in (".ckpt", ".pth", ".safetensors", ".yaml", ".jpg", ".json")
    }


def urls() -> list[str]:
    """Addresses of what lies elsewhere, on a machine where every look-up is an alarm."""
    schemes = ("http", "https", "ftp", "s3", "gs", "hf", "file", "memory")
    return [
        *(
            f"{scheme}://127.0.0.1:9/evil{suffix}"
            for scheme in schemes
            for suffix in (".ckpt", ".safetensors", ".yaml")
        ),
        *("//127.0.0.1/share/evil.ckpt", "hf-hub:evil/evil.yaml"),
    ]


def _made(path: Path, make: Callable[[Path], object]) -> Path:
    make(path)
    if path.suffix == ".ckpt":  # a manifest that speaks of it as whole
        size = path.stat().st_size % SPARSE_BYTES if path.exists() else 0
        good = {"format": 1, "step": 1, "epoch": 0, "score": None, "sha256": "0" * 64, "facts": {}, "size": size}
        path.with_suffix(".json").write_text(json.dumps(good))
    return path


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SPARSE_BYTES)
