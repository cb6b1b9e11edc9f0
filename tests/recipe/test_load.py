"""Files and command lines to plans: values that survive, overrides, the demo overlay, and faults."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detkit import recipe
from detkit.errors import RecipeError
from detkit.recipe.faults import Faults
from detkit.recipe.overrides import parse_overrides
from detkit.recipe.read import MAX_BYTES, read_value
from tests.recipe.conftest import TOY, Load

OTHER = "tests.recipe.toys.OtherBackbone"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("runs/epoch=3-step=100.ckpt", "runs/epoch=3-step=100.ckpt"),
        ("~/my data", "~/my data"),
        ("s3://b/x?y&z", "s3://b/x?y&z"),
        ("0,1", "0,1"),
        ("[0,1]", [0, 1]),
        ("1e-3", 0.001),
        ("5e-4", 0.0005),
        ("-1", -1),
        ("0.5", 0.5),
        ("true", True),
        ("false", False),
        ("", None),
        ("null", None),
        ("{a: 1, b: [x, null]}", {"a": 1, "b": ["x", None]}),
        ("'1e-3'", "1e-3"),
        ('"null"', "null"),
        ("bf16-mixed", "bf16-mixed"),
        ("val/AP", "val/AP"),
        ("/data/a #2", "/data/a #2"),
        ("a: b", "a: b"),
        ("12:30", "12:30"),
        ("*.jpg", "*.jpg"),
        ("&x", "&x"),
        ("!important", "!important"),
        ("@home", "@home"),
        ("%TEMP%", "%TEMP%"),
        ("- x", "- x"),
        ("---", "---"),
        ("C:\\data", "C:\\data"),
        (" lead", " lead"),
        ("ünï", "ünï"),
        ("a\nb", "a\nb"),
    ],
)
def test_values_survive_the_command_line(text: str, value: Any) -> None:
    read = read_value(text)
    assert read == value and type(read) is type(value)


def test_values_survive_the_stored_recipe(load: Load, tmp_path: Path) -> None:
    texts = ["a=b", "~/my data", "0,1", "'1e-3'", "'null'", "'true'", "12:30", "a #b", "a: b", "'007'", "é\n", "''"]
    for text in texts:
        plan = load(f"data.root={text}" if text != "''" else 'data.root=""', "seed=9")
        stored = tmp_path / "recipe.yaml"
        stored.write_text(plan.to_yaml())
        assert recipe.load([f"recipe={stored}"]).config == plan.config


def test_a_stored_recipe_is_the_same_run_again(load: Load, tmp_path: Path) -> None:
    """Its overlay is in the values already and must not come over the user's own."""
    plan = load("trainer.max_epochs=7")
    (tmp_path / "recipe.yaml").write_text(plan.to_yaml())
    again = recipe.load([f"recipe={tmp_path / 'recipe.yaml'}"])
    assert again.config == plan.config and again.config["trainer"]["max_epochs"] == 7
    assert recipe.from_dict(plan.config).config == plan.config


def test_file_values(load: Load) -> None:
    config = load("data.root=/data").config
    assert config["optimizer"]["lr"] == 0.001 and config["loss"]["weights"] == {"cls": 0.5, "box": 2}
    assert config["data"]["seed"] == 3  # ${seed}
    assert config["runs_dir"] == "runs" and config["resume"] is None  # settings the file leaves out
    assert load("seed=5").config["data"]["seed"] == 5


def test_arguments_in_any_order_and_the_last_wins(toy: Path) -> None:
    plan = recipe.load(["seed=1", "data.root=/a", f"recipe={toy}", "seed=2"])
    assert plan.config["seed"] == 2 and plan.name == "toy" and plan.path == toy
    assert plan.overrides == [("seed", 1), ("data.root", "/a"), ("seed", 2)]


