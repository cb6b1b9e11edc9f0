"""The end of a rank, told to all others: none of them waits for one that is gone.

# Note [how the end of a rank is noticed]
Every rank holds a connection to rank 0. The kernel closes it when the process ends, whatever ends it, and
says so when a machine no longer answers: nobody is taken for dead because it is slow, and it does not
matter which library does the collectives. The main thread may wait within one of them for ever (NCCL: half
an hour), so it is a thread of its own that listens, says which rank is gone, and ends the process.
"""

import contextlib
import functools
import json
import logging
import multiprocessing
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import lightning as L
from typing_extensions import override

from detkit.errors import TrainingError

CONNECT_S = 30
HEAR_S = 3  # by then this rank has heard that another one is gone, if it is
LEAVE_S = 30  # for a rank that fails to say why and to close what is its own
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}  # a lost machine is noticed after 30 s
KILLED = "it was killed, or its machine was lost"
LOG = logging.getLogger(__name__)


class End(NamedTuple):
    """Why a rank ended, and the exit code of the whole run."""

    rank: int
    reason: str
    exit_code: int = TrainingError.exit_code


class RanksWatch(L.Callback):
    """End this rank when another one is gone, and tell the others when this one fails.

    Args:
        folder: of the run.
        go_on: the command that resumes it.

    Attributes:
        folder: from ``setup`` on as rank 0 knows it, on all ranks.
        from_others: on rank 0, what other ranks told by ``tell``.
    """

    def __init__(self, folder: Path, go_on: str = "resume=true") -> None:
        self.folder = folder
        self.go_on = go_on
        self.from_others: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._rank, self._world_size = 0, 1
        self._peers: dict[int, socket.socket] = {}  # on rank 0 all others, elsewhere rank 0
        self._leaving = False  # by itself, so that nobody else may end this process
        self._told = threading.Event()
        self._one_end = threading.Lock()

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.world_size == 1:
            return
        self._rank, self._world_size = trainer.global_rank, trainer.world_size
        os.register_at_fork(after_in_child=functools.partial(_close_copies, self._peers))
        meeting: Any = self._open(one_node=trainer.num_nodes == 1) if self._rank == 0 else None
        host, port, token, folder, self.go_on = trainer.strategy.broadcast(meeting)
        self.folder = Path(folder)
        if self._rank != 0:
            self._connect(host, port, token)

    @contextlib.contextmanager
    def announced_exit(self) -> Iterator[None]:
        """Around the whole fit: after it no rank waits for this one, and it has said how it ended."""
        try:
            yield
        except BaseException as error:
            self._leave(error)
            raise
        self._leave(None)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Tell it before anything else is done; but ranks that stop together have yet to save together."""
        if not _together(exception):
            self._leave(exception)

    def tell(self, value: Any) -> None:
        """Give rank 0 a value of JSON types; on rank 0 nothing happens."""
        if self._rank != 0:
            self._send({"value": value})

    def _open(self, one_node: bool) -> tuple[str, int, str, str, str]:
        server = socket.create_server(("127.0.0.1" if one_node else "", 0), backlog=self._world_size)
        token = secrets.token_hex(16)  # what else may call here is no rank of this run
        threading.Thread(target=self._accept, args=(server, token), daemon=True, name="ranks watch").start()
        host = "127.0.0.1" if one_node else os.environ["MASTER_ADDR"]
        return host, server.getsockname()[1], token, str(self.folder), self.go_on

    def _accept(self, server: socket.socket, token: str) -> None:
        """Until all ranks are here. Each caller has a thread of his own: he may be a stranger who says nothing."""
        server.settimeout(CONNECT_S)
        with server, contextlib.suppress(OSError):  # a rank that cannot connect says so itself
            while True:
                peer, _ = server.accept()
                threading.Thread(target=self._greeted, args=(server, peer, token), daemon=True, name="caller").start()

    def _greeted(self, server: socket.socket, peer: socket.socket, token: str) -> None:
        peer.settimeout(CONNECT_S)
        lines = peer.makefile()  # one for all lines: it reads ahead
        rank = _greeting(lines, token)
        if rank is None:
            peer.close()
            return
        self._begin(rank, peer, lines)
        if len(self._peers) == self._world_size - 1:
            with contextlib.suppress(OSError):  # it is closed
                server.shutdown(socket.SHUT_RDWR)  # which wakes ``accept``

    def _connect(self, host: str, port: int, token: str) -> None:
        try:
            peer = socket.create_connection((host, port), timeout=CONNECT_S)
        except OSError as error:
            LOG.warning(
                "rank %d cannot reach rank 0 at %s:%d (%s): if a rank dies, this one only ends by the timeout of its "
                "collectives; open the ports between the machines",
                *(self._rank, host, port, error),
            )
            return
        self._begin(0, peer, peer.makefile())
        self._send({"token": token, "rank": self._rank})

    def _begin(self, rank: int, peer: socket.socket, lines: TextIO) -> None:
        peer.settimeout(None)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._peers[rank] = peer
        listen = threading.Thread(target=self._listen, args=(rank, peer, lines), daemon=True, name=f"rank {rank} watch")
        listen.start()

    def _listen(self, rank: int, peer: socket.socket, lines: TextIO) -> None:
        """Until the other end says goodbye, or is gone."""
        end = End(rank, KILLED)
        with contextlib.suppress(OSError, ValueError):  # ValueError: it died within a line
            for line in lines:
                message = json.loads(line)
                if "bye" in message:
                    return
                if "value" in message:
                    self.from_others.put(message["value"])
                if "end" in message:
                    end = End(*message["end"])
                    self._told.set()
                    if end.rank != rank:
                        break  # rank 0 passed it on, and ends as well
                    peer.settimeout(LEAVE_S)
        self._follow(end)

    def _follow(self, end: End) -> None:
        """End this process, unless it is ending by itself."""
        with self._one_end:  # and never let go of it
            if self._leaving:
                return
            self._send({"end": end})
            if self._rank == (1 if end.rank == 0 else 0):
                who = f"rank {end.rank} of {self._world_size}"
                stop = f"All other ranks stop; the last checkpoint is whole. Go on: {self.go_on}"
                os.write(2, f"\nerror: {who} is gone: {end.reason}. {stop}\n".encode())
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(end.exit_code)

    def _leave(self, error: BaseException | None) -> None:
        """Say why this rank ends, or goodbye; what is said first holds."""
        if self._leaving:
            return
        last = {"bye": True} if error is None or _together(error) else {"end": self._end(error)}
        with self._one_end:
            self._leaving = True
            self._send(last)

    def _end(self, error: BaseException) -> End:
        if self._peers and isinstance(error, RuntimeError) and self._told.wait(HEAR_S):
            time.sleep(2 * LEAVE_S)  # this is what the end of another rank looks like: the thread ends the process
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return End(self._rank, reason, getattr(error, "exit_code", End._field_defaults["exit_code"]))

    def _send(self, message: Mapping[str, Any]) -> None:
        line = f"{json.dumps(message)}\n".encode()
        for peer in list(self._peers.values()):
            with contextlib.suppress(OSError):  # whoever listens to it knows that it is gone
                peer.sendall(line)


def _together(error: BaseException) -> bool:
    """Whether all ranks end by it at the same border of a step."""
    return getattr(error, "at_border", False)


def _greeting(lines: TextIO, token: str) -> int | None:
    """The rank that a caller says he is; None: he is a stranger."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        hello = json.loads(lines.readline(1000))
        if secrets.compare_digest(hello["token"], token):
            return int(hello["rank"])
    return None


def _close_copies(peers: Mapping[int, socket.socket]) -> None:
    """In a forked process, e.g. a data worker: it may outlive its rank, whose connections must end with it."""
    for peer in peers.values():
        os.close(peer.detach())
