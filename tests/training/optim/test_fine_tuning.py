"""What is frozen stays to the bit, unfreezing is exact at every stop, and refusals name what is there."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from typing_extensions import override

from detkit.checkpoint import manifests_in, read_checkpoint, read_detector
from detkit.errors import RecipeError
from detkit.models import Detector
from detkit.models.backbones import CSPDarknet
from detkit.training import Muon, train
from detkit.training.optim.fine_tuning import FineTuning
from tests.helpers.run_folders import assert_same, copy_of_step, rows, state_of
from tests.helpers.toy import toy_parts
from tests.training.optim.staged import staged, with_backbone

STEPS = 6  # of an epoch
UNFREEZE = {"freeze": 1, "unfreeze_epoch": 1, "backbone_lr_factor": 0.5, "layer_decay": 0.5}
EVERY_STEP = {"every_n_steps": 1, "keep": 100}


def frozen_by(freeze: Any, model: nn.Module | None = None) -> set[str]:
    model = model or staged()
    FineTuning(model, freeze)
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def names_in(*modules: str) -> set[str]:
    return {name for name, _ in staged().named_parameters() if name.startswith(tuple(f"{m}." for m in modules))}


@pytest.mark.parametrize(
    ("freeze", "modules"),
    [
        (0, ["backbone.conv1", "backbone.bn1"]),
        (1, ["backbone.conv1", "backbone.bn1", "backbone.layer1"]),
        (2, ["backbone"]),
        ("backbone", ["backbone"]),
        ("backbone.*", ["backbone"]),
        ("backbone.layer?.*", ["backbone.layer1", "backbone.layer2"]),
        (["backbone.layer1", "head.box.*"], ["backbone.layer1", "head.box"]),
        ([], []),
        (None, []),
    ],
)
def test_what_is_frozen(freeze: Any, modules: list[str]) -> None:
    assert frozen_by(freeze) == names_in(*modules)


def test_single_parameters_are_frozen() -> None:
    assert frozen_by(["*.bias"]) == {name for name, _ in staged().named_parameters() if name.endswith(".bias")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": 3}, r"freeze=3: the backbone's stages are 0 backbone.conv1, backbone.bn1; 1 backbone.layer1; 2 "),
        ({"freeze": -1}, r"freeze=-1: the backbone's stages are 0 "),
        (
            {"freeze": ["backbone", "backbone.layr1.*"]},
            r"freeze=backbone.layr1.\*: Detector .* did you mean 'backbone.la",
        ),
        ({"freeze": "xyz"}, "freeze=xyz: Detector has no parameter of this name; it has backbone, head$"),
        ({"freeze": "*"}, r"freeze=\* leaves nothing to train"),
        ({"freeze": ["backbone", "head"]}, r"freeze=\['backbone', 'head'\] leaves nothing to train"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        FineTuning(staged(), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": "backbone"}, "freeze=backbone: Sequential has no parameter of this name; it has 0, 1"),
        ({"freeze": 0}, "freeze=0 needs a model with a backbone; Sequential has 0, 1"),
        ({"layer_decay": 0.5}, r"backbone_lr_factor=1.0, layer_decay=0.5 needs a model with a backbone"),
    ],
)
def test_without_a_backbone(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        FineTuning(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), **settings)


def test_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="freeze=backbone: ToyDetector has no parameter of this name; it has body"):
        train(toy_parts(tmp_path, freeze="backbone"))
    assert list(tmp_path.iterdir()) == []


def test_strategies_that_shard(tmp_path: Path) -> None:
    callback = FineTuning(staged(), freeze=0, unfreeze_epoch=1)
    trainer = L.Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path)
    callback.setup(trainer, L.LightningModule(), "fit")
    trainer._accelerator_connector.strategy = FSDPStrategy()
    with pytest.raises(RecipeError, match="unfreeze_epoch works on one device and with strategy ddp; got FSDPStr"):
        callback.setup(trainer, L.LightningModule(), "fit")


def test_describes_itself() -> None:
    weights = 3 * 4 * 16 + 2 * 4 + 4 * 8 * 9 + 2 * 8
    total = weights + 8 * 8 * 4 + 2 * 8 + 2 * 8 + 128 * 7 + 7
    text = FineTuning(staged(), freeze=1, unfreeze_epoch=5).describe()
    modules = "backbone.conv1, backbone.bn1, backbone.layer1"
    assert text == f"frozen until epoch 5 is over: 6 of 15 tensors ({modules}), {weights} of {total} parameters"
    model = Detector(CSPDarknet(0.33, 0.25), _neck, _head)
    size = sum(parameter.numel() for parameter in model.parameters())
    frozen = sum(parameter.numel() for parameter in model.get_submodule("backbone").parameters())
    text = FineTuning(model, freeze="backbone").describe()
    assert text.startswith("frozen: ") and "tensors (backbone)" in text
    assert text.endswith(f", {frozen / 1e6:.1f} of {size / 1e6:.1f} million parameters")


def _neck(specs: Any) -> Any:
    neck = nn.Conv2d(specs[0].channels, 64, 1)
    neck.out_specs = specs  # type: ignore[assignment]
    return neck


def _head(specs: Any) -> nn.Module:
    return nn.Linear(specs[0].channels, 20000)


def tensors_in(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items() if name.startswith(prefix)}


@pytest.mark.parametrize("plain", [False, True])
def test_frozen_stays_to_the_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str], plain: bool) -> None:
    """Weights and running statistics, of the model and of the average, over epochs with validation."""
    parts = with_backbone(toy_parts(tmp_path, epochs=2, freeze="backbone"), plain)
    before = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    folder = train(parts).folder
    weights, metadata = read_detector(folder / "detector.safetensors")
    for after in (weights, dict(parts.model.state_dict())):
        assert_same(tensors_in(after, "backbone"), tensors_in(before, "backbone"))
        changed = {name for name in before if not torch.equal(after[name], before[name])}
        assert changed == {name for name in before if name.startswith("head")}
    assert metadata["recipe"]["freeze"] == "backbone"
    [optimizer] = state_of(folder)["optimizer_states"]
    assert len(optimizer["state"]) == len([name for name, _ in parts.model.named_parameters() if "head" in name])
    assert "frozen: 9 of 15 tensors (backbone), " in capsys.readouterr().out


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped, frozen in its first epoch, with a checkpoint at each step."""
    parts = toy_parts(tmp_path_factory.mktemp("runs"), checkpoint=EVERY_STEP, **UNFREEZE)
    return train(with_backbone(parts)).folder


