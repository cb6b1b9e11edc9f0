"""Numbers of a run in W&B, after they are on disk; whatever happens to W&B does not happen to the run."""

import logging
import netrc
import os
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

import lightning as L
import wandb
from lightning.pytorch.loggers import WandbLogger
from typing_extensions import override

from detkit.checkpoint import storing
from detkit.checkpoint.file import replace
from detkit.training.run.folder import RunFolder

WandbMode = Literal["auto", "online", "offline", "disabled"]
# Whatever is wrong with W&B holds a run up for 20 s at most. Of its own it takes 10 s to find out that
# nobody answers, before the patience that it can be given; 11 s more if an earlier run goes on.
INIT_TIMEOUT_S, RESUME_TIMEOUT_S = 6, 3
ASK_TIMEOUT_S = 4  # for a sign of life, before W&B is begun and before it is ended
FINISH_TIMEOUT_S = 10  # what was not uploaded by then stays on disk for `wandb sync`
LOG = logging.getLogger(__name__)
KEY_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
WANDB_PACKAGES = ("wandb", "pydantic_core")  # packages whose exceptions say that W&B is broken, or got a wrong answer


class BufferedWandbLogger(WandbLogger):
    """W&B that gets numbers only when the run's files have them, and whose failure is said once.

    Lightning hands the numbers over as they come; they wait here until ``flush``.

    Args:
        experiment: a W&B run that has begun.
        folder: of the run.
    """

    def __init__(self, experiment: Any, folder: RunFolder) -> None:
        super().__init__(experiment=experiment)
        self.folder = folder
        self.broken = False
        self._waiting: list[tuple[dict[str, Any], int | None]] = []

    @override
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if not self.broken:
            self._waiting.append((dict(metrics), step))

    @override
    def log_hyperparams(self, params: Any) -> None:
        """Nothing: the run began with the whole recipe."""

    @override
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        if not self.broken:
            with self.suppress_errors():
                super().log_image(key, images, step, **kwargs)

    def flush(self) -> None:
        """Give W&B what has come since the last time."""
        waiting, self._waiting = self._waiting, []
        with self.suppress_errors():
            for metrics, step in waiting:
                super().log_metrics(metrics, step)

    def suppress_errors(self) -> "SuppressWandbErrors":
        """Around all that W&B does: a failure of its own ends W&B, and nothing else."""
        return SuppressWandbErrors(self._broke)

    def _broke(self, error: BaseException) -> None:
        if not self.broken:
            LOG.warning("W&B failed and is left out from here on: %s. %s", _reason(error), _how_to_upload(self.folder))
        self.broken = True


class FlushWandb(L.Callback):
    """Gives W&B its numbers; to be listed after all that writes files.

    Args:
        logger: that has kept them back.
    """

    def __init__(self, logger: BufferedWandbLogger) -> None:
        self.logger = logger

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.logger.flush()

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.logger.flush()


class SuppressWandbErrors:
    """Swallows what W&B raises, which is not one kind of exception: told by where its class comes from.

    Args:
        say: gets the exception.
    """

    def __init__(self, say: Callable[[BaseException], None]) -> None:
        self.say = say

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not is_wandb_error(type(error)):
            return False
        self.say(error)
        return True


def is_wandb_error(kind: type[BaseException]) -> bool:
    """Whether an exception says that W&B, its own process, the network or the disk have failed."""
    return issubclass(kind, OSError) or kind.__module__.partition(".")[0] in WANDB_PACKAGES


def wandb_logger(mode: WandbMode, name: str, folder: RunFolder, config: dict[str, Any]) -> BufferedWandbLogger | None:
    """A logger whose run has begun, online if that is wanted and possible; a resumed run goes on with its id.

    Args:
        mode: auto is online where a key is found, else offline.
        name: of the recipe, which is W&B's group.
        folder: of the run.
        config: the recipe as it runs.
    """
    if mode == "disabled":
        return None
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its reports hold the exit up if the server is gone
    online, said = mode == "online" or (mode == "auto" and has_wandb_key()), "W&B is offline for this run"
    run, url = None, wandb.setup().settings.base_url

    def say(error: BaseException) -> None:
        LOG.warning("%s: %s. %s", said, _reason(error), _how_to_upload(folder))

    with SuppressWandbErrors(say):
        if online and not is_reachable(url):
            raise ConnectionError(f"nobody answers at {url}")
        run = _begin(online, name, folder, config)
    if run is None:
        said = "W&B cannot write its files either and is left out"
        with SuppressWandbErrors(say):
            wandb.teardown()  # else the id would count as in use
            run = _begin(False, name, folder, config)
    if run is None:
        return None
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step")
    return BufferedWandbLogger(run, folder)


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


def finish_wandb(logger: BufferedWandbLogger, folder: RunFolder, failed: bool) -> None:
    """End the run; its detector goes with it as an artifact if the run is online and the server answers."""
    run = logger.experiment
    with logger.suppress_errors():
        logger.flush()
        online = not run.offline and not logger.broken
        if online and not is_reachable(run.settings.base_url):
            online = False
            LOG.warning("W&B does not answer any more. %s", _how_to_upload(folder))
        if online and not failed and folder.detector.exists():
            artifact = wandb.Artifact(f"{folder.path.parent.name}-detector", type="model")
            artifact.add_file(str(folder.detector))
            run.log_artifact(artifact)
    with logger.suppress_errors():
        run.finish(exit_code=int(failed))
    if logger.broken:
        with logger.suppress_errors():
            wandb.teardown()  # now: at exit it would print a traceback


def is_reachable(url: str) -> bool:
    """Whether a server says anything at all, be it that it does not know us."""
    try:
        with urllib.request.urlopen(f"{url}/graphql", timeout=ASK_TIMEOUT_S):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # W&B may know certificates that we do not
    except (OSError, ValueError):
        return False


def _begin(online: bool, name: str, folder: RunFolder, config: dict[str, Any]) -> Any:
    run_id, resumed = run_id_of(folder)
    settings = wandb.Settings(
        init_timeout=RESUME_TIMEOUT_S if resumed else INIT_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        console="off",
        silent=not online,
    )
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", "detkit"),
        group=name,
        name=f"{name} {folder.path.name}",
        id=run_id,
        dir=folder.path,
        config=config,
        mode="online" if online else "offline",
        resume="allow" if resumed and online else None,
        settings=settings,
    )


def run_id_of(folder: RunFolder) -> tuple[str, bool]:
    """W&B's id of a run, and whether the run had one before. The file is there as a whole before W&B hears of it."""
    known = folder.wandb_id.read_text().strip() if folder.wandb_id.exists() else ""
    if known:
        return known, True
    new = uuid.uuid4().hex[:12]
    with storing(folder.wandb_id):
        replace(folder.wandb_id, lambda file: file.write(new.encode()))
    return new, False


def _reason(error: BaseException) -> str:
    said = str(error).partition("\n")[0]
    return type(error).__name__ if said in ("", "<no message>") else said  # the second is W&B's, of a bare refusal


def _how_to_upload(folder: RunFolder) -> str:
    return f"The numbers are in {folder.path}; upload them later: wandb sync {folder.path}/wandb/*run-*"
