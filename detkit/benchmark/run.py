"""The measurements: a process for every row, those of a setting in turns, so that a busy minute is slow for all."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress, TaskID

from detkit.benchmark.machine import describe
from detkit.benchmark.measure.converted import converted
from detkit.benchmark.measure.stopwatch import Look
from detkit.benchmark.measure.worker_process import FailedError, Remote
from detkit.benchmark.output.report import report
from detkit.benchmark.output.rows import Row
from detkit.benchmark.selection import Candidate, Plan, Setting
from detkit.errors import DetkitError
from detkit.progress import progress_bar

ROUNDS = 5


class Benchmark(NamedTuple):
    """All measurements of a plan.

    Args:
        plan: of them.
        scratch: a folder for files that are needed while they run.
    """

    plan: Plan
    scratch: Path

    def run(self, console: Console) -> None:
        """Measure everything, with a bar while that goes on, and tell what was measured, also if it is stopped.

        Raises:
            StorageError: if a result cannot be written.
            DetkitError: if every row failed.
        """
        rows: list[Row] = []
        facts = describe(self.plan.device)
        try:
            with progress_bar() as progress:
                self._measure(rows, progress, progress.add_task("", total=self._steps()))
        finally:
            report(
                self.plan, rows, facts, console, is_whole=len(rows) == self._rows() and all(row.is_done for row in rows)
            )
        if not any(row.rounds for row in rows):
            reasons = "; ".join(dict.fromkeys(f"{row.title}: {row.reason}" for row in rows))
            raise DetkitError(f"nothing was measured: {reasons}. {self.plan.log} has more")

    def _rows(self) -> int:
        return len(self.plan.settings) * len(self.plan.candidates)

    def _steps(self) -> int:
        """Of the bar: opened, each round, AP."""
        plan = self.plan
        return sum(len(plan.candidates) * (1 + ROUNDS + plan.wants_accuracy(setting)) for setting in plan.settings)

    def _measure(self, rows: list[Row], progress: Progress, task: TaskID) -> None:
        conversions: dict[tuple[int, int], dict[str, str]] = {}
        for setting in self.plan.settings:
            progress.update(task, description=str(setting))
            if setting.image_hw not in conversions:
                conversions[setting.image_hw] = self._convert(setting)
            of_setting = [self._row(one, setting, conversions[setting.image_hw]) for one in self.plan.candidates]
            rows += of_setting
            with contextlib.ExitStack() as stack:
                asked = [_Asked(row, stack.enter_context(Remote(setting.threads, self.plan.log))) for row in of_setting]
                for _ in self._steps_of(setting, asked):
                    progress.advance(task)
            for row in of_setting:
                row.is_done = True

    def _convert(self, setting: Setting) -> dict[str, str]:
        """Make the files of this size that other runtimes open; by their suffix, why that failed."""
        plan = self.plan
        about = {"checkpoint": str(plan.stored.path), "folder": str(self.scratch), "trusted": plan.trusted}
        about |= {"image_hw": setting.image_hw, "batch_sizes": plan.options.batch_size}
        left = sorted({one.runtime.suffix for one in plan.candidates if not (one.path or one.reason)})
        if not left:
            return {}
        with Remote(setting.threads, self.plan.log) as remote:
            try:
                while left:  # ONNX first: OpenVINO's is made of the same graph
                    remote.ask("convert", **about, suffix=left[0])
                    del left[0]
            except FailedError as error:
                return dict.fromkeys(left, str(error))
        return {}

    def _row(self, candidate: Candidate, setting: Setting, failed: Mapping[str, str]) -> Row:
        made = converted(self.scratch, setting.image_hw, setting.batch_size, candidate.runtime.suffix)
        reason = candidate.reason or ("" if candidate.path else failed.get(candidate.runtime.suffix, ""))
        return Row(candidate.name, candidate.title, candidate.path or made, setting, reason, candidate.inside)

    def _steps_of(self, setting: Setting, asked: Sequence["_Asked"]) -> Iterator[None]:
        """One setting, step by step."""
        plan, options = self.plan, self.plan.options
        for one in asked:
            one.open(plan)
            yield
        share = {"number": -(-options.repeat // ROUNDS), "least_s": options.least_s / ROUNDS}
        for number in range(ROUNDS):
            for one in [*asked[number % len(asked) :], *asked[: number % len(asked)]]:
                one.repeat(**share, most_s=options.most_s / ROUNDS)
                yield
        if plan.wants_accuracy(setting):
            for one in asked:
                one.accuracy(plan)
                yield


class _Asked(NamedTuple):
    """A row and the process that measures it; nothing more is asked after it failed."""

    row: Row
    remote: Remote

    def open(self, plan: Plan) -> None:
        setting, options = self.row.setting, plan.options
        answer = self._ask(
            "open",
            runtime=self.row.name,
            path=str(self.row.path),
            device=str(plan.device),
            trusted=plan.trusted,
            image_hw=setting.image_hw,
            batch_size=setting.batch_size,
            files=list(map(str, plan.files)),
            warmup=options.warmup,
            score_threshold=options.score_threshold,
        )
        self.row.costs.update(answer)

    def repeat(self, **limits: Any) -> None:
        answer = self._ask("repeat", **limits)
        if answer:
            self.row.rounds.append([Look(*look) for look in answer["looks"]])
            self.row.costs |= {"memory_mb": memory} if (memory := answer["memory_mb"]) is not None else {}

    def accuracy(self, plan: Plan) -> None:
        options = plan.options
        answer = self._ask(
            "accuracy",
            data=plan.data,
            split=options.split,
            limit=options.limit,
            batch_size=self.row.setting.batch_size,
            trusted=plan.trusted,
        )
        self.row.numbers.update(answer.get("numbers", {}))

    def _ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        if self.row.reason:
            return {}
        try:
            return self.remote.ask(name, **arguments)
        except FailedError as error:
            self.row.reason = str(error)
            return {}
