"""Detect that a rank has ended, and end all other ranks, so that none of them waits for it.

# Note [how the end of a rank is detected]
Every rank has a TCP connection to rank 0. The kernel closes it when the process ends for any reason, and reports a
machine that no longer answers. So a slow rank is never mistaken for a dead one, with any library of collectives. The
main thread may wait in a collective without limit (NCCL: half an hour), so a separate thread listens to the
connection, prints which rank has ended, and ends the process.
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
NOTICE_S = 3  # the time in which the end of another rank is reported to this one
EXIT_S = 30  # the time that a failing rank has to send its error and to exit
# A lost machine is detected after 30 s. (macOS has no TCP_KEEPIDLE.)
KEEP_ALIVE = {vars(socket).get(name): n for name, n in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))}
KILLED = "it was killed, or its machine was lost"
LOG = logging.getLogger(__name__)


class RankExit(NamedTuple):
    """The reason why a rank ended, and the exit code of the run."""

    rank: int
    reason: str
    exit_code: int = TrainingError.exit_code


class RanksWatch(L.Callback):
    """End this rank when another one has ended, and inform the other ranks when this one fails.

    Args:
        folder: folder of the run.
        resume_command: the command that resumes the run.

    Attributes:
        folder: after ``setup`` the folder of rank 0, on all ranks.
        received_values: on rank 0, the values that other ranks sent with ``send_to_rank_0``.
    """

    def __init__(self, folder: Path, resume_command: str = "resume=true") -> None:
        self.folder = folder
        self.resume_command = resume_command
        self.received_values: queue.SimpleQueue[Sequence[object]] = queue.SimpleQueue()
        self._rank, self._world_size = 0, 1
        self._peers: dict[int, socket.socket] = {}  # by rank: on rank 0 all others, on other ranks rank 0
        self._is_ending = False  # the main thread ends this process; the listening threads must not
        self._other_rank_ended = threading.Event()
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
        """Context of the fit: informs the other ranks how this one ended."""
        try:
            yield
        except BaseException as error:
            self._announce(error)
            raise
        self._announce(None)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Inform the other ranks at once, except where all ranks stop together, because they save together first."""
        if not _stops_with_others(exception):
            self._announce(exception)

    def send_to_rank_0(self, value: Sequence[object]) -> None:
        """Send a list of JSON values to rank 0; does nothing on rank 0."""
        if self._rank != 0:
            self._send({"value": value})

    def _open(self, one_node: bool) -> tuple[str, int, str, str, str]:
        server = socket.create_server(("127.0.0.1" if one_node else "", 0), backlog=self._world_size)
        token = secrets.token_hex(16)  # distinguishes the ranks of this run from other connections
        threading.Thread(target=self._accept, args=(server, token), daemon=True, name="ranks watch").start()
        host = "127.0.0.1" if one_node else os.environ["MASTER_ADDR"]
        return host, server.getsockname()[1], token, str(self.folder), self.resume_command

    def _accept(self, server: socket.socket, token: str) -> None:
        """Accept connections until all ranks are connected.

        Each connection has its own thread, because a connection may never send its greeting.
        """
        server.settimeout(CONNECT_S)
        with server, contextlib.suppress(OSError):  # a rank that cannot connect logs a warning itself
            while True:
                peer, _ = server.accept()
                threading.Thread(target=self._greeted, args=(server, peer, token), daemon=True, name="greeting").start()

    def _greeted(self, server: socket.socket, peer: socket.socket, token: str) -> None:
        peer.settimeout(CONNECT_S)
        lines = peer.makefile()  # the same object for all lines, because it buffers
        rank = _greeting(lines, token)
        if rank is None:
            peer.close()
            return
        self._begin(rank, peer, lines)
        if len(self._peers) == self._world_size - 1:
            with contextlib.suppress(OSError):  # the server may be closed already
                server.shutdown(socket.SHUT_RDWR)  # ends the waiting ``accept``

    def _connect(self, host: str, port: int, token: str) -> None:
        try:
            peer = socket.create_connection((host, port), timeout=CONNECT_S)
        except OSError as error:
            LOG.warning(
                "rank %d cannot connect to rank 0 at %s:%d (%s): if another rank fails, this one ends only by the "
                "timeout of its collectives; open the ports between the machines",
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
        """Read messages until the other rank has finished or the connection is closed."""
        end = RankExit(rank, KILLED)
        with contextlib.suppress(OSError, ValueError):  # ValueError: the rank ended within a line
            for line in lines:
                message = json.loads(line)
                if "bye" in message:
                    return
                if "value" in message:
                    self.received_values.put(message["value"])
                if "end" in message:
                    end = RankExit(*message["end"])
                    self._other_rank_ended.set()
                    if end.rank != rank:
                        break  # rank 0 forwarded it, and ends as well
                    peer.settimeout(EXIT_S)
        self._end_with(end)

    def _end_with(self, end: RankExit) -> None:
        """End this process, unless the main thread is ending it."""
        with self._one_end:  # never released, because the process ends here
            if self._is_ending:
                return
            self._send({"end": end})
            if self._rank == (1 if end.rank == 0 else 0):
                rank = f"rank {end.rank} of {self._world_size}"
                remedy = f"All other ranks stop; the last checkpoint is complete. Resume: {self.resume_command}"
                os.write(2, f"\nerror: {rank} is gone: {end.reason}. {remedy}\n".encode())
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(end.exit_code)

    def _announce(self, error: BaseException | None) -> None:
        """Inform the other ranks that this one has finished, or why it ends. Only the first call has an effect."""
        if self._is_ending:
            return
        last = {"bye": True} if error is None or _stops_with_others(error) else {"end": self._exit_of(error)}
        with self._one_end:
            self._is_ending = True
            self._send(last)

    def _exit_of(self, error: BaseException) -> RankExit:
        if self._peers and isinstance(error, RuntimeError) and self._other_rank_ended.wait(NOTICE_S):
            time.sleep(
                2 * EXIT_S
            )  # the error follows from the end of another rank: the listening thread ends the process
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        has_code = isinstance(error, DetkitError | TrainingStopped)
        return RankExit(self._rank, reason, error.exit_code if has_code else TrainingError.exit_code)

    def _send(self, message: Mapping[str, object]) -> None:
        line = f"{json.dumps(message)}\n".encode()
        for peer in list(self._peers.values()):
            with contextlib.suppress(OSError):  # the listening thread detects the closed connection
                peer.sendall(line)


def _stops_with_others(error: BaseException) -> bool:
    """Whether all ranks stop together after the same step."""
    return isinstance(error, TrainingStopped) and error.at_step_end


def _greeting(lines: TextIO, token: str) -> int | None:
    """The rank that a connection belongs to; None: it is no rank of this run."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        hello = json.loads(lines.readline(1000))
        if secrets.compare_digest(hello["token"], token):
            return int(hello["rank"])
    return None


def _close_copies(peers: Mapping[int, socket.socket]) -> None:
    """Close the connections in a forked process, e.g. a data worker, which may live longer than its rank."""
    for peer in peers.values():
        os.close(peer.detach())
