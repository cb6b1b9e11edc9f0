"""Ranks without a training: what each hears of the end of another, and how it ends itself."""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from detkit.errors import DataError, DetkitError
from detkit.training.callbacks.unreadable_limit import UnreadableReport
from detkit.training.distributed import ranks_watch
from detkit.training.distributed.ranks_watch import RanksWatch
from detkit.training.run.interrupt import TrainingStopped
from tests.reliability.forked import Ended, Forked

NOT_ENDED = 99
GO_ON = "detkit train resume=/runs/1"


class Fake:
    """What the callbacks ask of a trainer and its strategy; ranks meet in a file."""

    num_nodes = 1
    global_step = 7

    def __init__(self, rank: int, world_size: int, folder: Path, datamodule: Any = None) -> None:
        self.global_rank, self.world_size, self.is_global_zero = rank, world_size, rank == 0
        self.datamodule = datamodule
        self.meeting = folder / "meeting"
        self.strategy = self

    def broadcast(self, value: Any) -> Any:
        if self.global_rank == 0:
            self.meeting.with_suffix(".tmp").write_text(json.dumps(value))
            self.meeting.with_suffix(".tmp").rename(self.meeting)
        while not self.meeting.exists():
            time.sleep(0.01)
        return json.loads(self.meeting.read_text())


def until(happens: Callable[[], bool]) -> None:
    """Wait for it, but not for ever."""
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """As scripts end by errors."""
    try:
        yield
    except DetkitError as error:
        raise SystemExit(error.exit_code) from error


def run(folder: Path, *programs: Callable[[RanksWatch, Any], None]) -> list[Ended]:
    """Each program as a rank; what is left of it waits for its end, as in a collective."""

    def rank_of(number: int) -> Callable[[], None]:
        def program() -> None:
            watch, trainer = RanksWatch(folder / str(number), GO_ON), Fake(number, len(programs), folder)
            watch.setup(trainer, None, "fit")  # type: ignore[arg-type]
            assert watch.folder == folder / "0"
            until(lambda: len(watch._peers) == (len(programs) - 1 if number == 0 else 1))
            (folder / f"{number}.connected").touch()
            until(lambda: len(list(folder.glob("*.connected"))) == len(programs))
            with exit_codes(), watch.announced_exit():
                try:
                    programs[number](watch, trainer)
                except BaseException as error:
                    watch.on_exception(trainer, None, error)  # type: ignore[arg-type]
                    raise

        return program

    ranks = [Forked(rank_of(number), folder / f"{number}.txt") for number in range(len(programs))]
    return [rank.wait() for rank in ranks]


Program = Callable[[RanksWatch, Any], None]


def stuck(_watch: RanksWatch, _trainer: Any) -> None:
    """Waits for the watch to end it; the code tells if nobody did."""
    time.sleep(60)
    os._exit(NOT_ENDED)


