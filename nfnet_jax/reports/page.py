"""The page: one self-contained HTML document for one run or several."""

import re
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from nfnet_jax import __version__
from nfnet_jax.reports import tables
from nfnet_jax.reports.figures import curve_charts, signal_charts
from nfnet_jax.reports.measured import SIGNAL_IMAGES, Measured
from nfnet_jax.reports.mistakes import summarize
from nfnet_jax.reports.record import Record
from nfnet_jax.utils import figures, units
from nfnet_jax.utils.strict_json import dumps

# Neither HTML nor XML has characters for these.
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe-￿]")


def make_page(records: Sequence[Record], measured: Sequence[Measured]) -> str:
    """The text of the report of `records`, each with what was measured of it."""
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
    one, both = len(records) == 1, zip(records, measured, strict=True)
    keys = tables.all_keys(records)
    return environment.get_template("page.html").render(
        title=records[0].name if one else f"{len(records)} runs compared",
        one=one,
        runs=[_run(i, *run) for i, run in enumerate(both)],
        tiles=tables.tiles(records[0], measured[0]),
        curves=curve_charts(records),
        outcome=tables.comparison(tables.OUTCOME, records, measured),
        cost=tables.comparison(tables.COST, records, measured),
        changed_keys=[k for k in keys if any(v != k.default for v in k.values)],
        differing_keys=[k for k in keys if any(v != k.values[0] for v in k.values)],
        all_keys=keys,
        signal_images=SIGNAL_IMAGES,
        light=figures.LIGHT,
        dark=figures.DARK,
        version=__version__,
    )


def _printable(value):
    """`value`, with a replacement for what is no character of HTML."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _NO_TEXT.sub("\ufffd", value)


def _run(index: int, record: Record, measured: Measured) -> dict[str, Any]:
    """A run as the template shows it; `colour` is a place in `figures.COLOURS`."""
    lines = f"{record.unreadable} unreadable lines of metrics.jsonl are left out."
    warnings = [*measured.notes, *([lines] if record.unreadable else [])]
    return {
        "record": record,
        "measured": measured,
        "colour": index % len(figures.COLOURS),
        "state": _state(record, measured),
        "warnings": warnings,
        "signal_charts": signal_charts(measured, f"run{index}")
        if measured.start
        else [],
        "mistakes": summarize(measured, measured.tested) if measured.tested else None,
    }


def _state(record: Record, measured: Measured) -> str:
    if record.result is not None:
        return "finished"
    if not record.last_step:
        return "nothing logged yet"
    planned = measured.planned_steps
    of = f" of {units.grouped(planned)}" if planned else ""
    return f"unfinished: {units.grouped(record.last_step)}{of} updates logged"
