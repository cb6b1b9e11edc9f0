"""Whatever can be wrong with W&B, done to a toy run by a server on this machine.

python -m tests.reliability.wandb_faults count=1
"""

import contextlib
import functools
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

import lightning as L
import torch
import wandb
from typing_extensions import override

from detkit.training import train
from tests.helpers.toy import toy_parts
from tests.reliability.forked import environment

LIMIT_S = 20
STEP = 8  # of 12, at which what dies in mid-run dies
STATUS = {"401": 401, "403": 403, "503": 503}
SPEEDS = ("time", "seconds", "images_per_s")


class FaultServer:
    """Speaks as much of W&B's protocol as a run needs to begin, until it is told to do something else.

    Attributes:
        mode: answers, 401, 403, 503, silent (takes what comes and says nothing) or closes.
        url: of the server.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode
        fault = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fault.answer(self)

            def do_GET(self) -> None:
                fault.answer(self)

            def do_PUT(self) -> None:
                fault.answer(self)

            @override
            def log_message(self, format: str, *args: Any) -> None:
                """Not on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._closing = threading.Event()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request, as the mode wants it."""
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        if self.mode == "silent":
            self._closing.wait()
        elif self.mode == "closes":
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
        else:
            text = json.dumps(_reply(body)).encode() if self.mode == "answers" else b""
            request.send_response(STATUS.get(self.mode, 200))
            request.send_header("Content-Type", "application/json")
            request.send_header("Content-Length", str(len(text)))
            request.end_headers()
            request.wfile.write(text)


class Fault(NamedTuple):
    """One way in which W&B can be wrong."""

    name: str
    mode: str | None  # of the server from the beginning; None: nobody listens
    then: Callable[[FaultServer], None] | None  # what happens in mid-run
    says: str  # in the one line that the run says of it
    key: str = "x" * 40


def faults() -> list[Fault]:
    """Each row of the table."""
    offline, silent = "W&B is offline for this run", "W&B does not answer any more"
    return [
        Fault("no key", "answers", None, offline, key=""),
        Fault("wrong key, 401", "401", None, offline),
        Fault("wrong key, 403", "403", None, offline),
        Fault("connection refused", None, None, offline),
        Fault("black hole", "silent", None, offline),
        Fault("503", "503", None, offline),
        Fault("silent in mid-run", "answers", _becomes("silent"), silent),
        Fault("503 in mid-run", "answers", _becomes("503"), silent),
        Fault("closes in mid-run", "answers", _becomes("closes"), silent),
        Fault("its process killed in mid-run", "answers", _kill_its_process, "W&B failed and is not used"),
    ]


class Outcome(NamedTuple):
    """What became of a run."""

    seconds: float  # with all that W&B does at the end
    said: list[str]  # warnings
    files: list[Any]  # metrics.csv, and metrics.jsonl without speeds


def plain_run(runs: Path, resume: bool = False) -> Outcome:
    """The same run without W&B."""
    if resume:
        _half_a_run(runs)
    return _run(runs, "disabled", None, resume)


def try_fault(fault: Fault, runs: Path, resume: bool = False) -> Outcome:
    """Run into a fault.

    Args:
        fault: to run into.
        runs: folder of the run.
        resume: the second half of a run that had begun online elsewhere.
    """
    if resume:
        _half_a_run(runs)
    with FaultServer(fault.mode or "answers") as server:
        url = server.url if fault.mode else "http://127.0.0.1:9"
        with environment(WANDB_API_KEY=fault.key, NETRC=os.devnull, WANDB_BASE_URL=url, WANDB_SILENT="true"):
            callback = AtStep(functools.partial(fault.then, server)) if fault.then else None
            return _run(runs, "online", callback, resume)


def broken_promises(fault: Fault, outcome: Outcome, plain: Outcome, limit_s: float = LIMIT_S) -> list[str]:
    """Same files, one line, in time."""
    broken = []
    if outcome.files != plain.files:
        broken.append("other metrics files")
    if len(outcome.said) != 1 or fault.says not in outcome.said[0] or "wandb sync" not in outcome.said[0]:
        broken.append(f"said {outcome.said}")
    if outcome.seconds - plain.seconds > limit_s:
        broken.append(f"{outcome.seconds - plain.seconds:.1f} s later")
    return broken


class AtStep(L.Callback):
    """Does something once, in the middle of a run."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == STEP:
            self.act()


