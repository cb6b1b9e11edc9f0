"""A picture of the results: AP over latency, or images per second if there is no AP."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detkit.benchmark.output.rows import Row

MARKERS = "osD^vP*X"
PANEL_WH = (6.4, 4.4)  # inches


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture as PNG.

    Args:
        rows: at least one with timings.
        path: of the picture.
    """
    measured = [row for row in rows if row.rounds]
    smallest = min(row.setting.batch_size for row in measured)
    known = {(row.title, row.setting.image_hw): row.numbers["AP"] for row in measured if "AP" in row.numbers}
    of_smallest = [row for row in measured if row.setting.batch_size == smallest]
    shown = [row for row in of_smallest if (row.title, row.setting.image_hw) in known]
    figure = _accuracy(shown, known) if shown else _speed(measured)
    figure.savefig(path, dpi=150)


def _accuracy(shown: Sequence[Row], known: Mapping[tuple[str, tuple[int, int]], float]) -> Figure:
    """One point a row; AP depends on the runtime and the image size, not on batch size and threads."""
    threads = sorted({row.setting.threads for row in shown})
    sizes = sorted({row.setting.image_hw for row in shown})
    figure, panels = _panels(len(threads))
    for panel, number in zip(panels, threads, strict=True):
        for row in (row for row in shown if row.setting.threads == number):
            summary = row.summary()
            assert summary, "rows without timings are left out"
            panel.plot(
                summary.latency_ms,
                known[row.title, row.setting.image_hw],
                MARKERS[sizes.index(row.setting.image_hw) % len(MARKERS)],
                color=_colours(shown)[row.title],
                markersize=9,
                alpha=0.8,
                label=_label(row, sizes),
            )
        panel.set(
            xlabel=f"latency of a batch of {shown[0].setting.batch_size}, ms", ylabel="AP", title=_threads(number)
        )
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
        low, high = min(known.values()), max(known.values())
        margin = max(0.01, 0.2 * (high - low))
        panel.set_ylim(low - margin, high + margin)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _speed(rows: Sequence[Row]) -> Figure:
    """Bars of images per second, one panel a setting."""
    settings = list(dict.fromkeys(row.setting for row in rows))
    figure, panels = _panels(len(settings))
    for panel, setting in zip(panels, settings, strict=True):
        of_setting = [row for row in rows if row.setting == setting][::-1]
        speeds = [summary.images_per_s for row in of_setting if (summary := row.summary())]
        bars = panel.barh(
            [row.title for row in of_setting], speeds, color=[_colours(rows)[r.title] for r in of_setting]
        )
        panel.bar_label(bars, fmt="%.1f", padding=3)
        panel.set(xlabel="images/s", title=str(setting))
        panel.margins(x=0.15)
    return figure


def _panels(number: int) -> tuple[Figure, list[Axes]]:
    columns = min(number, 2)
    lines = -(-number // columns)
    figure = Figure(figsize=(PANEL_WH[0] * columns + 1.5, PANEL_WH[1] * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    for panel in panels[number:]:
        panel.remove()
    return figure, panels[:number]


def _colours(rows: Sequence[Row]) -> dict[str, tuple[float, float, float, float]]:
    titles = list(dict.fromkeys(row.title for row in rows))
    return {title: colormaps["tab10"](number % 10) for number, title in enumerate(titles)}


def _label(row: Row, sizes: Sequence[tuple[int, int]]) -> str:
    height, width = row.setting.image_hw
    return row.title if len(sizes) == 1 else f"{row.title}, {width} x {height}"


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"
