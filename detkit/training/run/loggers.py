"""Log the numbers of a run to W&B, after they are on disk. A failure of W&B never ends a run."""

import logging
import netrc
import os
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import lightning as L
import wandb
from lightning.pytorch.loggers import WandbLogger
from typing_extensions import override

from detkit.checkpoint import storage_errors
from detkit.checkpoint.file import replace
from detkit.training.run.folder import RunFolder
from detkit.training.settings import RunSettings

# A failure of W&B delays a run by at most 20 s. Before these timeouts begin, W&B itself needs 10 s to detect that its
# server does not answer, and 11 s more for a resumed run.
INIT_TIMEOUT_S, RESUME_TIMEOUT_S = 6, 3
ASK_TIMEOUT_S = 4  # for the check whether the server answers
FINISH_TIMEOUT_S = 10  # numbers that are not uploaded in this time stay on disk for `wandb sync`
LOG = logging.getLogger(__name__)
KEY_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
WANDB_PACKAGES = ("wandb", "pydantic_core")  # exceptions of these packages are failures of W&B


class BufferedWandbLogger(WandbLogger):
    """A W&B logger that keeps numbers until ``flush``, and reports a failure of W&B once.

    Lightning logs the numbers of a step before the run's files are written. ``flush`` is called after that.

    Args:
        experiment: a started W&B run.
        folder: folder of the run.
    """

    def __init__(self, experiment: wandb.Run, folder: RunFolder) -> None:
        super().__init__(experiment=experiment)
        self.folder = folder
        self.broken = False
        self._waiting: list[tuple[dict[str, float], int | None]] = []

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self.broken:
            self._waiting.append((dict(metrics), step))

    @override
    def log_hyperparams(self, params: object) -> None:
        """Does nothing, because the W&B run was started with the whole recipe."""

    @override
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        if not self.broken:
            with self.suppress_errors():
                super().log_image(key, images, step, **kwargs)

    def flush(self) -> None:
        """Send the numbers since the last call to W&B."""
        waiting, self._waiting = self._waiting, []
        with self.suppress_errors():
            for metrics, step in waiting:
                super().log_metrics(metrics, step)

    def suppress_errors(self) -> "SuppressWandbErrors":
        """Context for every call of W&B: a failure ends only the logging to W&B."""
        return SuppressWandbErrors(self._stop_logging)

    def _stop_logging(self, error: BaseException) -> None:
        if not self.broken:
            LOG.warning(
                "W&B failed and is not used for the rest of the run: %s. %s",
                _reason(error),
                _how_to_upload(self.folder),
            )
        self.broken = True


class FlushWandb(L.Callback):
    """Sends the buffered numbers to W&B; it must come after all callbacks that write files.

    Args:
        logger: has the buffered numbers.
    """

    def __init__(self, logger: BufferedWandbLogger) -> None:
        self.logger = logger

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.logger.flush()

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.logger.flush()


class SuppressWandbErrors:
    """Suppresses the exceptions of W&B, which have no common base class: see ``is_wandb_error``.

    Args:
        report: called with the exception.
    """

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        self.report = report

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not is_wandb_error(type(error)):
            return False
        self.report(error)
        return True


def is_wandb_error(kind: type[BaseException]) -> bool:
    """Whether an exception means a failure of W&B, its process, the network or the disk."""
    return issubclass(kind, OSError) or kind.__module__.partition(".")[0] in WANDB_PACKAGES


def wandb_logger(settings: RunSettings, folder: RunFolder) -> BufferedWandbLogger | None:
    """A logger with a started W&B run, online if that is wanted and possible; a resumed run keeps its W&B id.

    Args:
        settings: settings of the run; ``wandb=auto`` is online if a key is found, else offline.
        folder: folder of the run.
    """
    mode = settings.wandb
    if mode == "disabled":
        return None
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # error reports delay the exit without a server
    online = mode == "online" or (mode == "auto" and has_wandb_key())
    consequence = "W&B is offline for this run"
    run, url = None, wandb.setup().settings.base_url

    def report(error: BaseException) -> None:
        LOG.warning("%s: %s. %s", consequence, _reason(error), _how_to_upload(folder))

    with SuppressWandbErrors(report):
        if online and not is_reachable(url):
            raise ConnectionError(f"no answer from {url}")
        run = _begin(online, settings, folder)
    if run is None:
        consequence = "W&B cannot write its files either and is not used"
        with SuppressWandbErrors(report):
            wandb.teardown()  # otherwise W&B treats the id as in use
            run = _begin(False, settings, folder)
    if run is None:
        return None
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step")
    return BufferedWandbLogger(run, folder)


def has_wandb_key() -> bool:
    """Whether there is a key where W&B looks for one: in the environment or the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    hosts = {*KEY_HOSTS, urlsplit(os.environ.get("WANDB_BASE_URL", "")).netloc}
    try:
        return not hosts.isdisjoint(netrc.netrc(path).hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def finish_wandb(logger: BufferedWandbLogger, folder: RunFolder, failed: bool) -> None:
    """End the W&B run, and upload the detector as an artifact if the run is online and the server answers."""
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
            wandb.teardown()  # at exit it would print a traceback


def is_reachable(url: str) -> bool:
    """Whether a server answers, even if it rejects the request."""
    try:
        with urllib.request.urlopen(f"{url}/graphql", timeout=ASK_TIMEOUT_S):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # W&B may have certificates that urllib does not have
    except (OSError, ValueError):
        return False


def _begin(online: bool, run: RunSettings, folder: RunFolder) -> wandb.Run:
    run_id, resumed = run_id_of(folder)
    settings = wandb.Settings(
        init_timeout=RESUME_TIMEOUT_S if resumed else INIT_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        console="off",
        silent=not online,
    )
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", "detkit"),
        group=run.recipe_name,
        name=f"{run.recipe_name} {folder.path.name}",
        id=run_id,
        dir=folder.path,
        config=run.recipe,
        mode="online" if online else "offline",
        resume="allow" if resumed and online else None,
        settings=settings,
    )


def run_id_of(folder: RunFolder) -> tuple[str, bool]:
    """W&B's id of a run, and whether it existed before. A new id is written to disk before W&B gets it."""
    known = folder.wandb_id.read_text().strip() if folder.wandb_id.exists() else ""
    if known:
        return known, True
    new = uuid.uuid4().hex[:12]
    with storage_errors(folder.wandb_id):
        replace(folder.wandb_id, lambda file: file.write(new.encode()))
    return new, False


def _reason(error: BaseException) -> str:
    message = str(error).partition("\n")[0]
    return type(error).__name__ if message in ("", "<no message>") else message  # the second one comes from W&B


def _how_to_upload(folder: RunFolder) -> str:
    return f"The numbers are in {folder.path}; upload them later: wandb sync {folder.path}/wandb/*run-*"
