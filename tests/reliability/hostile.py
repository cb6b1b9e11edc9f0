"""Give every door of detkit files that want to run code, fetch something or eat the machine.

    python -m tests.reliability.hostile [every=1] [scripts_every=1] [recipes=1]

``every`` takes one of so many kinds, ``scripts_every`` takes one of so many of these through the scripts too. With
``recipes`` the model of every recipe is built under the same alarms: nothing is fetched that was not asked for.

A kind is one such file, given to each door that takes its like: functions, and scripts as a shell would run them. It
is tried in a process of its own, in which every socket and every new process is an alarm. A door must end with a
DetkitError that names the file, in seconds, and in little memory.
"""

import functools
import hashlib
import importlib
import io
import json
import os
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch

import detkit
from detkit import recipe
from detkit.checkpoint import read_checkpoint, read_detector, write_detector
from detkit.data.findings import Findings
from detkit.data.formats.coco_json import read_columns
from detkit.data.images.decode import decode_image
from detkit.data.images.header import read_header
from detkit.errors import DetkitError
from detkit.inference import read_stored
from detkit.weights import load_weights
from tests.helpers import ROOT
from tests.reliability import arguments
from tests.reliability.forked import Forked, run
from tests.reliability.hostile_files import manifests, pipes_and_devices, safetensors_files, urls
from tests.reliability.hostile_pickles import torch_files
from tests.reliability.hostile_recipes import CLASS_NAMES, SMALL, good_recipe, stored, yaml_texts

TIME_LIMIT_S = 30.0
MEMORY_LIMIT_MB = 160  # over what the process had before
ADDRESS_SPACE = 16 << 30
ALARMS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "socket.getaddrinfo",
    "pty.spawn",
)
SWITCHES = {
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "0",
    "DETKIT_TRUSTED": "os",
    "DETKIT_UNSAFE": "1",
    "PYTORCH_WEIGHTS_ONLY": "0",
}
BEGIN = "begin"
CODES = (65, 66, 70, 74, 78)  # of DetkitErrors
Door = Callable[[Path], object]


class Kind(NamedTuple):
    """A file to be feared."""

    name: str
    doors: dict[str, Door]
    make: Callable[[], Any]  # its path, or an address
    environment: dict[str, str] = {}  # noqa: RUF012, never changed
    may_pass: tuple[str, ...] = ("read_checkpoint",)  # doors where nothing in it is of harm
    allowed: tuple[Any, ...] = ()  # what another library lets torch's safe loader make


class Result(NamedTuple):
    """What became of a kind."""

    kind: str
    messages: dict[str, str]  # by door
    broken: list[str]
    seconds: float
    megabytes: float


def try_all(folder: Path, every: int, scripts_every: int, progress: arguments.Progress) -> list[Result]:
    """Try the kinds.

    Args:
        folder: for the files.
        every: of so many kinds, one is tried.
        scripts_every: of so many kinds, one also goes through the scripts; all go through the functions.
        progress: told after each kind.
    """
    import_all()
    kinds = list(all_kinds(folder))[::every]
    results = []
    for number, kind in enumerate(kinds):
        functions = {name: door for name, door in kind.doors.items() if ".py" not in name}
        results.append(_try(kind if number % scripts_every == 0 else kind._replace(doors=functions), folder))
        progress(number + 1, len(kinds))
    return results


def import_all() -> None:
    """What doors would import in every process anew."""
    for name in ("albumentations", "detkit.training", "detkit.inspection", "lightning.pytorch.utilities"):
        importlib.import_module(name)
    good = recipe.load(SMALL)
    recipe.check(good)
    _any_model()


