"""W&B gets numbers after the files have them, and its failures are its own."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import wandb
from typing_extensions import override
from wandb.errors import AuthenticationError, CommError

from detkit.training import train
from detkit.training.run.folder import RunFolder
from detkit.training.run.loggers import BufferedWandbLogger, has_wandb_key, is_reachable, is_wandb_error, run_id_of
from tests.helpers.toy import toy_parts


def test_key_is_looked_for_where_wandb_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert not has_wandb_key()
    netrc.write_text("machine example.org login a password b\n")
    netrc.chmod(0o600)
    assert not has_wandb_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://example.org")
    assert has_wandb_key()
    netrc.write_text("machine api.wandb.ai login a password b\n")
    assert has_wandb_key()
    netrc.write_text("broken {")
    assert not has_wandb_key()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert has_wandb_key()


def test_the_id_of_a_run_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while it is written leaves none, and an empty file counts as none."""
    folder = RunFolder(tmp_path)

    def killed(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        run_id_of(folder)
    monkeypatch.undo()
    assert not folder.wandb_id.exists()
    folder.wandb_id.write_text("")
    run_id, resumed = run_id_of(folder)
    assert len(run_id) == 12 and not resumed
    assert run_id_of(folder) == (run_id, True)


def test_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key: W&B keeps its files in the run's folder; a resumed run keeps its id."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    folder = train(toy_parts(tmp_path, epochs=1, wandb="auto")).folder
    run_id = (folder / "wandb_id.txt").read_text()
    train(toy_parts(tmp_path, epochs=2, wandb="auto", resume=True))
    assert (folder / "wandb_id.txt").read_text() == run_id
    runs = list((folder / "wandb").glob(f"offline-run-*-{run_id}"))
    assert len(runs) >= 1 and all(list(run.glob("*.wandb")) for run in runs)
    assert list((folder / "wandb").rglob("*.jpg"))


class Recorder:
    """A W&B run that notes what it gets, and may fail."""

    offline = True

    def __init__(self, folder: Path | None = None, error: BaseException | None = None) -> None:
        self.folder, self.error = folder, error
        self.got: list[dict[str, Any]] = []

    def log(self, metrics: dict[str, Any]) -> None:
        if self.error:
            raise self.error
        if self.folder:  # whatever W&B gets is in a file
            names = metrics.keys() & {"train/cls", "val/AP50"}
            text = "".join(path.read_text() for path in self.folder.glob("metrics.*"))
            assert all(f'"{name}": {metrics[name]}' in text for name in names), metrics
        self.got.append(metrics)


def logger_with(run: Any, folder: Path) -> BufferedWandbLogger:
    logger = BufferedWandbLogger(None, RunFolder(folder))  # type: ignore[arg-type]
    logger._experiment = run
    return logger


def test_numbers_wait_until_they_are_handed_over(tmp_path: Path) -> None:
    run = Recorder()
    logger = logger_with(run, tmp_path)
    logger.log_metrics({"a": 1.0}, step=3)
    logger.log_metrics({"b": 2.0})
    assert run.got == []
    logger.flush()
    logger.flush()
    assert run.got == [{"a": 1.0, "trainer/global_step": 3}, {"b": 2.0}]


@pytest.mark.parametrize("error", [CommError("no route"), ConnectionResetError("Connection lost"), OSError(28, "full")])
def test_a_failure_is_said_once_and_numbers_go_on(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logger_with(Recorder(error=error), tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            logger.log_metrics({"a": 1.0})
            logger.flush()
            logger.log_image("b", ["absent.jpg"])
    assert logger.broken and len(caplog.messages) == 1
    [message] = caplog.messages
    assert message.startswith(
        f"W&B failed and is not used for the rest of the run: {error}. The numbers are in {tmp_path}; upload"
    )
    assert f"wandb sync {tmp_path}/wandb/*run-*" in message


@pytest.mark.parametrize("text", ["", "<no message>"])
def test_a_bare_refusal_is_told_by_its_kind(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logger_with(Recorder(error=AuthenticationError(text)), tmp_path)
    logger.log_metrics({"a": 1.0})
    logger.flush()
    assert "W&B failed and is not used for the rest of the run: AuthenticationError. The numbers are in" in caplog.text


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), KeyboardInterrupt()])
def test_what_is_not_of_wandb_is_not_swallowed(error: BaseException, tmp_path: Path) -> None:
    logger = logger_with(Recorder(error=error), tmp_path)
    logger.log_metrics({"a": 1.0})
    with pytest.raises(type(error)):
        logger.flush()


def test_wandbs_own_exceptions_are_known() -> None:
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

    kinds = (wandb.Error, HandleAbandonedError, MailboxClosedError, BrokenPipeError, TimeoutError)
    assert all(is_wandb_error(kind) for kind in kinds)
    assert not any(is_wandb_error(kind) for kind in (TypeError, RuntimeError, KeyboardInterrupt))


def test_nobody_answers() -> None:
    assert not is_reachable("http://127.0.0.1:9") and not is_reachable("not a url")


class Swap(L.Callback):
    """Puts a recorder in the place of the W&B run."""

    def __init__(self, run: Recorder) -> None:
        self.run = run

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        logger: Any = trainer.loggers[-1]
        self.run.folder = logger.folder.path
        self.real, logger._experiment = logger._experiment, self.run

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        logger: Any = trainer.loggers[-1]
        logger.flush()
        logger._experiment = self.real


def test_files_have_numbers_before_wandb_does(tmp_path: Path) -> None:
    """Including those of a validation, which Lightning hands to loggers before any callback."""
    run = Recorder()
    parts = toy_parts(tmp_path, epochs=2, wandb="offline", trainer={"log_every_n_steps": 1})
    parts.trainer.keywords["callbacks"].append(Swap(run))
    folder = train(parts).folder
    assert sum("train/cls" in metrics for metrics in run.got) == 12
    assert sum("val/AP50" in metrics for metrics in run.got) == 2
    assert len([line for line in (folder / "metrics.jsonl").read_text().splitlines() if json.loads(line)]) == 14
