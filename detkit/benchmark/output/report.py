"""What was measured, on what and how: on the terminal, as Markdown, JSON and a picture."""

import itertools
import json
from collections.abc import Sequence

from rich.console import Console

from detkit.benchmark.machine import is_installed
from detkit.benchmark.output.rows import BASE, Row, Sheet, phase_sheet, speed_sheet
from detkit.benchmark.selection import Plan
from detkit.checkpoint import storing

UNQUIET = 1.3  # slowest round over fastest: beyond it the machine did other work too
LEAST_CORES = 0.9  # that one thread has, on a machine that is its own
FILES = {"json": "benchmark.json", "markdown": "benchmark.md", "picture": "benchmark.png"}


def report(plan: Plan, rows: Sequence[Row], facts: dict[str, str], console: Console, *, is_whole: bool) -> None:
    """Show the tables and write the files.

    Args:
        plan: of the measurements.
        rows: as far as they came.
        facts: about the machine.
        console: for the tables.
        is_whole: whether that is all of them.

    Raises:
        StorageError: if a file cannot be written.
    """
    sheets, notes = _sheets(rows), [*_notes(plan, rows, is_whole=is_whole), *_no_picture(rows)]
    facts = {**facts, **_how(plan, rows)}
    head = [f"{name}: {text}" for name, text in facts.items()]
    console.print(*head, "", sep="\n", soft_wrap=True, highlight=False, markup=False)
    for sheet in sheets:
        console.print(sheet.to_rich(), "")
    console.print(*notes, f"kept: {plan.folder}", sep="\n", soft_wrap=True, highlight=False, markup=False)
    tables = [sheet.to_markdown() for sheet in sheets]
    listed = ("\n".join(f"- {line}" for line in lines) for lines in (head, notes) if lines)
    title, first = "# Benchmark", next(listed)
    markdown = "\n\n".join([title, first, *tables, *listed]) + "\n"
    document = {"facts": facts, "notes": notes, "rows": [row.to_json() for row in rows]}
    with storing(plan.folder):
        (plan.folder / FILES["markdown"]).write_text(markdown)
        (plan.folder / FILES["json"]).write_text(json.dumps(document, indent=1))
        if not _no_picture(rows):
            from detkit.benchmark.output.picture import draw

            draw(rows, plan.folder / FILES["picture"])


def _no_picture(rows: Sequence[Row]) -> list[str]:
    """Why there is none, if so."""
    if not any(row.rounds for row in rows):
        return ["no picture: nothing was measured"]
    if not is_installed("matplotlib"):
        return ['no picture: matplotlib is not installed: in the clone, pip install -e ".[plot]"']
    return []


def _sheets(rows: Sequence[Row]) -> list[Sheet]:
    of_settings = [(key, list(of)) for key, of in itertools.groupby(rows, key=lambda row: row.setting)]
    speeds = [speed_sheet(setting, of) for setting, of in of_settings]
    phases = [phase_sheet(setting, of) for setting, of in of_settings if setting.batch_size == 1]
    return [*speeds, *(sheet for sheet in phases if sheet.lines)]


def _how(plan: Plan, rows: Sequence[Row]) -> dict[str, str]:
    """What the words of the tables mean."""
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
            f"each row in a process of its own; {options.warmup} looks to warm up, then at least {options.repeat} and "
            f"{options.least_s:g} s, at most {options.most_s:g} s, in 5 rounds over all rows of a table, each after "
            "one look more that is not counted, and to the end of the last one, so that slow models take longer; boxes "
            f"from score {options.score_threshold:g}, but where a file chooses them inside; AP from that of the recipe"
        ),
        "phases": f"of batch 1; {FILES['json']} has those of all",
        "exported": (
            "ONNX and OpenVINO files are made for each size, float32, any batch, boxes decoded inside, suppression "
            "outside; those of OpenVINO for batch 1 take one image alone"
        ),
    }


def _images(plan: Plan) -> str:
    number, options = len(plan.files), plan.options
    if not plan.data:
        return f"{number} drawn pictures of 1280 x 960 pixels, batch after batch; no data, no AP"
    some = f"the first {options.limit} images" if options.limit else "all images"
    return f"{number} images, evenly over the {options.split} split, batch after batch; AP on {some} of it"


def _notes(plan: Plan, rows: Sequence[Row], *, is_whole: bool) -> list[str]:
    spreads = [summary.spread for row in rows if (summary := row.summary())]
    notes = [] if is_whole else ["stopped before the end: some rows are missing, or have fewer rounds"]
    if spreads and max(spreads) > UNQUIET:
        notes.append(
            f"the machine was not quiet: the slowest round of a row took up to {max(spreads):.1f} times as long as its "
            "fastest; measure again for figures to rely on"
        )
    alone = [summary.cores for row in rows if row.setting.threads == 1 and (summary := row.summary())]
    if plan.device.type == "cpu" and alone and min(alone) < LEAST_CORES:
        notes.append(
            f"one thread had a core for {100 * min(alone):.0f} % of its time alone: other programs took the rest; "
            "measure again for figures to rely on"
        )
    if rows and not any(row.name == BASE for row in rows):
        notes.append("x eager: torch eager was not among the runtimes")
    if plan.data and plan.trained_hw not in plan.sizes_of_accuracy:
        height, width = plan.trained_hw
        notes.append(f"AP is that of the sizes in the tables; the detector was trained at {width} x {height} pixels")
    if any(row.reason for row in rows):
        notes.append(f"errors at length: {plan.log}")
    return [*notes, *plan.left_out]
