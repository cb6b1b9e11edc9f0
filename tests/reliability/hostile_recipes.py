"""Recipes, in YAML and inside of files, that want to run code, to read what they should not, or to eat the machine."""

from pathlib import Path
from typing import Any

from detkit import recipe

SMALL = [
    "recipe=yolo_csp_n", "model.backbone.width_multiple=0.125", "model.head.num_classes=2", "data.root=/nowhere",
    "trainer.accelerator=cpu", "data.image_hw=[64,64]",
]  # fmt: skip
CLASS_NAMES = ["cat", "dog"]


def good_recipe() -> dict[str, Any]:
    """A stored recipe of a detector so small that it is built in a moment."""
    return recipe.load(SMALL).config


def targets(canary: Path) -> dict[str, dict[str, Any]]:
    """Nodes that would do something, by their import path; those of trusted packages lead elsewhere."""
    command = {"command": f"touch {canary}"}
    paths: dict[str, dict[str, Any]] = {
        "os.system": command,
        "posix.system": command,
        "builtins.eval": {"source": f"open({str(canary)!r}, 'w')"},
        "builtins.exec": {"source": f"open({str(canary)!r}, 'w')"},
        "subprocess.Popen": {"args": ["touch", str(canary)]},
        "importlib.import_module": {"name": "antigravity"},
        "runpy.run_path": {"path_name": "evil.py"},
        "pickle.load": {},
        "ctypes.CDLL": {"name": "libc.so.6"},
        "pathlib.Path.unlink": {},
        "shutil.rmtree": {"path": str(canary.parent)},
        "torch.load": {"f": str(canary), "weights_only": False},
        "torch.hub.load": {"repo_or_dir": "https://example.com", "model": "x"},
        "torch.jit.load": {"f": str(canary)},
        "torch.package.PackageImporter": {"file_or_buffer": str(canary)},
        "torch.utils.cpp_extension.load": {"name": "x", "sources": ["x.cpp"]},
        "torch.utils.cpp_extension.subprocess.Popen": {"args": ["touch", str(canary)]},
        "torch.utils.data.DataLoader": {"dataset": []},
        "torch.distributed.run.main": {"args": ["--help"]},
        "torch.multiprocessing.spawn": {},
        "torch.optim.optimizer.functools.partial": {},
        "torch.optim.os.system": command,
        "lightning.pytorch.cli.LightningCLI": {},
        "lightning.pytorch.callbacks.os.system": command,
        "lightning.pytorch.trainer.trainer.os.system": command,
        "lightning.pytorch.utilities.migration.migrate_checkpoint": {},
        "lightning.__main__.main": {},
        "detkit.recipe.building.linecache.os.system": command,
        "detkit.recipe.building.Partial": {},
        "detkit.recipe.build": {},
        "detkit.checkpoint.remove_checkpoint": {"path": str(canary.parent)},
        "detkit.checkpoint.file.shutil.rmtree": {"path": str(canary.parent)},
        "detkit.checkpoint.file.pickle.Unpickler": {},
        "detkit.models.Detector.__init__.__globals__": {},
        "detkit.models.Detector.__class__": {},
        "detkit.models.Detector.__subclasses__": {},
        "detkit.models.Detector.load_state_dict.__globals__.get": {},
        "detkit.data.make_demo": {"root": str(canary)},
        "detkit.training.run.folder.create_folder": {"runs": str(canary), "rank": 0},
        "detkit.data.Path.touch": {"self": str(canary)},
        "detkit.commands.train.main": {"argv": []},
    }
    nodes = {path: {"_target_": path, **given} for path, given in paths.items()}
    odd: dict[str, Any] = {
        "a space": "os.system ", "two dots": "os..system", "a number": 7, "a list": ["os.system"],
        "code": "os.system('x')",
        "a letter that looks like o": "\u043es.system", "nothing": None, "a node": {"_target_": "os.system"},
    }  # fmt: skip
    return nodes | {f"path that is {key}": {"_target_": value} for key, value in odd.items()}


