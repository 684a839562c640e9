"""The page: one self-contained HTML document for one run or several."""

import datetime
import itertools
from collections.abc import Sequence

from nfnet_jax import __version__
from nfnet_jax.reports import figures, mistakes, tables
from nfnet_jax.reports.chart import COLOURS
from nfnet_jax.reports.elements import Child, Element, append, document, element
from nfnet_jax.reports.measured import SIGNAL_IMAGES, Measured, Tested
from nfnet_jax.reports.record import Record
from nfnet_jax.reports.style import style_sheet
from nfnet_jax.reports.units import duration, grouped, number, percent, with_prefix

# Nothing is loaded from anywhere, and no script runs, whatever a name holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def make_page(records: Sequence[Record], measured: Sequence[Measured]) -> str:
    """The text of the report of `records`, each with what was measured of it."""
    one = len(records) == 1
    title = records[0].name if one else f"{len(records)} runs compared"
    body = element("body", _header(title, records, measured))
    main = element("main")
    if one:
        append(main, [_tiles(records[0], measured[0])])
    parts = [_curves(records), _comparison(records, measured)]
    append(main, itertools.chain.from_iterable(parts if one else reversed(parts)))
    for record, found in zip(records, measured, strict=True):
        append(main, _network(record, found, named=not one))
    append(main, _config(records))
    append(body, [main, _footer()])
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} – nfnet_jax"),
        element("style", style_sheet()),
    )
    return document(element("html", head, body, lang="en"))


def _header(title, records: Sequence[Record], measured: Sequence[Measured]) -> Element:
    header = element("header", element("h1", title))
    both = list(zip(records, measured, strict=True))
    if len(both) == 1:
        append(header, [element("p", _summary(*both[0]), class_="note")])
    else:
        items = []
        for i, (run, found) in enumerate(both):
            words = (element("b", run.name), " · ", _summary(run, found))
            items.append(element("li", *words, class_=f"c{i % COLOURS}"))
        append(header, [element("ul", *items, class_="runs")])
    for run, found in both:
        append(header, map(_warning, _warnings(run, found)))
    return header


def _summary(record: Record, measured: Measured) -> str:
    config = record.config
    words = (config.model.name, config.data.name, _state(record, measured))
    return " · ".join((*words, record.workdir))


def _state(record: Record, measured: Measured) -> str:
    if record.result is not None:
        return "finished"
    if not record.last_step:
        return "nothing logged yet"
    of = f" of {grouped(measured.planned_steps)}" if measured.planned_steps else ""
    return f"unfinished: {grouped(record.last_step)}{of} updates logged"


def _warnings(record: Record, measured: Measured) -> list[str]:
    found = list(measured.notes)
    if record.unreadable:
        found.append(
            f"{record.unreadable} unreadable lines of metrics.jsonl are left out."
        )
    return found


def _warning(text: str) -> Element:
    return element("p", text, class_="warning")


def _tiles(record: Record, measured: Measured) -> Element:
    """The numbers that are looked for first."""
    result, both = record.result or {}, (record, measured)
    epochs = number(tables.last_epoch(record))
    tiles = [
        (
            "test accuracy",
            percent(tables.test_accuracy(*both)),
            f"{percent(tables.averaged_accuracy(*both))} averaged",
        ),
        (
            "test loss",
            number(tables.test_loss(*both), 4),
            "cross entropy, nats",
        ),
        (
            "time",
            duration(result.get("seconds")),
            f"{grouped(record.last_step)} updates, {epochs} epochs",
        ),
        (
            "training rate",
            number(result.get("images_per_second")),
            "images per second",
        ),
        (
            "training cost",
            with_prefix(result.get("train_flops"), "FLOP"),
            "forward and backward",
        ),
        (
            "parameters",
            grouped(tables.parameters(*both)),
            f"{with_prefix(tables.multiply_adds(*both), 'MAC')} an image",
        ),
    ]
    return element("dl", *(_tile(*tile) for tile in tiles), class_="tiles")