def all_kinds(folder: Path) -> Iterator[Kind]:
    """Every kind with the doors that take it."""
    canary = folder / "executed"
    for name, make in torch_files(canary).items():
        yield Kind(f"torch file, {name}", WEIGHTS | CHECKPOINT, _torch_file(folder, make))
    for variable, value in SWITCHES.items():
        make = _torch_file(folder, torch_files(canary)["code: os.system"])
        yield Kind(f"switch, {variable}={value}", WEIGHTS | CHECKPOINT, make, {variable: value})
    make = _torch_file(folder, torch_files(canary)["code: eval"])
    yield Kind("switch, a library that allows eval", WEIGHTS | CHECKPOINT, make, allowed=((eval, "builtins.eval"),))
    for name, make in safetensors_files().items():
        yield Kind(f"safetensors, {name}", DETECTOR, _written(folder / "evil.safetensors", make))
    for name, metadata in stored(canary).items():
        passes = ("from_dict",) if name.startswith("target") else ("from_dict", "load")
        yield Kind(f"stored recipe, {name}", STORED, _detector(folder, metadata), may_pass=passes)
    for name, content in yaml_texts(canary).items():
        yield Kind(f"recipe, {name}", RECIPE, _run_of(folder, content))
    for name, text in manifests().items():
        yield Kind(f"manifest, {name}", MARK, _marked(folder, text))
    for name, make_path in pipes_and_devices(folder).items():
        yield Kind(f"path, {name}", BY_SUFFIX[name[name.rindex(".") :]], make_path)
    for url in urls():
        yield Kind(f"address, {url}", WEIGHTS | OWN | NAMED, lambda url=url: url)


def script(name: str, *words: str) -> Door:
    """A door that is a script; FILE and FOLDER in its words stand for the file and its folder."""

    def run(path: Path) -> None:
        places = {"FILE": str(path), "FOLDER": str(Path(path).parent)}
        given = [key.replace("FILE", places["FILE"]).replace("FOLDER", places["FOLDER"]) for key in words]
        said = io.StringIO()
        sys.argv = [name, *given]
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            try:
                runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
            except SystemExit as end:
                if end.code:
                    raise Refused(end.code, said.getvalue()) from None

    return run


class Refused(Exception):  # noqa: N818
    """A script ended with a code."""

    def __init__(self, code: Any, said: str) -> None:
        self.code, self.said = code, said
        super().__init__(said)


def _build(path: Path) -> None:
    plan = recipe.load([f"recipe={path}", "data.root=/nowhere"])
    recipe.check(plan)
    recipe.build(plan)


TRAIN = ("train.py", "wandb=disabled", "data.root=/nowhere")
WEIGHTS: dict[str, Door] = {
    "load_weights": lambda path: load_weights(path, _any_model()),
    "inspect_model.py weights=": script("inspect_model.py", *SMALL, "weights=FILE", "names=*.bias"),
}
OWN: dict[str, Door] = {
    "read_checkpoint": read_checkpoint,
    "read_stored": read_stored,
    "load": detkit.load,
    "evaluate.py": script("evaluate.py", "checkpoint=FILE", "data.root=/nowhere"),
    "inspect_model.py": script("inspect_model.py", "checkpoint=FILE"),
}
CHECKPOINT: dict[str, Door] = {
    key: lambda path, door=door: door(path.with_suffix(".ckpt")) for key, door in OWN.items()
}
DETECTOR: dict[str, Door] = {"read_detector": read_detector, **WEIGHTS} | {
    k: OWN[k] for k in OWN if k != "read_checkpoint"
}
STORED: dict[str, Door] = {key: OWN[key] for key in ("load", "evaluate.py", "inspect_model.py")} | {
    "from_dict": lambda path: recipe.check(recipe.from_dict(read_detector(path)[1]["recipe"])),
}
RECIPE: dict[str, Door] = {
    "build": _build,
    "train.py": script("train.py", "recipe=FILE", *TRAIN[1:]),
    "train.py resume=": script("train.py", "resume=FOLDER", *TRAIN[1:]),
    "inspect_model.py": script("inspect_model.py", "recipe=FILE"),
}
NAMED: dict[str, Door] = {key: RECIPE[key] for key in ("build", "train.py")}
BY_SUFFIX: dict[str, dict[str, Door]] = {
    ".yaml": NAMED,
    ".pth": WEIGHTS,
    ".ckpt": WEIGHTS | OWN,
    ".safetensors": WEIGHTS | OWN,
    ".jpg": {"read_header": read_header, "decode_image": decode_image},
    ".json": {"read_columns": lambda path: read_columns(path, Findings(path))},
}
MARK: dict[str, Door] = {"read_checkpoint": read_checkpoint, "load": detkit.load, "evaluate.py": OWN["evaluate.py"]}


