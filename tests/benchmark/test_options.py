"""What is asked for and cannot be is said with its value."""

from pathlib import Path
from typing import Any

import pytest

from detkit.benchmark.options import BenchmarkOptions, check_options, sizes_of
from detkit.errors import RecipeError
from detkit.recipe.options import read_options


@pytest.fixture(autouse=True)
def _existing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b.onnx", "c.xml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


def read(argv: list[str]) -> tuple[BenchmarkOptions, list[tuple[str, Any]]]:
    options, data = read_options(BenchmarkOptions, argv, prefixes=["data."])
    check_options(options, data)
    return options, data


def test_lists_and_keys_of_the_data() -> None:
    options, data = read(
        ["checkpoint=a", "runtimes=onnx,eager", "threads=1,2", "batch_size=4", "also=b.onnx,c.xml", "data.root=d"]
    )
    assert options.runtimes == ("onnx", "eager")
    assert (options.threads, options.batch_size, options.also) == ((1, 2), (4,), ("b.onnx", "c.xml"))
    assert data == [("data.root", "d")]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("runtimes=eager,tensorrt", r"runtimes: must be some of eager,compile,.*; got 'tensorrt'"),
        ("runtimes=", "runtimes: must name at least one"),
        ("batch_size=", "batch_size: must name at least one"),
        ("batch_size=1,0", "batch_size: must be a whole number from 1 on; got '0'"),
        ("threads=half", "threads: must be a whole number from 1 on; got 'half'"),
        ("repeat=0", "repeat: must be a whole number from 1 on; got '0'"),
        ("limit=0", "limit: must be a whole number from 1 on; got '0'"),
        ("data.image_hw=[64,64]", r"data\.image_hw: AP is measured at the sizes of image_hw="),
        ("runtime=onnx", "runtime: no such key; did you mean 'runtimes'"),
    ],
)
def test_what_does_not_fit_is_named(argument: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(["checkpoint=a", argument])


def test_a_checkpoint_is_needed() -> None:
    with pytest.raises(RecipeError, match=r"checkpoint: is missing, e\.g\. checkpoint=runs/NAME/TIME"):
        read(["repeat=1"])


def test_sizes() -> None:
    assert sizes_of((), (96, 64), 32) == [(96, 64)]
    assert sizes_of(("64", "384x640"), (96, 64), 32) == [(64, 64), (384, 640)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100", r"image_hw=100: must be multiples of 32, .* got \[100, 100\], the nearest size is \[96, 96\]"),
        ("100x640", r"image_hw=100x640: must be multiples of 32, .* the nearest size is \[96, 640\]"),
        ("8", r"image_hw=8: .* the nearest size is \[32, 32\]$"),
        ("0", "image_hw=0: must be pixels"),
        ("64x64x3", "image_hw=64x64x3: must be pixels of both sides, or HEIGHTxWIDTH"),
        ("-64", "image_hw=-64: must be pixels"),
        ("large", "image_hw=large: must be pixels"),
    ],
)
def test_no_size(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        sizes_of((text,), (64, 64), 32)
