"""Numbers of a run on disk and in W&B."""

import csv
import io
import logging
import netrc
import os
import uuid
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import lightning as L
import wandb
from lightning.pytorch.loggers import WandbLogger
from typing_extensions import override
from wandb.errors import CommError, UsageError

from detkit.training.meter import TrainMeter
from detkit.training.run_folder import RunFolder

WandbMode = Literal["auto", "online", "offline", "disabled"]
# No network must not hold a run up for more than 20 s; then it is offline. W&B takes 11 s more to
# find out that it cannot ask for the state of an earlier run.
INIT_TIMEOUT_S, RESUME_TIMEOUT_S = 8, 3
FINISH_TIMEOUT_S = 15  # what was not uploaded by then stays on disk for `wandb sync`
LOG = logging.getLogger(__name__)
KEY_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")


class MetricsTable(L.Callback):
    """metrics.csv: a row for every epoch, on disk before the epoch's checkpoint; for rank 0 alone.

    Lightning's CSVLogger would wipe the file of a run that is resumed. Here a resumed run drops only
    the rows of steps that it is going to do again.

    Args:
        path: of the file.
        meter: the means of the epoch.
    """

    def __init__(self, path: Path, meter: TrainMeter) -> None:
        self.path = path
        self.meter = meter
        self._columns: list[str] = []
        self._validation: dict[str, float] = {}

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.path.exists():
            self._rewrite([row for row in self._read() if int(row["step"]) <= trainer.global_step])

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        numbers = trainer.callback_metrics.items()
        self._validation = {name: float(value) for name, value in numbers if name.startswith("val/")}

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        row |= {f"train/{name}": value for name, value in self.meter.means.items()}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"], "images_per_s": self.meter.images_per_s}
        row |= self._validation
        self._validation = {}
        self._append({name: f"{value:.6f}" if isinstance(value, float) else str(value) for name, value in row.items()})

    def _append(self, row: dict[str, str]) -> None:
        if new := [name for name in row if name not in self._columns]:
            rows = self._read()
            self._columns += new
            self._rewrite([*rows, row])
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> list[dict[str, str]]:
        """All whole rows; a kill may have cut the last one."""
        if not self.path.exists():
            return []
        text = self.path.read_text()
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        self._columns = list(reader.fieldnames or [])
        return list(reader)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        temporary = self.path.with_suffix(".csv.tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def wandb_logger(mode: WandbMode, name: str, folder: RunFolder, config: dict[str, Any]) -> WandbLogger | None:
    """A logger whose run has begun, online if that is wanted and possible; a resumed run goes on with its id.

    Args:
        mode: auto is online where a key is found, else offline.
        name: of the recipe, which is W&B's group.
        folder: of the run.
        config: the recipe as it runs.
    """
    if mode == "disabled":
        return None
    online = mode == "online" or (mode == "auto" and has_wandb_key())
    resumed = folder.wandb_id.exists()
    if not resumed:
        folder.wandb_id.write_text(uuid.uuid4().hex[:12])
    settings = wandb.Settings(
        init_timeout=RESUME_TIMEOUT_S if resumed else INIT_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        console="off",
        silent=not online,
    )

    def begin(mode: Literal["online", "offline"]) -> Any:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", "detkit"),
            group=name,
            name=f"{name} {folder.path.name}",
            id=folder.wandb_id.read_text().strip(),
            dir=folder.path,
            config=config,
            mode=mode,
            resume="allow" if resumed and mode == "online" else None,
            settings=settings,
        )

    try:
        run = begin("online" if online else "offline")
    except (CommError, UsageError) as error:
        reason = str(error).partition("\n")[0]
        LOG.warning("W&B is offline for this run: %s. Upload it later: wandb sync %s/wandb/*", reason, folder.path)
        wandb.teardown()  # else the id would count as in use
        run = begin("offline")
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step")
    return WandbLogger(experiment=run)


def has_wandb_key() -> bool:
    """Whether a key lies where W&B looks for one: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    hosts = {*KEY_HOSTS, urlsplit(os.environ.get("WANDB_BASE_URL", "")).netloc}
    try:
        return not hosts.isdisjoint(netrc.netrc(path).hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def finish_wandb(logger: WandbLogger, folder: RunFolder, failed: bool) -> None:
    """End the run; its detector goes with it as an artifact if the run is online."""
    run = logger.experiment
    if not run.offline and not failed and folder.detector.exists():
        artifact = wandb.Artifact(f"{folder.path.parent.name}-detector", type="model")
        artifact.add_file(str(folder.detector))
        run.log_artifact(artifact)
    run.finish(exit_code=int(failed))
