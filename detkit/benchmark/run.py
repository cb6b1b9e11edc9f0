"""The measurements of a benchmark. The rows of a table are measured in turns, so that other load slows all of them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Concatenate, NamedTuple

from rich.console import Console
from rich.progress import Progress, TaskID

from detkit.benchmark.machine import machine_facts
from detkit.benchmark.measure.converted import converted_path
from detkit.benchmark.measure.worker import Worker
from detkit.benchmark.measure.worker_process import Answer, P, WorkerFailedError, WorkerProcess
from detkit.benchmark.output.report import report
from detkit.benchmark.output.rows import Row
from detkit.benchmark.selection import BenchmarkPlan, Candidate, Setting
from detkit.errors import DetkitError
from detkit.progress import progress_bar

ROUNDS = 5


class Benchmark(NamedTuple):
    """All measurements of a plan.

    Args:
        plan: the measurements.
        scratch: a temporary folder for converted files.
        start_worker: starts the process of a row, from the number of threads and the path of the log.
    """

    plan: BenchmarkPlan
    scratch: Path
    start_worker: Callable[[int, Path], WorkerProcess] = WorkerProcess

    def run(self, console: Console) -> None:
        """Measure all rows, with a progress bar, and report the results, also after an interrupt.

        Raises:
            StorageError: if a result cannot be written.
            DetkitError: if every row failed.
        """
        rows: list[Row] = []
        facts = machine_facts(self.plan.device)
        try:
            with progress_bar() as progress:
                self._measure(rows, progress, progress.add_task("", total=self._num_steps()))
        finally:
            num_rows = len(self.plan.settings) * len(self.plan.candidates)
            is_complete = len(rows) == num_rows and all(row.is_done for row in rows)
            report(self.plan, rows, facts, console, is_complete=is_complete)
        if not any(row.rounds for row in rows):
            reasons = "; ".join(dict.fromkeys(f"{row.title}: {row.reason}" for row in rows))
            raise DetkitError(f"nothing was measured: {reasons}. {self.plan.log} has more")

    def _num_steps(self) -> int:
        """Steps of the bar: for each row one to open it, one for each round, and one for AP."""
        plan = self.plan
        return sum(len(plan.candidates) * (1 + ROUNDS + plan.wants_accuracy(setting)) for setting in plan.settings)

    def _measure(self, rows: list[Row], progress: Progress, task: TaskID) -> None:
        failures: dict[tuple[int, int], dict[str, str]] = {}
        for setting in self.plan.settings:
            progress.update(task, description=str(setting))
            if setting.image_hw not in failures:
                failures[setting.image_hw] = self._convert(setting)
            of_setting = [self._row(one, setting, failures[setting.image_hw]) for one in self.plan.candidates]
            rows += of_setting
            with contextlib.ExitStack() as stack:
                running = [
                    _RunningRow(row, stack.enter_context(self.start_worker(setting.threads, self.plan.log)))
                    for row in of_setting
                ]
                for _ in self._steps(setting, running):
                    progress.advance(task)
            for row in of_setting:
                row.is_done = True

    def _convert(self, setting: Setting) -> dict[str, str]:
        """Write the files of this size that other runtimes open.

        Returns:
            The reason of the failure, for each suffix that could not be written.
        """
        plan = self.plan
        left = sorted({one.runtime.suffix for one in plan.candidates if not (one.path or one.reason)})
        if not left:
            return {}
        assert plan.stored.path, "a plan has a detector file"
        with self.start_worker(setting.threads, plan.log) as process:
            try:
                while left:  # ONNX first, because OpenVINO's file is converted from the same graph
                    process.ask(
                        Worker.convert,
                        checkpoint=plan.stored.path,
                        folder=self.scratch,
                        image_hw=setting.image_hw,
                        trusted=plan.trusted,
                        suffix=left[0],
                        batch_sizes=plan.options.batch_size,
                    )
                    del left[0]
            except WorkerFailedError as error:
                return dict.fromkeys(left, str(error))
        return {}

    def _row(self, candidate: Candidate, setting: Setting, failures: Mapping[str, str]) -> Row:
        suffix = candidate.runtime.suffix
        path = candidate.path or converted_path(self.scratch, setting.image_hw, setting.batch_size, suffix)
        reason = candidate.reason or ("" if candidate.path else failures.get(suffix, ""))
        return Row(candidate.name, candidate.title, path, setting, reason, candidate.inside)

    def _steps(self, setting: Setting, running: Sequence["_RunningRow"]) -> Iterator[None]:
        """Measure one setting, step by step; each round starts with another row."""
        plan = self.plan
        for row in running:
            row.open(plan)
            yield
        for number in range(ROUNDS):
            first = number % len(running)
            for row in [*running[first:], *running[:first]]:
                row.repeat(plan)
                yield
        if plan.wants_accuracy(setting):
            for row in running:
                row.accuracy(plan)
                yield


class _RunningRow(NamedTuple):
    """A row and its process. After a failure the process gets no further calls."""

    row: Row
    process: WorkerProcess

    def open(self, plan: BenchmarkPlan) -> None:
        setting, options = self.row.setting, plan.options
        costs = self._ask(
            Worker.open,
            runtime=self.row.name,
            path=self.row.path,
            device=str(plan.device),
            trusted=plan.trusted,
            image_hw=setting.image_hw,
            batch_size=setting.batch_size,
            files=plan.files,
            warmup=options.warmup,
            score_threshold=options.score_threshold,
        )
        self.row.costs.update(costs or {})

    def repeat(self, plan: BenchmarkPlan) -> None:
        options = plan.options
        measured = self._ask(
            Worker.repeat,
            number=-(-options.repeat // ROUNDS),
            least_s=options.least_s / ROUNDS,
            most_s=options.most_s / ROUNDS,
        )
        if measured:
            self.row.rounds.append(measured.timings)
            if measured.memory_mb is not None:
                self.row.costs["memory_mb"] = measured.memory_mb

    def accuracy(self, plan: BenchmarkPlan) -> None:
        measured = self._ask(
            Worker.accuracy,
            data_overrides=plan.data_overrides,
            split=plan.options.split,
            limit=plan.options.limit,
            batch_size=self.row.setting.batch_size,
            trusted=plan.trusted,
        )
        self.row.numbers.update(measured.numbers if measured else {})

    def _ask(
        self, method: Callable[Concatenate[Worker, P], Answer], *args: P.args, **kwargs: P.kwargs
    ) -> Answer | None:
        if self.row.reason:
            return None
        try:
            return self.process.ask(method, *args, **kwargs)
        except WorkerFailedError as error:
            self.row.reason = str(error)
            return None
