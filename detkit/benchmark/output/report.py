"""The report of a benchmark: on the terminal, in Markdown, in JSON and as a picture."""

import itertools
import json
from collections.abc import Sequence

from rich.console import Console

from detkit.benchmark.machine import is_installed
from detkit.benchmark.output.rows import BASELINE, ResultTable, Row, phase_table, speed_table
from detkit.benchmark.selection import BenchmarkPlan
from detkit.checkpoint import storage_errors

MOST_SPREAD = 1.3  # slowest round over fastest; beyond it other programs used the machine
LEAST_CORES = 0.9  # of a row with one thread; below it other programs used the machine
FILES = {"json": "benchmark.json", "markdown": "benchmark.md", "picture": "benchmark.png"}


def report(
    plan: BenchmarkPlan, rows: Sequence[Row], facts: dict[str, str], console: Console, *, is_complete: bool
) -> None:
    """Print the tables and write the files.

    Args:
        plan: of the measurements.
        rows: the measured ones.
        facts: about the machine.
        console: for the tables.
        is_complete: whether all measurements were made.

    Raises:
        StorageError: if a file cannot be written.
    """
    tables, notes = _tables(rows), [*_notes(plan, rows, is_complete=is_complete), *_no_picture(rows)]
    facts = {**facts, **_how(plan, rows)}
    head = [f"{name}: {text}" for name, text in facts.items()]
    console.print(*head, "", sep="\n", soft_wrap=True, highlight=False, markup=False)
    for table in tables:
        console.print(table.to_rich(), "")
    console.print(*notes, f"results: {plan.folder}", sep="\n", soft_wrap=True, highlight=False, markup=False)
    markdown_tables = [table.to_markdown() for table in tables]
    listed = ("\n".join(f"- {line}" for line in lines) for lines in (head, notes) if lines)
    title, first = "# Benchmark", next(listed)
    markdown = "\n\n".join([title, first, *markdown_tables, *listed]) + "\n"
    document = {"facts": facts, "notes": notes, "rows": [row.to_json() for row in rows]}
    with storage_errors(plan.folder):
        (plan.folder / FILES["markdown"]).write_text(markdown)
        (plan.folder / FILES["json"]).write_text(json.dumps(document, indent=1))
        if not _no_picture(rows):
            from detkit.benchmark.output.picture import draw

            draw(rows, plan.folder / FILES["picture"])


def _no_picture(rows: Sequence[Row]) -> list[str]:
    """Why there is no picture; empty if there is one."""
    if not any(row.rounds for row in rows):
        return ["no picture: nothing was measured"]
    if not is_installed("matplotlib"):
        return ['no picture: matplotlib is not installed: in the clone, pip install -e ".[plot]"']
    return []


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    of_settings = [(key, list(of)) for key, of in itertools.groupby(rows, key=lambda row: row.setting)]
    speeds = [speed_table(setting, of) for setting, of in of_settings]
    phases = [phase_table(setting, of) for setting, of in of_settings if setting.batch_size == 1]
    return [*speeds, *(table for table in phases if table.lines)]


def _how(plan: BenchmarkPlan, rows: Sequence[Row]) -> dict[str, str]:
    """Explanations of the columns of the tables."""
    options = plan.options
    imports = [row.costs["imports_mb"] for row in rows if "imports_mb" in row.costs]
    alone = f", of which Python and its imports alone {max(imports):.0f}" if imports else ""
    memory = (
        "the most that torch held on the GPU"
        if plan.device.type == "cuda"
        else f"the most that the process held{alone}"
    )
    return {
        "detector": f"{plan.stored.path}, {len(plan.stored.class_names)} classes",
        "timed on": _images(plan),
        "latency": (
            "of a batch: network and boxes, without reading and resizing; median, and 95th percentile; images/s by "
            "the median"
        ),
        "x eager": "how many times as fast as torch eager",
        "cores": "busy while the network runs, on average",
        "memory": f"{memory}; MB are 10^6 bytes",
        "repetitions": (
            f"each row in its own process; {options.warmup} batches to warm up, then at least {options.repeat} and "
            f"{options.least_s:g} s, at most {options.most_s:g} s, in 5 rounds over the rows of a table, each after "
            "one batch that is not counted, and to the end of the last batch, so that slow models take longer; boxes "
            f"from score {options.score_threshold:g}, but where a file chooses them inside; AP from that of the recipe"
        ),
        "phases": f"of batch 1; {FILES['json']} has those of all",
        "exported": (
            "ONNX and OpenVINO files are made for each size, float32, any batch, boxes decoded inside, suppression "
            "outside; those of OpenVINO for batch 1 take one image alone"
        ),
    }


def _images(plan: BenchmarkPlan) -> str:
    number, options = len(plan.files), plan.options
    if not plan.data_overrides:
        return f"{number} drawn pictures of 1280 x 960 pixels, batch after batch; no data, no AP"
    some = f"the first {options.limit} images" if options.limit else "all images"
    return f"{number} images, evenly over the {options.split} split, batch after batch; AP on {some} of it"


def _notes(plan: BenchmarkPlan, rows: Sequence[Row], *, is_complete: bool) -> list[str]:
    spreads = [summary.spread for row in rows if (summary := row.summary())]
    notes = [] if is_complete else ["stopped before the end: some rows are missing, or have fewer rounds"]
    if spreads and max(spreads) > MOST_SPREAD:
        notes.append(
            f"other programs used the machine: the slowest round of a row took up to {max(spreads):.1f} times as long "
            "as its fastest; measure again for reliable figures"
        )
    alone = [summary.cores for row in rows if row.setting.threads == 1 and (summary := row.summary())]
    if plan.device.type == "cpu" and alone and min(alone) < LEAST_CORES:
        notes.append(
            f"other programs used the machine: one thread had a core for {100 * min(alone):.0f} % of its time only; "
            "measure again for reliable figures"
        )
    if rows and not any(row.name == BASELINE for row in rows):
        notes.append("x eager: torch eager was not among the runtimes")
    if plan.data_overrides and plan.trained_hw not in plan.sizes_of_accuracy:
        height, width = plan.trained_hw
        notes.append(f"AP is that of the sizes in the tables; the detector was trained at {width} x {height} pixels")
    if any(row.reason for row in rows):
        notes.append(f"errors at length: {plan.log}")
    return [*notes, *plan.left_out]