def _half_a_run(runs: Path) -> None:
    folder = train(toy_parts(runs, epochs=1, trainer={"log_every_n_steps": 1})).folder
    (folder / "wandb_id.txt").write_text("0123456789ab")


def _run(runs: Path, mode: str, callback: L.Callback | None, resume: bool = False) -> Outcome:
    parts = toy_parts(runs, epochs=2, wandb=mode, resume=resume or None, trainer={"log_every_n_steps": 1})
    parts.trainer.keywords["callbacks"] += [callback] if callback else []
    start = time.perf_counter()
    with _warnings() as said:
        folder = train(parts).folder
        with contextlib.suppress(OSError):  # of a process that is dead
            wandb.teardown()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [{name: value for name, value in line.items() if name not in SPEEDS} for line in lines]
    return Outcome(time.perf_counter() - start, said, [(folder / "metrics.csv").read_text(), lines])


def _reply(body: bytes) -> dict[str, Any]:
    if b"mutation UpsertBucket" in body:
        project = {"id": "p", "name": "detkit", "entity": {"id": "e", "name": "toy"}}
        name = json.loads(body)["variables"]["name"]
        return {"data": {"upsertBucket": {"bucket": {"id": "r", "name": name, "project": project}, "inserted": True}}}
    viewer = {"id": "v", "entity": "toy", "username": "toy", "flags": "{}", "teams": {"edges": []}}
    return {"data": {"viewer": viewer} if b"query Viewer" in body else {}}


def _becomes(mode: str) -> Callable[[FaultServer], None]:
    def change(server: FaultServer) -> None:
        server.mode = mode

    return change


def _kill_its_process(_: FaultServer) -> None:
    """The process that W&B has started beside ours."""
    [number] = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if _read(path).split(b"\0")[0].endswith(b"wandb-core") and _parent(path.parent) == os.getpid()
    ]
    os.kill(number, signal.SIGKILL)
    time.sleep(0.2)  # until the system has closed its sockets


def _parent(folder: Path) -> int:
    fields = [line.split(b":")[1] for line in _read(folder / "status").splitlines() if line.startswith(b"PPid:")]
    return int(fields[0]) if fields else 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("detkit.training.run.loggers")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def main(arguments: list[str]) -> int:
    """A table of every fault, for a new run and for one that is resumed."""
    count = int(dict(argument.split("=") for argument in arguments).get("count", "1"))
    torch.set_num_threads(1)
    failed, new = 0, [(fault, False) for fault in faults()]
    resumed = [(fault, True) for fault in faults() if fault.mode in {None, "silent", "503"}]
    with tempfile.TemporaryDirectory() as runs:
        plain_run(Path(runs, "warm"))
        plain = {resume: plain_run(Path(runs, f"plain {resume}"), resume) for resume in (False, True)}
        print(f"{'fault':32}{'later by':>10}  result", flush=True)
        for number, (fault, resume) in enumerate([*new, *resumed] * count):
            outcome = try_fault(fault, Path(runs, str(number)), resume)
            broken = broken_promises(fault, outcome, plain[resume])
            failed += bool(broken)
            name = f"{fault.name}{', resumed' if resume else ''}"
            result = "; ".join(broken) or outcome.said[0].partition(". ")[0]
            print(f"{name:32}{outcome.seconds - plain[resume].seconds:8.1f} s  {result[:140]}", flush=True)
    print(
        f"{failed} promises broken" if failed else f"all runs completed with the same files, at most {LIMIT_S} s later"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