def _torch_file(folder: Path, make: Callable[[], bytes]) -> Callable[[], Path]:
    """The same file twice: for the doors of other projects' files, and as a checkpoint with a manifest that fits."""

    def write() -> Path:
        content = make()
        (folder / "evil.pth").write_bytes(content)
        _mark(folder, content)
        return folder / "evil.pth"

    return write


def _mark(folder: Path, content: bytes) -> None:
    (folder / "evil.ckpt").write_bytes(content)
    fields = {"format": 1, "step": 1, "epoch": 0, "score": None, "size": len(content), "facts": {}}
    (folder / "evil.json").write_text(json.dumps({**fields, "sha256": hashlib.sha256(content).hexdigest()}))


def _written(path: Path, make: Callable[[], bytes]) -> Callable[[], Path]:
    def write() -> Path:
        path.write_bytes(make())
        return path

    return write


def _marked(folder: Path, text: str | None) -> Callable[[], Path]:
    def write() -> Path:
        path = folder / "evil.ckpt"
        path.write_bytes(b"PK\x03\x04")
        manifest = path.with_suffix(".json")
        os.mkfifo(manifest) if text is None else manifest.write_text(text)
        return path

    return write


def _detector(folder: Path, metadata: dict[str, Any]) -> Callable[[], Path]:
    """A detector file that is whole, with weights that fit the recipe as it should be."""

    def write() -> Path:
        path = folder / "evil.safetensors"
        good = {"recipe": good_recipe(), "class_names": CLASS_NAMES, "image_hw": [64, 64]}
        write_detector(path, _any_model().state_dict(), good | metadata)
        return path

    return write


def _run_of(folder: Path, content: bytes) -> Callable[[], Path]:
    """A recipe that is also that of a run."""

    def write() -> Path:
        (folder / "recipe.yaml").write_bytes(content)
        (folder / "checkpoints").mkdir()
        return folder / "recipe.yaml"

    return write


@functools.cache
def _any_model() -> torch.nn.Module:
    return recipe.instantiate(good_recipe()["model"])


def _try(kind: Kind, folder: Path) -> Result:
    """Make the file, open each door to it in a process of its own, and see what is left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    answers = folder.with_name(f"{folder.name}.answers")
    answers.write_text("")
    path = kind.make()
    start = time.monotonic()
    child = Forked(lambda: _open_doors(kind, path, folder, answers), folder.with_name(f"{folder.name}.said"))
    most = _wait(child)
    seconds = time.monotonic() - start
    lines = answers.read_text().splitlines()
    found = {door: (code, message) for door, code, message in map(json.loads, lines)}
    broken = [
        f"{kind.name}, {door}: {fault}" for door in kind.doors for fault in _faults(kind, door, path, found.get(door))
    ]
    if (folder / "executed").exists():
        broken.append(f"{kind.name}: EXECUTED {(folder / 'executed').read_text()}")
    grown = most - float(found.pop(BEGIN, (0, most))[1])
    if grown > MEMORY_LIMIT_MB:
        broken.append(f"{kind.name}: took {grown:.0f} MB")
    return Result(kind.name, {door: message for door, (_, message) in found.items()}, broken, seconds, grown)


def build_all(folder: Path) -> None:
    """Build the model of every recipe while each socket and each new process is an alarm."""
    sys.addaudithook(lambda event, given: _alarm(folder, event, given))
    for name in sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")):
        with torch.device("meta"):
            recipe.build_model(recipe.load([f"recipe={name}", "data.root=/nowhere"]), 3)


def _faults(kind: Kind, door: str, path: Path, answer: tuple[int, str] | None) -> Iterator[str]:
    """What a door's answer lacks."""
    if answer is None:
        yield f"no answer within {TIME_LIMIT_S:g} s, or the process died"
        return
    code, message = answer
    if code == 0 and door in kind.may_pass:
        return
    if code not in CODES:
        yield f"ended with {code}: {message[-600:]}"
    elif Path(path).stem not in message and "stored recipe" not in message:
        yield f"does not name the file: {message}"