@pytest.mark.parametrize("key", ["trainer.callbacks[0].decay", "trainer.callbacks.0.decay"])
def test_inside_lists(load: Load, key: str) -> None:
    plan = load(f"{key}=0.5")
    assert plan.config["trainer"]["callbacks"] == [{"_target_": "tests.recipe.toys.EMA", "decay": 0.5}]
    assert plan.base["trainer"]["callbacks"][0]["decay"] == 0.99


def test_another_class_brings_its_own_arguments(load: Load) -> None:
    for arguments in ([f"model.backbone._target_={OTHER}"], [f"model.backbone={OTHER}"]):
        assert load(*arguments).config["model"]["backbone"] == {"_target_": OTHER}
        given = load("model.backbone.depth=18", *arguments)  # typed before the class, yet an argument of it
        assert given.config["model"]["backbone"] == {"_target_": OTHER, "depth": 18}


def test_partial_belongs_to_the_place(load: Load) -> None:
    config = load("optimizer=torch.optim.SGD", "optimizer.lr=0.1", "trainer={_target_: my.Trainer}").config
    assert config["optimizer"] == {"_partial_": True, "_target_": "torch.optim.SGD", "lr": 0.1}
    assert config["trainer"] == {"_partial_": True, "_target_": "my.Trainer"}


def test_the_same_class_keeps_its_arguments(load: Load) -> None:
    assert load("model.backbone=tests.recipe.toys.Backbone").config["model"]["backbone"]["depth"] == 2


def test_new_keys_need_no_sign(load: Load) -> None:
    config = load(
        "loss.powers=[1,2]", "model.preprocess._target_=tests.recipe.toys.Head", "model.preprocess.kind=x"
    ).config
    assert config["loss"]["powers"] == [1, 2]
    assert config["model"]["preprocess"] == {"_target_": "tests.recipe.toys.Head", "kind": "x"}


def test_demo_overlay(load: Load) -> None:
    demo = load("trainer.max_epochs=5")
    assert demo.config["data"]["image_hw"] == [32, 32] and demo.demo
    assert demo.config["trainer"]["max_epochs"] == 5  # the command line is over the overlay
    assert "demo" not in demo.config
    real = load("data.root=/data")
    assert real.config["data"]["image_hw"] == [640, 640] and not real.demo
    assert load("data=my.Data").config["data"] == {"_target_": "my.Data"}  # no root that could be null
    assert load("data.root=/data", "data.root=").demo


