"""The page: one self-contained HTML document for one run or several."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from nfnet_jax import __version__
from nfnet_jax.reports import tables
from nfnet_jax.reports.figures import Chart, curve_charts, signal_charts
from nfnet_jax.reports.measured import SIGNAL_IMAGES, Measured
from nfnet_jax.reports.mistakes import Mistakes, summarize
from nfnet_jax.reports.record import Record
from nfnet_jax.utils import figures, units
from nfnet_jax.utils.strict_json import dumps

# Neither HTML nor XML has characters for these.
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe-￿]")


class Run(NamedTuple):
    """A run as the template shows it; `colour` is a place in `figures.COLOURS`."""

    record: Record
    measured: Measured
    colour: int
    state: str
    warnings: list[str]
    signal_charts: list[Chart]
    mistakes: Mistakes | None


def make_page(records: Sequence[Record], measured: Sequence[Measured]) -> str:
    """The text of the report of `records`, each with what was measured of it."""
    one, both = len(records) == 1, zip(records, measured, strict=True)
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=records[0].name if one else f"{len(records)} runs compared",
            one=one,
            runs=[_run(i, *run) for i, run in enumerate(both)],
            tiles=tables.tiles(records[0], measured[0]),
            curves=curve_charts(records),
            outcome=tables.comparison(tables.OUTCOME, records, measured),
            cost=tables.comparison(tables.COST, records, measured),
            changed_keys=tables.changed_keys(records),
            differing_keys=tables.differing_keys(records),
            all_keys=tables.all_keys(records),
            signal_images=SIGNAL_IMAGES,
            light=figures.LIGHT,
            dark=figures.DARK,
            version=__version__,
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nfnet_jax.reports", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": units.number,
        "grouped": units.grouped,
        "percent": units.percent,
        # JSON, in which "1" and 1 differ.
        "json": lambda value: dumps(value, ensure_ascii=False),
    }
    return environment


def _printable(value):
    """`value`, with a replacement for what is no character of HTML."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _NO_TEXT.sub("\ufffd", value)


def _run(index: int, record: Record, measured: Measured) -> Run:
    warnings = list(measured.notes)
    if record.unreadable:
        warnings.append(
            f"{record.unreadable} unreadable lines of metrics.jsonl are left out."
        )
    return Run(
        record,
        measured,
        index % len(figures.COLOURS),
        _state(record, measured),
        warnings,
        signal_charts(measured, f"run{index}") if measured.start else [],
        summarize(measured, measured.tested) if measured.tested else None,
    )


def _state(record: Record, measured: Measured) -> str:
    if record.result is not None:
        return "finished"
    if not record.last_step:
        return "nothing logged yet"
    planned = measured.planned_steps
    of = f" of {units.grouped(planned)}" if planned else ""
    return f"unfinished: {units.grouped(record.last_step)}{of} updates logged"