def _open_doors(kind: Kind, path: Path, folder: Path, answers: Path) -> None:
    """What the child does."""
    soft = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
    warnings.simplefilter("ignore")  # as in a shell, where they do not end a program
    os.chdir(folder)
    os.environ.update(kind.environment)
    torch.serialization.add_safe_globals(list(kind.allowed))
    sys.addaudithook(lambda event, given: _alarm(folder, event, given))
    with answers.open("a", buffering=1) as file:
        file.write(json.dumps([BEGIN, 0, str(_memory_mb())]) + "\n")
        for name, door in kind.doors.items():
            file.write(json.dumps([name, *_answer(door, path)]) + "\n")


def _alarm(folder: Path, event: str, given: tuple[Any, ...]) -> None:
    if event in ALARMS:
        with (folder / "executed").open("a") as file:
            file.write(f"{event} {given!r:.200}\n")


def _answer(door: Door, path: Path) -> tuple[int, str]:
    """(exit code, message) of a door; the code of a DetkitError is its own, of another exception -1."""
    try:
        door(path)
    except DetkitError as error:
        return error.exit_code, str(error)
    except Refused as error:
        return error.code, error.said
    except BaseException as error:  # noqa: BLE001  (whatever it is, it is what is asked for)
        return -1, "".join(traceback.format_exception(error)[-4:])
    return 0, "read without a word"


def _wait(child: Forked) -> float:
    """The most memory that the process held, in MB; it is killed when its time is over."""
    end = time.monotonic() + TIME_LIMIT_S
    while True:
        process, _, usage = os.wait4(child.process, os.WNOHANG)
        if process:
            return usage.ru_maxrss / 1024
        if time.monotonic() > end:
            child.kill(signal.SIGKILL)
            return os.wait4(child.process, 0)[2].ru_maxrss / 1024
        time.sleep(0.005)


def _memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main(argv: Sequence[str]) -> None:
    """Try all kinds, and show them."""
    given = arguments.read(argv, every=1, scripts_every=1, recipes=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "kind"
        results = try_all(folder, given["every"], given["scripts_every"], arguments.progress)
        broken = [fault for result in results for fault in result.broken]
        tried = sum(len(result.messages) for result in results)
        if given["recipes"]:
            ended = run(lambda: build_all(folder), Path(name) / "said")
            broken += [f"a recipe's model is built: {ended.said}"] if ended != (0, "") else []
            tried += 1
    rows = [
        (result.kind, len(result.messages), f"{result.seconds:.2f}", f"{max(0, result.megabytes):.0f}", _shown(result))
        for result in results
    ]
    arguments.show("Hostile files", rows, ("kind", "doors", "s", "MB", "said"))
    arguments.finish(broken, tried, f"{len(results)} kinds: nothing runs, nothing is fetched, one line says why")


def _shown(result: Result) -> str:
    message = next(iter(result.messages.values()), "")
    return "BROKEN" if result.broken else ascii(message.partition("\n")[0].partition("evil")[2][:90])


if __name__ == "__main__":
    main(sys.argv[1:])
