"""Options of a command: every kind of annotation, as typed, and every message with the value that was typed."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest

from detkit.errors import DataError, RecipeError
from detkit.recipe.options import Between, describe, options_of, read_options


@dataclass(frozen=True)
class Inner:
    root: str | None = None
    links: bool = False


@dataclass(frozen=True)
class Options:
    checkpoint: str = field(metadata={"example": "runs/NAME/TIME"})
    out: Path = Path("out")
    depth: int = 0
    batch_size: Annotated[int, Between(1, 64)] = 8
    weight: float = 1.0
    overlap: Annotated[float, Between(0, 1)] = 0.2
    slices: Annotated[int, Between(32)] | None = None
    flip: bool = False
    format: Literal["onnx", "openvino", "torch"] = "onnx"
    bits: Literal[8, 16] = 8
    save: tuple[Literal["coco", "csv"], ...] = ()
    sizes: tuple[Annotated[int, Between(1)], ...] = (1,)
    image_hw: tuple[Annotated[int, Between(1)], Annotated[int, Between(1)]] = (640, 640)
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("checkpoint=a=b.ckpt", "a=b.ckpt"),
        ("checkpoint=007", "007"),
        ("out=~/x", Path.home() / "x"),
        ("depth=-3", -3),
        (f"depth=1{'0' * 400}", 10**400),
        ("batch_size=64", 64),
        ("weight=-1e-2", -0.01),
        ("overlap=0", 0.0),
        ("slices=null", None),
        ("slices=", None),
        ("slices=640", 640),
        ("flip=true", True),
        ("flip=false", False),
        ("format=torch", "torch"),
        ("bits=16", 16),
        ("save=[csv, coco,csv]", ("csv", "coco")),
        ("save=", ()),
        ("sizes=4,1", (4, 1)),
        ("image_hw=320", (320, 320)),
        ("image_hw=[320, 640]", (320, 640)),
    ],
)
def test_values_as_the_annotations_say(argument: str, expected: object) -> None:
    options, _ = read_options(Options, ["checkpoint=a", argument])
    key = argument.partition("=")[0]
    assert getattr(options, key) == expected
    assert type(getattr(options, key)) is type(expected)
    assert options == replace(Options("a"), **{key: expected})


def test_an_inner_class_gives_keys_with_dots() -> None:
    options, _ = read_options(Options, ["checkpoint=a", "inner.root=b", "inner.links=true"])
    assert options == Options("a", inner=Inner("b", links=True))
    assert "inner.links" in [option.key for option in options_of(Options)]


@pytest.mark.parametrize("word", ["flip", "--flip", "flip=true"])
def test_a_switch_may_stand_alone(word: str) -> None:
    assert read_options(Options, ["checkpoint=a", word])[0] == Options("a", flip=True)


def test_appended_values_follow_those_given_or_the_default() -> None:
    read = lambda *argv: read_options(Options, ["checkpoint=a", *argv])[0]  # noqa: E731
    assert read("save+=csv").save == ("csv",)
    assert read("sizes+=4", "sizes+=2,3").sizes == (1, 4, 2, 3)
    assert read("save+=coco", "save=csv").save == ("csv",)


def test_what_a_key_takes_in_words() -> None:
    words = {option.key: describe(option.annotation) for option in options_of(Options)}
    assert words["slices"] == "a whole number from 32 on"
    assert words["format"] == "onnx, openvino or torch"
    assert words["sizes"] == "a list, each a whole number from 1 on"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("depth=1.5", "depth: must be a whole number; got '1.5'"),
        ("depth=1_0", "depth: must be a whole number; got '1_0'"),
        (f"depth={'9' * 5000}", "depth: must be a whole number; got '999"),
        (f"weight={'9' * 500}", "weight: must be a number; got '999"),
        ("batch_size=0", "batch_size: must be a whole number from 1 to 64; got '0'"),
        ("batch_size=65", "batch_size: must be a whole number from 1 to 64; got '65'"),
        ("batch_size=", "batch_size: must be a whole number from 1 to 64; got ''"),
        ("weight=inf", "weight: must be a number; got 'inf'"),
        ("weight=x", "weight: must be a number; got 'x'"),
        ("overlap=nan", "overlap: must be a number from 0 to 1; got 'nan'"),
        ("overlap=1.01", "overlap: must be a number from 0 to 1; got '1.01'"),
        ("slices=31", "slices: must be a whole number from 32 on; got '31'"),
        ("flip=yes", "flip: must be true or false; got 'yes'"),
        ("format=pdf", "format: must be onnx, openvino or torch; got 'pdf'"),
        ("bits=4", "bits: must be 8 or 16; got '4'"),
        ("save=csv,pdf,x", "save: must be some of coco,csv; got 'pdf', 'x'"),
        ("sizes=1,0", "sizes: must be a whole number from 1 on; got '0'"),
        ("image_hw=1,2,3", "image_hw: must be 2 values, or one value for all; got '1,2,3'"),
        ("image_hw=", "image_hw: must be 2 values, or one value for all; got ''"),
        ("checkpoint=", "checkpoint: is missing, e.g. checkpoint=runs/NAME/TIME"),
        ("flop=true", "flop: no such key; did you mean 'flip'?"),
        ("depth", "depth: must have the form key=value, e.g. checkpoint=runs/NAME/TIME"),
        ("depth+=3", "depth: is no list, so += cannot append to it; write depth="),
        ("save+=pdf", "save: must be some of coco,csv; got 'pdf'"),
        ("data.root=x", "data.root: no such key; known: batch_size, "),
    ],
)
def test_what_does_not_fit_is_named(argument: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_options(Options, ["checkpoint=a", argument])
    assert str(caught.value).startswith(message)


@dataclass(frozen=True)
class Places:
    root: str | None = field(default=None, metadata={"exists": DataError})
    files: tuple[str, ...] = field(default=(), metadata={"exists": DataError})
    out: str = ""


@pytest.mark.parametrize(
    ("argument", "named"),
    [("root=phtos", "phtos"), ("files=a.jpg,b/a.jgp", "b/a.jgp"), ("files+=a.jgp", "a.jgp")],
)
def test_a_path_that_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, named: str) -> None:
    for file in ("photos", "a.jpg", "b/a.jpg"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    key, meant = argument.partition("=")[0].removesuffix("+"), named.replace("pht", "phot").replace("jgp", "jpg")
    with pytest.raises(DataError) as caught:
        read_options(Places, [argument])
    assert str(caught.value) == f"{key}={named}: there is no such file or folder; did you mean '{meant}'?"


@pytest.mark.parametrize(
    "argument", ["root=null", "root=", "root=0", "root=*.jpg", "root=s3://a", "root=~", "files=", "out=gone"]
)
def test_what_need_not_exist(argument: str) -> None:
    read_options(Places, [argument])


def test_all_faults_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        read_options(Options, ["chekpoint=a", "flip=1", "data.root", "data.size=[1"], prefixes=["data."])
    lines = str(caught.value).splitlines()
    assert lines[:-1] == [
        "5 faults in the arguments:",
        "  chekpoint: no such key; did you mean 'checkpoint'?",
        "  checkpoint: is missing, e.g. checkpoint=runs/NAME/TIME",
        "  flip: must be true or false; got '1'",
        "  data.root: must have the form key.path=value, e.g. data.batch_size=8",
    ]
    assert lines[-1].startswith("  data.size: cannot read '[1': ")


def test_keys_of_the_recipe_are_handed_back() -> None:
    argv = ["data.root=/x", "checkpoint=a", "data.image_hw=[64,32]", "metrics.engine=pycocotools", "flip=true"]
    options, rest = read_options(Options, argv, prefixes=("data.", "metrics."))
    assert options == Options("a", flip=True)
    assert rest == [("data.root", "/x"), ("data.image_hw", [64, 32]), ("metrics.engine", "pycocotools")]


def test_a_mistyped_prefix_is_told() -> None:
    with pytest.raises(RecipeError, match=r"^dta\.root: no such key; known: .*, data\.\*, "):
        read_options(Options, ["checkpoint=a", "dta.root=x"], prefixes=["data."])