def killed(_watch: RanksWatch, _trainer: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def done(_watch: RanksWatch, _trainer: Any) -> None:
    """Nothing happens."""


def failing(error: BaseException) -> Program:
    def program(_watch: RanksWatch, _trainer: Any) -> None:
        raise error

    return program


@pytest.mark.parametrize(("gone", "speaker"), [(0, 1), (1, 0), (2, 0)])
def test_a_killed_rank_ends_all_others(tmp_path: Path, gone: int, speaker: int) -> None:
    programs: list[Program] = [stuck, stuck, stuck]
    programs[gone] = killed
    ended = run(tmp_path, *programs)
    assert [end.code for end in ended] == [137 if rank == gone else 70 for rank in range(3)]
    said = [end.said.strip() for end in ended]
    assert said.pop(speaker) == (
        f"error: rank {gone} of 3 is gone: it was killed, or its machine was lost. All other ranks stop; "
        f"the last checkpoint is complete. Resume: {GO_ON}"
    )
    assert said == ["", ""]


@pytest.mark.parametrize("failed", [0, 1])
def test_the_error_of_one_rank_is_the_code_of_all(tmp_path: Path, failed: int) -> None:
    programs: list[Program] = [stuck, stuck, stuck]
    programs[failed] = failing(DataError("image 7: /data/7.jpg: cannot be read"))
    ended = run(tmp_path, *programs)
    assert [end.code for end in ended] == [65, 65, 65]
    named = f"rank {failed} of 3 is gone: DataError: image 7: /data/7.jpg: cannot be read. All other ranks stop"
    assert [named in end.said for end in ended] == [rank == (1 if failed == 0 else 0) for rank in range(3)]


def test_what_the_death_of_another_looks_like_is_not_reported_as_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gloo raises when the other end of a connection closes."""
    monkeypatch.setattr(ranks_watch, "NOTICE_S", 30)
    ended = run(tmp_path, failing(RuntimeError("Connection closed by peer")), killed)
    assert ended[0].code == 70
    assert "rank 1 of 2 is gone: it was killed" in ended[0].said and "Traceback" not in ended[0].said


def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks_watch, "NOTICE_S", 0.3)
    ended = run(tmp_path, stuck, failing(RuntimeError("CUDA out of memory")))
    assert [end.code for end in ended] == [70, 1]
    assert "rank 1 of 2 is gone: RuntimeError: CUDA out of memory" in ended[0].said
    assert "Traceback" in ended[1].said and "RuntimeError: CUDA out of memory" in ended[1].said


def test_all_ranks_may_fail_alike(tmp_path: Path) -> None:
    def program(watch: RanksWatch, _trainer: Any) -> None:
        on_exception = watch.on_exception

        def both(trainer: Any, pl_module: Any, exception: BaseException) -> None:
            on_exception(trainer, pl_module, exception)
            (tmp_path / f"{trainer.global_rank}.left").touch()
            until((tmp_path / f"{1 - trainer.global_rank}.left").exists)

        watch.on_exception = both
        raise ZeroDivisionError("a bug")

    ended = run(tmp_path, program, program)
    assert [end.code for end in ended] == [1, 1]
    assert all("ZeroDivisionError: a bug" in end.said and "is gone" not in end.said for end in ended)


@pytest.mark.parametrize("end", [done, failing(TrainingStopped(at_step_end=True))])
def test_ranks_that_end_together_say_nothing(tmp_path: Path, end: Program) -> None:
    def later(watch: RanksWatch, trainer: Any) -> None:
        time.sleep(0.3)
        end(watch, trainer)

    ended = run(tmp_path, end, later, end)
    assert len({rank.code for rank in ended}) == 1 and not any("gone" in rank.said for rank in ended)


@pytest.mark.parametrize("gone", [0, 1])
def test_a_rank_that_is_killed_in_the_last_save(tmp_path: Path, gone: int) -> None:
    """Ranks that stop at the same step save together after it, and may wait for each other."""

    def program(watch: RanksWatch, trainer: Any) -> None:
        watch.on_exception(trainer, None, TrainingStopped(at_step_end=True))  # type: ignore[arg-type]
        (killed if trainer.global_rank == gone else stuck)(watch, trainer)

    ended = run(tmp_path, program, program)
    assert [end.code for end in ended] == [137 if rank == gone else 70 for rank in range(2)]
    assert f"rank {gone} of 2 is gone: it was killed" in ended[1 - gone].said


def test_a_second_signal_in_the_last_save_is_told(tmp_path: Path) -> None:
    def program(watch: RanksWatch, trainer: Any) -> None:
        watch.on_exception(trainer, None, TrainingStopped(at_step_end=True))  # type: ignore[arg-type]
        if trainer.global_rank == 1:
            stuck(watch, trainer)
        raise TrainingStopped(at_step_end=False, number=signal.SIGTERM)

    watched = run(tmp_path, program, program)
    assert "rank 0 of 2 is gone: TrainingStopped" in watched[1].said and watched[1].code == 143


def test_a_forked_worker_does_not_hide_the_death_of_its_rank(tmp_path: Path) -> None:
    """It holds copies of all that was open when it was made."""

    def with_worker(_watch: RanksWatch, _trainer: Any) -> None:
        worker = os.fork()
        if not worker:
            time.sleep(120)
            os._exit(0)
        (tmp_path / "worker").write_text(str(worker))
        killed(_watch, _trainer)

    ended = run(tmp_path, stuck, with_worker)
    assert ended[0].code == 70
    os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)  # raises if it is not there any more


def test_strangers_are_no_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does anybody wait for them: two say nothing, or not enough, and stay; the others are sent away."""
    monkeypatch.setattr(ranks_watch, "CONNECT_S", 300)

    def rank_0() -> None:
        watch, trainer = RanksWatch(tmp_path, GO_ON), Fake(0, 3, tmp_path)  # the third never comes
        watch.setup(trainer, None, "fit")  # type: ignore[arg-type]
        with watch.announced_exit():
            assert watch.received_values.get(timeout=30) == "hello"
            assert list(watch._peers) == [1]
        until((tmp_path / "left").exists)

    def rank_1() -> None:
        watch, trainer = RanksWatch(tmp_path, GO_ON), Fake(1, 3, tmp_path)
        host, port, *_ = trainer.broadcast(None)
        with contextlib.ExitStack() as strangers:
            for greeting in (b"", b'{"tok', b"GET / HTTP/1.0\n", b'{"token": "guessed", "rank": 2}\n', b"\xff\n"):
                stranger = strangers.enter_context(socket.create_connection((host, port), timeout=30))
                stranger.sendall(greeting)
                assert not greeting.endswith(b"\n") or stranger.recv(1) == b""
            watch.setup(trainer, None, "fit")  # type: ignore[arg-type]
            with watch.announced_exit():
                watch.send_to_rank_0("hello")
        (tmp_path / "left").touch()

    ended = [rank.wait() for rank in [Forked(rank_0, tmp_path / "0.txt"), Forked(rank_1, tmp_path / "1.txt")]]
    assert [end.code for end in ended] == [0, 0], ended


def test_what_a_rank_says_right_after_its_greeting_is_heard(tmp_path: Path) -> None:
    """Both may arrive at once."""

    def rank_0() -> None:
        watch, trainer = RanksWatch(tmp_path, GO_ON), Fake(0, 2, tmp_path)
        watch.setup(trainer, None, "fit")  # type: ignore[arg-type]
        host, port, token, *_ = json.loads(trainer.meeting.read_text())
        with socket.create_connection((host, port)) as rank_1:
            said = ({"token": token, "rank": 1}, {"value": "image 5"}, {"end": [1, "a reason", 65]})
            rank_1.sendall("".join(f"{json.dumps(line)}\n" for line in said).encode())
            assert watch.received_values.get(timeout=5) == "image 5"
        stuck(watch, trainer)

    end = Forked(rank_0, tmp_path / "0.txt").wait()
    assert end.code == 65 and "rank 1 of 2 is gone: a reason." in end.said


def test_rank_0_out_of_reach(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "meeting").write_text(json.dumps(["127.0.0.1", port, "token", "/runs/1", GO_ON]))
    watch, trainer = RanksWatch(tmp_path), Fake(1, 2, tmp_path)
    watch.setup(trainer, None, "fit")  # type: ignore[arg-type]
    [message] = caplog.messages
    assert message.startswith(f"rank 1 cannot connect to rank 0 at 127.0.0.1:{port} (")
    watch.on_exception(trainer, None, RuntimeError("x"))  # type: ignore[arg-type]


class Unreadable:
    """As the data module counts them."""

    class Image(tuple[int, str, str]):
        def _asdict(self) -> dict[str, Any]:
            return dict(zip(("image_id", "file", "reason"), self, strict=True))

    def __init__(self, limit: int) -> None:
        self.images: dict[str, Any] = {}
        self.limit = limit
        self.unreadable = self

    def add(self, images: list[Any]) -> None:
        self.images |= {image[1]: Unreadable.Image(image) for image in images}
        if len(self.images) > self.limit:
            raise DataError(f"{len(self.images)} images cannot be read")


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_train_end", None])
def test_what_a_rank_says_of_its_last_batch_is_heard(tmp_path: Path, hook: str | None) -> None:
    """Rank 0 may be done with its own by then. What ends a run is not hidden by another error."""
    trainer: Any = Fake(0, 2, tmp_path)
    watch, events = RanksWatch(tmp_path), list[Any]()
    report = UnreadableReport(Unreadable(limit=1), watch, lambda *event: events.append(event))
    report.on_train_batch_end(trainer, None, None, None, 5)  # type: ignore[arg-type]
    for row in (5, 6):
        watch.received_values.put([row, f"{row}.jpg", "gone"])
    if hook:
        with pytest.raises(DataError, match="2 images cannot be read"):
            getattr(report, hook)(trainer, None)
    report.on_exception(trainer, None, ValueError("x"))  # type: ignore[arg-type]
    assert [details["file"] for _, _, details in events] == ["5.jpg", "6.jpg"]


def test_images_of_all_ranks_are_counted_together(tmp_path: Path) -> None:
    """Two on each rank, one of them on both: three in all, each written down once; a fourth is too many."""

    def program(watch: RanksWatch, trainer: Any) -> None:
        own = Unreadable(limit=3)
        events: list[Any] = []
        report = UnreadableReport(own, watch, lambda *event: events.append(event))
        rank = trainer.global_rank
        own.add([(5, "5.jpg", "cut"), (rank, f"{rank}.jpg", "gone")])
        for batch in range(1000):
            report.on_train_batch_end(trainer, None, None, None, batch)  # type: ignore[arg-type]
            if rank == 1 and (tmp_path / "three").exists():
                own.add([(9, "9.jpg", "gone")])
            if rank == 0 and len(events) == 3:
                (tmp_path / "three").write_text(json.dumps(events))
            time.sleep(0.01)

    ended = run(tmp_path, program, program)
    assert [end.code for end in ended] == [65, 65], [end.said for end in ended]
    assert "rank 0 of 2 is gone: DataError: 4 images cannot be read. " in ended[1].said
    assert json.loads((tmp_path / "three").read_text()) == [
        ["image_replaced", 7, {"image_id": 5, "file": "5.jpg", "reason": "cut"}],
        ["image_replaced", 7, {"image_id": 0, "file": "0.jpg", "reason": "gone"}],
        ["image_replaced", 7, {"image_id": 1, "file": "1.jpg", "reason": "gone"}],
    ]
