"""Arguments held against constructors before anything is built."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Protocol, Union

import pytest

from detkit import recipe
from detkit.errors import RecipeError
from detkit.recipe.checking import _nodes_in, locate
from detkit.recipe.loading import recipe_files
from detkit.recipe.plan import PARTS
from detkit.recipe.signature import as_annotated, fits, parameters_of
from detkit.recipe.source_names import names_in_source
from tests.recipe import toys
from tests.recipe.conftest import Load


class Part(Protocol):
    def go(self) -> None: ...


NODE = {"_target_": "x.Y"}
Meters = NewType("Meters", float)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [1, -1], [1.0, True, "1", None, [1], NODE]),
        (float, [1, 1.5], [True, "1e-3", None]),
        (bool, [True], [1, "true", None]),
        (str, ["a"], [1, None, ["a"], NODE]),
        (None, [None], [0, "", False]),
        (Path, ["a"], [1, None]),
        (str | Path | None, ["a", None], [1]),
        (Union[int, str], [1, "a"], [1.5, None]),  # noqa: UP007
        (Literal["a", 1] | None, ["a", 1, None], ["b", True, 1.0]),
        (list[int], [[], [1]], [["a"], 1, "a", {"a": 1}]),
        (list, [[1, "a"]], ["a"]),
        (Sequence[str], [["a"]], ["a", [1]]),
        (Iterable[int | None], [[1, None]], [["a"]]),
        (tuple[int, int], [[1, 2]], [[1], [1, 2, 3], [1, "a"], 1]),
        (tuple[int, ...], [[], [1, 2, 3]], [["a"]]),
        (tuple, [[1, "a"]], [1]),
        (list[tuple[int, str]], [[[1, "a"]]], [[[1]]]),
        (dict[str, float], [{}, {"a": 1}], [{"a": "b"}, [1]]),
        (Mapping[str, list[int]], [{"a": [1]}], [{"a": 1}]),
        (Callable[[int], int], [NODE], ["a", 1, None, [1]]),
        (Part, [NODE], [1, "a", {"a": 1}]),
        (Part | None, [NODE, None], [1]),
        (list[Part], [[NODE]], [[1], NODE | {"_target_": 1} and [2]]),
        (Any, [1, None, [1], {"a": 1}], []),
        (Annotated[int, "pixels"], [1], []),
        (Meters, [1.0], []),
        ("Unresolved", [1, "a"], []),
    ],
    ids=str,
)
def test_fits(annotation: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not fits(value, annotation)] == []
    assert [value for value in bad if fits(value, annotation)] == []


def test_lists_become_tuples_where_asked() -> None:
    assert as_annotated([1, 2], tuple[int, int]) == (1, 2)
    assert as_annotated([1, 2], tuple[int, int] | None) == (1, 2)
    assert as_annotated([1, 2], list[int] | tuple[int, ...]) == [1, 2]
    assert as_annotated([1, 2], Any) == [1, 2] and as_annotated(None, tuple[int, ...] | None) is None


def test_a_right_recipe_passes(load: Load) -> None:
    recipe.check(load())
    recipe.check(load("data.root=~/my data", "trainer.devices=0,1", "optimizer=torch.optim.SGD", "optimizer.lr=1"))
    recipe.check(load("trainer.devices=[0,1]", "model.backbone=tests.recipe.toys.OtherBackbone", "loss.powers=[1]"))
    recipe.check(load("loss=tests.recipe.toys.anything", "loss.whatever=1"))  # **options take any name


def test_a_head_without_its_number_of_classes(load: Load) -> None:
    with pytest.raises(RecipeError, match=r"^model\.head\.num_classes: is missing; set it to null"):
        recipe.check(load(replace=("    num_classes: null\n", "")))


def test_an_argument_of_a_part_that_is_not_given(load: Load) -> None:
    with pytest.raises(RecipeError, match=r"Detector has no argument 'kind'; did you mean 'model\.preprocess\.kind'\?"):
        recipe.check(load("model.head=tests.recipe.toys.anything", "model.kind=plain"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("trainer.max_epohcs=3", r"trainer.max_epohcs: Trainer has no argument .*; did you mean 'max_epochs'\?"),
        ("model.backbone.depht=1", r"model.backbone.depht: .*did you mean 'depth'\? \(command line\)"),
        ("model.bakbone.depth=1", r"model.bakbone: Detector has no argument 'bakbone'; did you mean 'backbone'"),
        ("decode.x=1", "decode.x: Decode has no argument 'x'; known: threshold"),
        ("trainer.callbacks.0.decya=1", r"trainer.callbacks.0.decya: .*did you mean 'decay'"),
        ("model.depth=1", r"model.depth: Detector has no argument 'depth'; did you mean 'model.backbone.depth'\?"),
        ("trainer.decay=1", r"Trainer has no argument 'decay'; did you mean 'trainer.callbacks.0.decay'\?"),
        ("optimizer.lr=fast", r"optimizer.lr: must be float | Tensor; got 'fast' \(command line\)"),
        ("optimizer.lrr=1", r"optimizer.lrr: AdamW has no argument 'lrr'; did you mean 'lr'"),
        ("model.backbone.depth=1.5", "model.backbone.depth: must be int; got 1.5"),
        ("model.backbone.depth=", "model.backbone.depth: must be int; got None"),
        ("data.image_hw=640", r"data.image_hw: must be tuple\[int, int\]; got 640"),
        ("data.image_hw=[1,2,3]", r"data.image_hw: must be tuple\[int, int\]; got \[1, 2, 3\]"),
        ("data.root=2024", "data.root: must be .*; got 2024; put it in quotes to make it text"),
        ("trainer.precision=16", r"trainer.precision: must be Literal\[32, 'bf16-mixed'\]; got 16"),
        ("model.head.num_classes=a", "model.head.num_classes: must be int; got 'a'"),
        ("model.backbone=3", r"model.backbone: must be Backbone \| OtherBackbone; got 3"),
        ("model.preprocess=a.Head", r"must be Head \| None; got 'a.Head'; write preprocess._target_=a.Head to"),
        ("metrics._partial_=false", "metrics.ground_truth: is missing, metrics needs it; set it, or"),
        ("metrics._partial_=1", "metrics._partial_: must be true or false; got 1"),
        ("loss._target_=3", "loss._target_: must be an import path; got 3"),
        ("loss=tests.recipe.toys.Lsos", r"cannot import .*: tests.recipe.toys has no 'Lsos'; did you mean 'Loss'"),
        ("loss=tests.recpie.toys.Loss", r"cannot import .*: tests has no 'recpie'"),
        ("loss=no_such_package.Loss", "cannot import 'no_such_package.Loss': Python has no 'no_such_package'"),
        ("loss=tests.recipe.toys.NOT_CALLABLE", "tests.recipe.toys.NOT_CALLABLE is no class or function"),
        ("loss=tests.recipe.toys.Loss.x", "cannot import .*: tests.recipe.toys.Loss has no 'x'"),
        ("loss=''", "loss._target_: must be an import path; got ''"),
        ("loss=a..b", "loss._target_: must be an import path; got 'a..b'"),
        ("model.backbone.num_classes=", "model.backbone.num_classes: Backbone has no argument 'num_classes'"),
        ("loss=tests.recipe.toys", "tests.recipe.toys is no class or function"),
    ],
)  # fmt: skip
def test_faults_of_one_argument(load: Load, argument: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.check(load(argument))


def test_all_faults_at_once_with_their_lines(load: Load, toy: Path) -> None:
    plan = load("trainer.max_epohcs=3", "loss.x=1", replace=("depth: 2", "dept: a"))
    with pytest.raises(RecipeError) as caught:
        recipe.check(plan)
    assert str(caught.value).splitlines() == [
        "3 faults in recipe toy:",
        f"  model.backbone.dept: Backbone has no argument 'dept'; did you mean 'depth'? ({toy}, line 6)",
        "  loss.x: Loss has no argument 'x'; known: powers, weights (command line)",
        "  trainer.max_epohcs: Trainer has no argument 'max_epohcs'; did you mean 'max_epochs'? (command line)",
    ]


def test_the_overlay_is_checked(load: Load) -> None:
    plan = load(replace=("trainer.max_epochs: 2", "trainer.max_epoch: 2"))
    with pytest.raises(RecipeError, match=r"trainer.max_epoch: .*did you mean 'max_epochs'\? \(.*line 30, demo\)"):
        recipe.check(plan)


def test_a_real_trainer(load: Load) -> None:
    plan = load("trainer=lightning.Trainer", "trainer.max_epohcs=3", "trainer.precision=bf", "trainer.devices=0,1")
    with pytest.raises(RecipeError) as caught:
        recipe.check(plan)
    text = str(caught.value)
    assert "2 faults" in text and "did you mean 'max_epochs'?" in text and "'bf16-mixed'" in text
    recipe.check(load("trainer=lightning.Trainer", "trainer.devices=[0,1]", "trainer.accelerator=cpu"))


def test_a_faulty_module_of_the_user_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user_part.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        locate("user_part.Loss")


def test_a_users_class_is_found_in_the_working_directory(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_parts.py").write_text("def my_loss(gain: float = 1.0): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path)])  # as every command does
    with pytest.raises(RecipeError, match=r"loss.gian: my_loss has no argument 'gian'; did you mean 'gain'"):
        recipe.check(load("loss=my_parts.my_loss", "loss.gian=2"))


TOYS = ("tests.recipe",)


def test_stored_recipes_build_only_trusted_classes(load: Load) -> None:
    config = load().config
    with pytest.raises(RecipeError, match=r"data._target_: tests.recipe.toys.Data is in no trusted package"):
        recipe.check(recipe.from_dict(config))
    recipe.check(recipe.from_dict(config, trusted=(*recipe.TRUSTED, *TOYS)))


@pytest.mark.parametrize(
    "path",
    ["tests.recipe.toys.os.system", "tests.recipe.toys.Path", "tests.recipe.toys.Any"],
)
def test_an_alias_does_not_get_through(path: str) -> None:
    with pytest.raises(RecipeError, match=f"{path} is no class of a trusted package"):
        locate(path, TOYS)
    assert locate("tests.recipe.toys.Loss", TOYS) is toys.Loss


@pytest.mark.parametrize("path", ["os.system", "runpy.run_path", "builtins.type", "zipimport.zipimporter", "yaml.Node"])
def test_a_recipe_names_its_own_code_and_known_libraries(load: Load, path: str) -> None:
    """Of the working directory, not of Python: frozen and built-in modules lie nowhere."""
    with pytest.raises(RecipeError, match=rf"loss._target_: {path} is in no trusted package .*named with trusted=PACK"):
        recipe.check(load(f"loss={path}"))


def test_functions_are_taken_of_packages_that_the_user_names() -> None:
    """Those of detkit and its libraries read and write files; none of them makes a part of a recipe."""
    assert locate("tests.recipe.toys.metrics", TOYS) is toys.metrics
    with pytest.raises(RecipeError, match=r"detkit.data.make_demo is no class of a trusted package"):
        locate("detkit.data.make_demo", recipe.TRUSTED)


def test_an_installed_package_can_be_trusted(load: Load) -> None:
    assert load("trusted=yaml,torchvision").named_packages == ["yaml", "torchvision"] and load().named_packages == []
    assert load("trusted=yaml").packages_of_detector == ["yaml", "tests"]  # its recipe has classes of tests.recipe
    recipe.check(load("loss=torchvision.models.resnet18", "trusted=yaml,torchvision"))
    with pytest.raises(RecipeError, match=r"torchvision.models.resnet18 is no class of a trusted package"):
        recipe.check(load("loss=torchvision.models.resnet18", "trusted=yaml"))
    with pytest.raises(RecipeError, match=r"loss.gain: Node has no argument 'gain'"):
        recipe.check(load("loss=yaml.Node", "loss.gain=1", "trusted=yaml"))


@pytest.mark.parametrize("path", ["os.system", "testss.recipe.toys.Loss", "builtins.eval", "subprocess.Popen"])
def test_other_packages_are_not_even_imported(path: str) -> None:
    with pytest.raises(RecipeError, match=f"{path} is in no trusted package"):
        locate(path, TOYS)


def test_names_read_from_the_source_are_those_of_the_signature() -> None:
    """Of every class that a recipe names."""
    configs = [recipe.load([f"recipe={name}"]).config for name in recipe_files()]
    paths = {node["_target_"] for config in configs for part in PARTS for _, node in _nodes_in(config[part], part)}
    assert {"lightning.Trainer", "torch.optim.AdamW", "detkit.data.CocoDataModule"} <= paths
    for path in sorted(paths):
        parameters, found = parameters_of(locate(path)), names_in_source(path)
        assert found is not None, f"{path} would have to be imported to answer a misspelt key"
        assert parameters is not None and found[1] == set(parameters)
        assert found[0] == locate(path).__qualname__


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class A:\n    def __init__(self, a, *, b=1): ...", {"a", "b"}),
        ("class B:\n    def __init__(self, a): ...\nclass A(B): ...", {"a"}),
        ("def A(a, b): ...", {"a", "b"}),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    a: int\n    b: int = 1", {"a", "b"}),
        ("class A:\n    def __init__(self, a, **more): ...", None),
        ("class A:\n    def __new__(cls, b): ...\n    def __init__(self, a): ...", None),
        ("class A(metaclass=M):\n    def __init__(self, a): ...", None),
        ("class B(metaclass=M): ...\nclass A(B):\n    def __init__(self, a): ...", None),
        ("@change\nclass A:\n    def __init__(self, a): ...", None),
        ("def change(f): ...\nclass A:\n    @change\n    def __init__(self, a): ...", None),
        ("class A:\n    def __init__(self, a): ...\nA = change(A)", None),
        ("if x:\n    from b import A\nclass A:\n    def __init__(self, a): ...", None),
        ("from elsewhere import *", None),
    ],
)
def test_names_are_given_only_where_the_source_settles_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: set[str] | None
) -> None:
    module = f"settled_{abs(hash(source))}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    found = names_in_source(f"{module}.A")
    assert (found and found[1]) == expected
    assert module not in sys.modules


def test_a_misspelt_argument_is_found_without_imports(load: Load) -> None:
    plan = load("trainer=lightning.Trainer", "trainer.max_epohcs=3", "optimizer.lrr=1")
    with pytest.raises(RecipeError) as caught:
        recipe.check_names(plan)
    assert "trainer.max_epohcs: Trainer has no argument 'max_epohcs'; did you mean 'max_epochs'?" in str(caught.value)
    assert "optimizer.lrr: AdamW has no argument 'lrr'; did you mean 'lr'?" in str(caught.value)


def test_an_argument_that_belongs_deeper_is_found_without_imports() -> None:
    plan = recipe.load(["recipe=yolo_csp_n", "data.mosaic_probability=1"])
    with pytest.raises(RecipeError, match=r"did you mean 'data\.augmentation\.mosaic_probability'\?"):
        recipe.check_names(plan)