def stored(canary: Path) -> dict[str, dict[str, Any]]:
    """Metadata of a detector file by kind; what a kind leaves out is as it should be."""
    good, evil = good_recipe(), targets(canary)["os.system"]
    found = {f"target: {key}": {"recipe": {**good, "model": node}} for key, node in targets(canary).items()}
    places: dict[str, Any] = {
        "model.backbone": evil, "model.neck": {**evil, "_partial_": True}, "model.head.num_classes": evil,
        "model.head.num_bins": [1, {"a": [evil]}], "decode": evil, "decode.max_detections": {**evil, "_partial_": True},
        "loss.assigner": evil, "data.augmentation.transforms": [evil], "optimizer": {**evil, "_partial_": True},
        "checkpoint.monitor": evil, "model._partial_": evil, "metrics": {"_target_": "detkit.models.Detector"},
    }  # fmt: skip
    found |= {f"place: {key}": {"recipe": with_value(good, key, value)} for key, value in places.items()}
    sizes: dict[str, Any] = {
        "model.head.num_classes": 10**12, "model.head.num_bins": 10**9, "model.backbone.depth_multiple": 1e9,
        "model.backbone.width_multiple": 1e9, "data.num_workers": 10**6, "data.image_hw": [10**9, 10**9],
        "data.batch_size": 10**9, "model.neck.depth_multiple": 1e300, "model.backbone.out_levels": ["P3"] * 99_000,
        "decode.score_threshold": 10**400, "data.cache_mb": 1e300,
    }  # fmt: skip
    found |= {f"size: {key}": {"recipe": with_value(good, key, value)} for key, value in sizes.items()}
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    texts = {
        "${oc.env:HOME}": "environment",
        "${oc.decode:x}": "resolver",
        "${seed}${seed}": "joined",
        "${name}": "itself",
    }
    found |= {f"text: {kind}": {"recipe": {**good, "name": text}} for text, kind in texts.items()}
    return found | {
        "shape: deep": {"recipe": {**good, "name": deep}},
        "shape: wide": {"recipe": {**good, "weights_except": ["x"] * 200_000}},
        "shape: recipe is a list": {"recipe": [good]},
        "shape: recipe is text": {"recipe": "model: x"},
        "shape: no data": {"recipe": {key: value for key, value in good.items() if key != "data"} | {"data": 3}},
        "shape: data of another kind": {"recipe": {**good, "data": {"_target_": "detkit.models.necks.PAN"}}},
        "shape: class names are numbers": {"class_names": [1, 2]},
        "shape: class names are a text": {"class_names": "catdog"},
        "shape: class names in lists": {"class_names": [[["cat"]]]},
        "shape: size in text": {"image_hw": ["64", "64"]},
        "shape: three sizes": {"image_hw": [64, 64, 64]},
        "shape: size not finite": {"image_hw": [float("nan"), float("inf")]},
        "shape: size without end": {"image_hw": [10**30, 10**30]},
        "shape: size below zero": {"image_hw": [-64, 64]},
    }


def with_value(config: Any, place: str, value: Any) -> Any:
    """The same values with another one at a place."""
    key, _, rest = place.partition(".")
    return {**config, key: with_value(config[key], rest, value) if rest else value}


def yaml_texts(canary: Path) -> dict[str, bytes]:
    """YAML files by kind."""
    base = Path("recipes/yolo_csp_n.yaml").read_text()
    lines: dict[str, str] = {
        "tag: object/apply": f"name: !!python/object/apply:os.system ['touch {canary}']",
        "tag: object/new": f"name: !!python/object/new:os.system ['touch {canary}']",
        "tag: name": "name: !!python/name:os.system",
        "tag: module": "name: !!python/module:os",
        "tag: binary": "name: !!binary aGVsbG8=",
        "tag: declared": "%TAG ! tag:yaml.org,2002:python/\n---\nname: !object/apply:os.system [x]",
        "alias": "name: &a [x]\nruns_dir: *a",
        "alias bomb": "a: &a [x,x]\n"
        + "\n".join(f"{b}: &{b} [*{a},*{a}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
        "alias to itself": "name: &a [*a]",
        "merge key": "<<: {seed: 1}",
        "deep": "name: " + "[" * 100_000,
        "deep in blocks": "\n".join(" " * depth + "a:" for depth in range(900)),
        "deep key in demo": "demo:\n  data." + ".".join("a" * 5000) + ": 1",
        "two documents": "seed: 1\n---\nseed: 2",
        "key twice": "seed: 1\nseed: 2",
        "key that is a list": "? [a]\n: 1",
        "number without end": "seed: " + "9" * 6000,
        "number in base 60": "seed: " + ":".join(["59"] * 20_000),
        "date that is none": "name: 2001-99-99",
        "NUL": "name: a\0b",
        "control characters": "name: \x1b[2J",
        "resolver: environment": "name: ${oc.env:HOME}",
        "resolver: decode": "name: ${oc.decode:x}",
        "resolver: nested": "name: ${${seed}}",
        "interpolation: itself": "name: ${runs_dir}\nruns_dir: ${name}",
        "interpolation: node": "name: ${model}",
        "list": "- a",
        "bare text": "hello",
        "trusts itself": "trusted: os\nloss: {_target_: os.system}",
    }
    given = {key: text.encode() for key, text in lines.items()}
    whole = "deep key in demo"
    given[whole] = f"{_without(base, 'demo')}\n{lines[whole]}\n".encode()
    for path, node in targets(canary).items():
        if isinstance(node["_target_"], str) and path != "detkit.recipe.building.Partial":  # a class; calls nothing
            given[f"target: {path}"] = (_without(base, "loss") + f"\nloss: {node!r}\n").encode()
    return given | {
        "not UTF-8": b"name: \xff\xfe\xfa",
        "UTF-16": base.encode("utf-16"),
        "empty": b"",
    }


def _without(text: str, key: str) -> str:
    """A recipe's text without one of its keys."""
    kept, inside = [], False
    for line in text.splitlines():
        inside = line.startswith(f"{key}:") or (inside and line.startswith((" ", "#")))
        if not inside:
            kept.append(line)
    return "\n".join(kept)
