"""The end of a rank, told to all other ranks, so that none of them waits for it.

# Note [how the end of a rank is noticed]
Every rank holds a connection to rank 0. The kernel closes it when the process ends, whatever ends it, and
reports when a machine no longer answers. So a slow rank is never taken for a dead one, and the collectives
may come from any library. The main thread may wait within a collective for ever (NCCL: half an hour), so
a thread of its own listens, says which rank is gone, and ends the process.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import lightning as L
from typing_extensions import override

from detkit.errors import DetkitError, TrainingError
from detkit.training.distributed.agreement import TrainingStopped

CONNECT_S = 30
HEAR_S = 3  # by then this rank has heard that another one is gone, if it is
ENDING_S = 30  # for a rank that fails to say why and to close what is its own
# A lost machine is noticed after 30 s. (macOS has no TCP_KEEPIDLE.)
KEEP_ALIVE = {vars(socket).get(name): n for name, n in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))}
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
        resume_command: the command that resumes it.

    Attributes:
        folder: from ``setup`` on as rank 0 knows it, on all ranks.
        from_others: on rank 0, what other ranks told by ``tell``.
    """

    def __init__(self, folder: Path, resume_command: str = "resume=true") -> None:
        self.folder = folder
        self.resume_command = resume_command
        self.from_others: queue.SimpleQueue[Sequence[object]] = queue.SimpleQueue()
        self._rank, self._world_size = 0, 1
        self._peers: dict[int, socket.socket] = {}  # on rank 0 all others, elsewhere rank 0
        self._is_ending = False  # by itself, so that the listening threads must not end this process
        self._told = threading.Event()
        self._one_end = threading.Lock()

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.world_size == 1:
            return
        self._rank, self._world_size = trainer.global_rank, trainer.world_size
        os.register_at_fork(after_in_child=functools.partial(_close_copies, self._peers))
        address = self._open(one_node=trainer.num_nodes == 1) if self._rank == 0 else ("", 0, "", "", "")
        host, port, token, folder, self.resume_command = trainer.strategy.broadcast(address)
        self.folder = Path(folder)
        if self._rank != 0:
            self._connect(host, port, token)

    @contextlib.contextmanager
    def announced_exit(self) -> Iterator[None]:
        """Around the whole fit: tells the other ranks how this one ended."""
        try:
            yield
        except BaseException as error:
            self._announce(error)
            raise
        self._announce(None)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Tell it before anything else is done; but ranks that stop together have yet to save together."""
        if not _stops_with_others(exception):
            self._announce(exception)

    def tell(self, value: Sequence[object]) -> None:
        """Give rank 0 a list of JSON values; on rank 0 nothing happens."""
        if self._rank != 0:
            self._send({"value": value})

    def _open(self, one_node: bool) -> tuple[str, int, str, str, str]:
        server = socket.create_server(("127.0.0.1" if one_node else "", 0), backlog=self._world_size)
        token = secrets.token_hex(16)  # tells the ranks of this run from other connections
        threading.Thread(target=self._accept, args=(server, token), daemon=True, name="ranks watch").start()
        host = "127.0.0.1" if one_node else os.environ["MASTER_ADDR"]
        return host, server.getsockname()[1], token, str(self.folder), self.resume_command

    def _accept(self, server: socket.socket, token: str) -> None:
        """Until all ranks are connected. One thread per connection: a connection may never send its greeting."""
        server.settimeout(CONNECT_S)
        with server, contextlib.suppress(OSError):  # a rank that cannot connect says so itself
            while True:
                peer, _ = server.accept()
                threading.Thread(target=self._greeted, args=(server, peer, token), daemon=True, name="greeting").start()

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
        for option, value in KEEP_ALIVE.items():
            if option is not None:
                peer.setsockopt(socket.IPPROTO_TCP, option, value)
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
                    peer.settimeout(ENDING_S)
        self._end_with(end)

    def _end_with(self, end: End) -> None:
        """End this process, unless it is ending by itself."""
        with self._one_end:  # and never let go of it
            if self._is_ending:
                return
            self._send({"end": end})
            if self._rank == (1 if end.rank == 0 else 0):
                who = f"rank {end.rank} of {self._world_size}"
                stop = f"All other ranks stop; the last checkpoint is whole. Go on: {self.resume_command}"
                os.write(2, f"\nerror: {who} is gone: {end.reason}. {stop}\n".encode())
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(end.exit_code)

    def _announce(self, error: BaseException | None) -> None:
        """Tell the others why this rank ends, or that it is done; only the first call counts."""
        if self._is_ending:
            return
        last = {"bye": True} if error is None or _stops_with_others(error) else {"end": self._end(error)}
        with self._one_end:
            self._is_ending = True
            self._send(last)

    def _end(self, error: BaseException) -> End:
        if self._peers and isinstance(error, RuntimeError) and self._told.wait(HEAR_S):
            time.sleep(2 * ENDING_S)  # this is what the end of another rank looks like: the thread ends the process
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        has_code = isinstance(error, DetkitError | TrainingStopped)
        return End(self._rank, reason, error.exit_code if has_code else TrainingError.exit_code)

    def _send(self, message: Mapping[str, object]) -> None:
        line = f"{json.dumps(message)}\n".encode()
        for peer in list(self._peers.values()):
            with contextlib.suppress(OSError):  # the thread that listens to it notices that it is gone
                peer.sendall(line)


def _stops_with_others(error: BaseException) -> bool:
    """Whether all ranks end by it at the same border of a step."""
    return isinstance(error, TrainingStopped) and error.at_border


def _greeting(lines: TextIO, token: str) -> int | None:
    """The rank that a connection says it is; None: it is no rank of this run."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        hello = json.loads(lines.readline(1000))
        if secrets.compare_digest(hello["token"], token):
            return int(hello["rank"])
    return None


def _close_copies(peers: Mapping[int, socket.socket]) -> None:
    """In a forked process, e.g. a data worker: it may outlive its rank, whose connections must end with it."""
    for peer in peers.values():
        os.close(peer.detach())