def _tile(name: str, value: str, remark: str) -> Element:
    return element(
        "div",
        element("dt", name),
        element("dd", value, element("small", remark)),
    )


def _curves(records: Sequence[Record]) -> list[Child]:
    charts = figures.curve_charts(records)
    if not charts:
        return []
    note = (
        "Training values are means of the updates between two lines of metrics.jsonl, "
        "with the augmentation, mixing and label smoothing of the config, which the "
        "test split does without."
    )
    return [
        element("h2", "Curves"),
        element("div", *charts, class_="charts"),
        element("p", note, class_="note"),
    ]


def _comparison(records: Sequence[Record], measured: Sequence[Measured]) -> list[Child]:
    outcome = tables.fact_table(tables.OUTCOME, records, measured, "Results")
    cost = tables.fact_table(tables.COST, records, measured, "Throughput and cost")
    if len(records) == 1:
        summary = element("summary", "All numbers")
        return [element("details", summary, outcome, cost)]
    return [
        element("h2", "Comparison"),
        _panel(tables.differing_keys(records)),
        element("div", *map(_panel, (outcome, cost)), class_="pair"),
    ]


def _network(record: Record, measured: Measured, named: bool) -> list[Child]:
    """What was measured of a run's network."""
    of = f": {record.name}" if named else ""
    parts: list[Child] = []
    if measured.start is not None:
        parts += [
            element("h2", f"Signal propagation{of}"),
            element("div", *figures.signal_charts(measured), class_="charts"),
            element("p", _signal_note(record, measured), class_="note"),
        ]
    if (tested := measured.tested) is not None:
        parts += [
            element("h2", f"Mistakes{of}"),
            element("p", _tested_note(measured, tested), class_="note"),
            element(
                "div",
                _panel(mistakes.confusion_matrix(measured, tested)),
                _panel(mistakes.confused_pairs(measured, tested)),
                class_="pair",
            ),
            element("h3", f"Most confident mistakes{of}"),
            _panel(mistakes.gallery(measured, tested)),
        ]
    return parts


def _signal_note(record: Record, measured: Measured) -> str:
    assert measured.image_shape is not None
    height, width, _ = measured.image_shape
    note = (
        f"Of the first {SIGNAL_IMAGES} test images. At initialization: fresh "
        f"parameters of seed {record.config.seed}, any skip gains set to 1 so that all "
        "branches count. Trained: the averaged parameters as they are. "
    )
    if record.config.model.weights:
        note += f"The run itself started from {record.config.model.weights}. "
    if measured.predictions:
        return note + (
            "The β schedule is of a signal that starts at variance 1, as noise gives. "
            "Standardized kernels pass less of smooth images, and zero padding takes "
            f"variance at the borders of images of {height}×{width}; python -m "
            "nfnet_jax.analyze --check 0.1 measures with noise."
        )
    return note + "This network is not built on the β schedule: nothing is predicted."


def _tested_note(measured: Measured, tested: Tested) -> str:
    return (
        f"The averaged parameters after {grouped(measured.step)} updates, those that "
        f"predict and export take, are right on {percent(tested.accuracy)} of "
        f"{grouped(int(tested.confusion.sum()))} test images."
    )


def _config(records: Sequence[Record]) -> list[Child]:
    parts: list[Child] = [
        element("h2", "Config"),
        _panel(tables.changed_keys(records)),
        element("details", element("summary", "All keys"), tables.all_keys(records)),
    ]
    for record in records:
        versions = tables.version_table(record)
        if versions is not None:
            name = f"Versions: {record.name}" if len(records) > 1 else "Versions"
            parts.append(element("details", element("summary", name), versions))
    return parts


def _panel(content: Child) -> Element:
    return element("div", content, class_="panel")


def _footer() -> Element:
    now = datetime.datetime.now(datetime.UTC)
    text = f"Written by nfnet_jax {__version__} on {now:%Y-%m-%d %H:%M} UTC."
    return element("footer", text, class_="note")