def at_step(folder: Path, step: int) -> dict[str, Any]:
    [manifest] = [manifest for manifest in manifests_in(folder / "checkpoints") if manifest.step == step]
    return read_checkpoint(manifest.path)


def test_unfreezing(whole: Path) -> None:
    """Frozen weights and statistics begin to move with the first step of the epoch, the others go on."""
    still = ("model.preprocess", *(f"model.backbone.{name}" for name in ("conv1", "bn1", "layer1")))
    first, before, after = (at_step(whole, step) for step in (1, STEPS, STEPS + 1))
    for name, tensor in first["current_model_state"].items():
        assert torch.equal(tensor, before["current_model_state"][name]) == name.startswith(still)
        moves = not torch.equal(before["current_model_state"][name], after["current_model_state"][name])
        assert moves != name.startswith("model.preprocess")
    steps = sorted(int(state["step"]) for state in after["optimizer_states"][0]["state"].values())
    assert steps == [1] * 6 + [STEPS + 1] * 9
    assert [state["callbacks"]["FineTuning"]["unfrozen"] for state in (before, after)] == [False, True]


def test_learning_rates_go_on(whole: Path) -> None:
    """Of every group its factor times that of the first, at every step, as if there had been no unfreezing."""
    factors = {"others": 1.0, "backbone.layer2": 0.5, "backbone.layer1": 0.25, "backbone.conv1": 0.125}
    plain = train(with_backbone(toy_parts(whole.parents[1] / "plain", checkpoint=EVERY_STEP))).folder
    for step in range(1, 3 * STEPS + 1):
        expected = at_step(plain, step)["optimizer_states"][0]["param_groups"][0]["lr"]
        groups = at_step(whole, step)["optimizer_states"][0]["param_groups"]
        assert len(groups) == (8 if step > STEPS else 4)  # others and each stage, with and without decay
        for group in groups:
            assert group["lr"] == pytest.approx(expected * factors[group["name"].removesuffix("/no_decay")], rel=1e-12)