def test_changes_name_their_source(load: Load, toy: Path) -> None:
    plan = load(f"model.backbone={OTHER}", "data.root=/a", "seed=4", "loss.powers=[1]")
    rows = [(change.place, change.before, change.after) for change in plan.changes()]
    assert rows == [
        ("seed", 3, 4),
        ("model.backbone._target_", "tests.recipe.toys.Backbone", OTHER),
        ("model.backbone.depth", 2, "-"),
        ("loss.powers", "-", [1]),
        ("data.root", None, "/a"),
        ("data.seed", 3, 4),
    ]
    assert plan.changes()[0].source == "command line"
    assert load().changes()[0].source == f"{toy}, line 29, demo"
    assert load("trainer.callbacks.0.decay=1", "data.root=a").changes()[1].place == "trainer.callbacks.0.decay"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("trainr.max_epochs=3", "no key 'trainr' at the top of a recipe; did you mean 'trainer'"),
        ("lr=1", r"no key 'lr' at the top of a recipe; did you mean 'optimizer.lr'"),
        ("demo.seed=1", "no key 'demo' at the top"),
        ("sed=1", "did you mean 'seed'"),
        ("seed", "seed: must have the form key.path=value"),
        ("--seed=1", "--seed=1: must have the form key.path=value"),
        ("a b=1", "a b=1: must have the form"),
        ("data..root=1", "data..root=1: must have the form"),
        ("data.root=[1", r"data.root: cannot read '\[1'"),
        ("data.root=[&a 1, *a]", r"data.root: cannot read .* anchors and aliases are not allowed \(got 'a'\)"),
        ("data.root=[!!python/name:os.system x]", "tags are not allowed"),
        ("wandb=offlin", r"wandb: must be .*'offline'.*; got 'offlin'"),
        ("wandb=false", "wandb: must be .*; got False"),
        ("seed=x", r"seed: must be int; got 'x' \(command line\)"),
        ("seed=-1", r"seed: must be 0 to 2\*\*32 - 1; got -1"),
        ("seed=true", "seed: must be int; got True"),
        ("unfreeze_epoch=-1", "unfreeze_epoch: must be 0 or more; got -1"),
        ("unfreeze_epoch=2", r"unfreeze_epoch: nothing is frozen; set freeze \(command line\)"),
        ("non_finite=ignore", r"non_finite: must be .*'skip'.*; got 'ignore'"),
        ("max_non_finite=-1", "max_non_finite: must be 0 or more; got -1"),
        ("backbone_lr_factor=0", "backbone_lr_factor: must be positive .*; got 0"),
        ("layer_decay=1.1", "layer_decay: must be above 0 and at most 1; got 1.1"),
        ("name=2024", "name: must be str | None; got 2024; put it in quotes to make it text"),
        ("seed.a=1", r"seed.a: cannot set 'a' inside 3 \(command line\)"),
        ("trainer.callbacks[1].decay=1", "'1' is no index of a list of 1"),
        ("trainer.callbacks.decay=1", "'decay' is no index of a list of 1"),
        ("loss=", r"loss: must name its constructor in _target_; got None \(command line\)"),
        ("name=${oc.env:HOME}", r"name: '\$\{oc.env:HOME\}' must be \$\{key.path\} without other text"),
        ("name=${sed}", r"name: '\$\{sed\}' must point to a single value"),
        ("name=${model}", r"name: '\$\{model\}' must point to a single value"),
        ("name=a${seed}", "must be .* without other text"),
        ("name=${name}", "Recursive interpolation"),
        ("name=${x", "must be .* without other text"),
    ],
)
def test_faults_of_one_argument(load: Load, argument: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(argument)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 3", "sede: 3", r"sede: no key 'sede' at the top .*; did you mean 'seed'\? \(.*toy.yaml, line 2\)"),
        ("seed: 3", "seed: 3\nseed: 4", r"toy.yaml, line 3: seed is repeated, first in line 2; keep one of them"),
        ("depth: 2", "depth: 2, depth: 3", r"line 6: model.backbone.depth is repeated"),
        ("seed: 3", "1: 3", r"line 2: a key must be text; got '1'"),
        ("seed: 3", "seed: [3", "toy.yaml, line 3: is no YAML: while parsing a flow"),
        ("seed: 3", "seed: !!python/object/apply:os.system [ls]", r"tags are not allowed \(got '.*os.system'"),
        ("seed: 3", "seed: &s 3", r"line 2: anchors and aliases are not allowed \(got 's'\)"),
        ("seed: 3", "seed: " + "[" * 40 + "]" * 40, "line 2: at most 32 levels of nesting"),
        ("seed: 3", "seed: 3 # \x07", "line 1: .*control characters are not allowed"),
        ("root: null", "root: ${oc.env:HOME}", r"data.root: '\$\{oc.env:HOME\}' must be .* \(.*line 18\)"),
        ("data.image_hw", "dta.image_hw", r"dta.image_hw: no key 'dta' .*did you mean 'data'\? \(.*line 29, demo\)"),
        ("demo:\n  data.image_hw: [32, 32]\n  trainer.max_epochs: 2", "demo: 3", "must map keys to values; got 3"),
        (TOY, "", "line 1: must contain keys and values"),
        (TOY, "- 1", "line 1: must contain keys and values"),
        (TOY, "seed: 1\n--- 2", "is no YAML: expected a single document"),
        (TOY, "#" * (MAX_BYTES + 1), f"may have at most {MAX_BYTES} bytes; got {MAX_BYTES + 1}"),
    ],
)  # fmt: skip
def test_faults_of_the_file(load: Load, old: str, new: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(replace=(old, new))


def test_a_file_that_is_no_text(toy: Path) -> None:
    toy.write_bytes(b"seed: \xff\xfe")
    with pytest.raises(RecipeError, match=r"toy.yaml, line 1: must be UTF-8 text; .*0xff"):
        recipe.load([f"recipe={toy}"])


def test_interpolation_cannot_grow(load: Load) -> None:
    with pytest.raises(RecipeError, match="without other text"):
        load("name=${runs_dir}${runs_dir}")
    with pytest.raises(RecipeError, match=r"loss.powers.0: '\$\{model\}' must point to a single value"):
        load("loss.powers=['${model}', '${seed}']")
    assert load("loss.powers=['${seed}', 1]").config["loss"]["powers"] == [3, 1]


def test_all_faults_at_once(load: Load) -> None:
    with pytest.raises(RecipeError) as caught:
        load("x", "trainr.a=1", "seed=[1", "wandb=2")
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 faults in recipe toy:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["x", "seed", "trainr.a", "wandb"]
    with pytest.raises(RecipeError, match=r"12 faults(.*\n){11}  ... and 2 more"):
        load(*(f"x{number}" for number in range(12)))


def test_file_and_command_line_faults_together(load: Load) -> None:
    with pytest.raises(RecipeError, match=r"(?s)2 faults.*is repeated.*no key 'trainr'"):
        load("trainr.a=1", replace=("seed: 3", "seed: 3\nseed: 4"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "recipe: is missing; give one, e.g. recipe=yolo_csp"),
        (["seed=1"], "recipe: is missing"),
        (["recipe=nowhere/x.yaml"], "recipe: no file 'nowhere/x.yaml'"),
        (["recipe="], "recipe: is missing"),
    ],
)
def test_no_such_recipe(arguments: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.load(arguments)


def test_misspelt_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("detkit.recipe.loading.PACKAGED", tmp_path)
    (tmp_path / "yolo_csp.yaml").write_text(TOY)
    assert recipe.load(["recipe=yolo_csp"]).name == "yolo_csp"
    with pytest.raises(RecipeError, match=r"no recipe 'yolo_cps' in .*; did you mean 'yolo_csp'\?"):
        recipe.load(["recipe=yolo_cps"])
    with pytest.raises(RecipeError, match=r"no file '.*yolo_cps\.yaml'; did you mean '.*yolo_csp\.yaml'\?"):
        recipe.load([f"recipe={tmp_path}/yolo_cps.yaml"])


def test_a_recipe_in_the_working_directory_goes_before_that_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, seed in (("recipes", 1), ("package", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(TOY.replace("seed: 3", f"seed: {seed}"))
    (tmp_path / "package" / "theirs.yaml").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("detkit.recipe.loading.PACKAGED", tmp_path / "package")
    assert recipe.load(["recipe=mine"]).config["seed"] == 1
    assert recipe.load_recipe("theirs", [("seed", 5)]).config["seed"] == 5


def test_append_to_a_list(load: Load) -> None:
    plan = load("trainer.callbacks+={_target_: tests.recipe.toys.EMA}", "trainer.callbacks+={_target_: a.B, c: 1}")
    callbacks = plan.config["trainer"]["callbacks"]
    assert callbacks[1:] == [{"_target_": "tests.recipe.toys.EMA"}, {"_target_": "a.B", "c": 1}]
    assert callbacks[0] == load().config["trainer"]["callbacks"][0]
    assert plan.source("trainer.callbacks.1") == "command line"


def test_append_where_there_is_nothing_yet_and_after_a_new_list(load: Load) -> None:
    assert load("freeze+=head.*").config["freeze"] == ["head.*"]
    assert load("freeze+=a", "freeze=[b]").config["freeze"] == ["b"]  # set after it was appended to
    assert load(replace=("demo:\n", "demo:\n  weights_except+: fc.*\n")).config["weights_except"] == ["fc.*"]


def test_append_to_what_is_no_list(load: Load) -> None:
    with pytest.raises(RecipeError, match=r"trainer\.max_epochs: is no list, so \+= cannot append to it; it is 2"):
        load("trainer.max_epochs+=3")


def test_parse() -> None:
    assert parse_overrides(["checkpoint=a=b.pt", "x[1].y=2"], Faults()) == [("checkpoint", "a=b.pt"), ("x.1.y", 2)]
    faults = Faults()
    assert parse_overrides(["a", "b"], faults) == []
    with pytest.raises(RecipeError, match=r"(?s)2 faults in the arguments:.*a: must have.*b: must have"):
        faults.raise_if_any("the arguments")


def test_overrides_of_a_stored_recipe(load: Load) -> None:
    plan = load()
    assert recipe.from_dict(plan.config, [("data.root", "/x")]).config["data"]["root"] == "/x"
    with pytest.raises(RecipeError, match=r"no key 'trainr'.*\(command line\)"):
        recipe.from_dict(plan.config, [("trainr.x", 1)])
    with pytest.raises(RecipeError, match=r"sed: no key 'sed' at the top .*\(stored recipe\)"):
        recipe.from_dict({**plan.config, "sed": 1})


def test_nothing_heavy_is_imported(toy: Path) -> None:
    """The half second that a misspelt argument takes is measured by what is not imported."""
    code = (
        "import sys; from detkit import recipe; recipe.load(sys.argv[1:]);"
        "print([name for name in ('torch', 'lightning', 'numpy', 'cv2') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, f"recipe={toy}", "data.root=/a"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("first", [0, 1])
def test_changes_are_allowed_beside_what_is_resumed(load: Load, first: int) -> None:
    """One key, not a map: resume itself holds true or a path; both orders give the same."""
    arguments = ["resume=true", "resume.allow_changes=true"]
    config = load(arguments[first], arguments[1 - first]).config
    assert config["resume"] is True and config["resume.allow_changes"] is True
    plain = load("resume=runs/a=b").config
    assert plain["resume"] == "runs/a=b" and plain["resume.allow_changes"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume.allow_changes=true"], r"resume.allow_changes: nothing is resumed; add resume=true"),
        (["resume=true", "resume.allow_changes=5"], r"resume.allow_changes: must be bool; got 5"),
        (["resume=true", "resume_allow_changes=true"], r"no key .* did you mean 'resume.allow_changes'"),
        (["resume=true", "resume.allow=true"], r"resume.allow: cannot set 'allow' inside True"),
        (["resume.allow=true"], r"resume: must be bool \| str \| None; got \{'allow': True\}"),
    ],
)
def test_what_else_is_said_below_resume(load: Load, arguments: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(*arguments)


@pytest.mark.parametrize("resume", ["runs/toy/time", "runs/toy/time/checkpoints/step-00000001.ckpt"])
def test_a_run_is_resumed_by_its_own_recipe(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/toy/time")
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(load("seed=8", "resume=true", "resume.allow_changes=true").to_yaml())
    plan = recipe.load([f"resume={resume}", "data.batch_size=2"])
    assert plan.name == "toy" and plan.config["seed"] == 8 and plan.config["resume"] == resume
    assert plan.config["resume.allow_changes"] is False
    then = load("seed=8").to_store()
    assert [(change.place, change.after) for change in plan.changes_since(then)] == [
        ("resume", resume),
        ("data.batch_size", 2),
    ]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("resume=runs/x", r"resume: no recipe.yaml in 'runs/x'; give the folder of a run, or its recipe"),
        ("resume=true", r"recipe: is missing; give one, e.g. recipe=yolo_csp, or a run to resume, resume=FOLDER"),
    ],
)
def test_a_recipe_or_a_run_must_be_named(argument: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.load([argument])


def test_settings_that_are_new_had_their_defaults(load: Load) -> None:
    """A checkpoint of an earlier release does not know them."""
    plan = load("resume=true")
    then = {key: value for key, value in plan.to_store().items() if key not in ("layer_decay", "resume")}
    assert [change.place for change in plan.changes_since(then)] == ["resume"]