@pytest.mark.parametrize("step", [4, 6, 7, 12, 14])
def test_resumed_equals_whole(whole: Path, tmp_path: Path, step: int) -> None:
    """Stopped while frozen, at the border, after the first step that trains all, and later."""
    folder = copy_of_step(whole, tmp_path, step)
    parts = with_backbone(toy_parts(tmp_path, resume=True, checkpoint=EVERY_STEP, **UNFREEZE))
    assert train(parts).folder == folder
    assert_same(state_of(folder), state_of(whole))
    assert rows(folder) == rows(whole)
    weights, expected = (read_detector(run / "detector.safetensors")[0] for run in (folder, whole))
    assert_same(weights, expected)


@pytest.mark.long
@pytest.mark.parametrize("step", range(1, 3 * STEPS))
def test_resumed_equals_whole_at_every_step(whole: Path, tmp_path: Path, step: int) -> None:
    test_resumed_equals_whole(whole, tmp_path, step)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "freeze=None: the run that is resumed has freeze=1; set the same value"),
        ({"freeze": 1, "backbone_lr_factor": 0.5}, "layer_decay=1.0: the run that is resumed has layer_decay=0.5"),
    ],
)
def test_resumed_otherwise(whole: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    copy_of_step(whole, tmp_path, 8)
    with pytest.raises(RecipeError, match=message):
        train(with_backbone(toy_parts(tmp_path, resume=True, **{"resume.allow_changes": True}, **settings)))


def test_muon_and_accumulation_resume(tmp_path: Path) -> None:
    """An optimizer whose state is no tensor alone, and gradients summed over batches, 4 + 2 in an epoch."""

    def parts(runs: Path, **given: Any) -> Any:
        made = toy_parts(runs, trainer={"accumulate_grad_batches": 4}, checkpoint=EVERY_STEP, **UNFREEZE, **given)
        return with_backbone(made)._replace(optimizer=lambda groups: Muon(groups, lr=0.01))

    whole = train(parts(tmp_path / "whole")).folder
    folder = copy_of_step(whole, tmp_path / "resumed", 2)
    train(parts(tmp_path / "resumed", resume=True))
    assert_same(state_of(folder), state_of(whole))


def test_unfrozen_at_once_equals_never_frozen(tmp_path: Path) -> None:
    folders = []
    for name, settings in (("never", {}), ("once", {"freeze": "backbone", "unfreeze_epoch": 0})):
        folders.append(train(with_backbone(toy_parts(tmp_path / name, epochs=1, **settings))).folder)
    states = [state_of(folder) for folder in folders]
    for key in ("state_dict", "current_model_state", "optimizer_states"):
        assert_same(states[0][key], states[1][key])


class Watch(L.Callback):
    """Which norms train, in every batch."""

    def __init__(self) -> None:
        self.training: list[tuple[bool, ...]] = []

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        norms = [module for module in pl_module.modules() if isinstance(module, nn.BatchNorm2d)]
        self.training.append(tuple(norm.training for norm in norms))


@pytest.mark.parametrize("plain", [False, True])
def test_norms_train_from_the_epoch_on(tmp_path: Path, plain: bool) -> None:
    watch = Watch()
    parts = toy_parts(tmp_path, freeze=1, unfreeze_epoch=2, trainer={"callbacks": [watch]})
    train(with_backbone(parts, plain))
    assert watch.training == [(False, False, True, True)] * 2 * STEPS + [(True,) * 4] * STEPS


def test_names_of_learning_rates(tmp_path: Path) -> None:
    """What a logger shows: Lightning's own names without these settings, the parts' names with them."""

    def columns(**settings: Any) -> set[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        logger = CSVLogger(folder, flush_logs_every_n_steps=1)
        trainer = {"logger": logger, "log_every_n_steps": 1, "callbacks": []}
        train(with_backbone(toy_parts(folder, epochs=2, trainer=trainer, **settings)))
        header = Path(logger.log_dir, "metrics.csv").read_text().partition("\n")[0]
        return {name for name in header.split(",") if name.startswith("lr-")}

    assert columns() == {"lr-AdamW/pg1", "lr-AdamW/pg2"}
    parts = ("others", "backbone")
    named = {f"lr-AdamW/{part}{suffix}" for part in parts for suffix in ("", "/no_decay")}
    assert columns(freeze="backbone", unfreeze_epoch=1, backbone_lr_factor=0.1) == named


def test_checkpoints_without_these_keys() -> None:
    """Of runs before there was fine-tuning: nothing is compared, nothing is stored."""
    callback = FineTuning(staged())
    trainer = L.Trainer(logger=False, accelerator="cpu")
    callback.on_load_checkpoint(trainer, L.LightningModule(), {"detkit": {"recipe": {}}})
    assert callback.state_dict() == {}
