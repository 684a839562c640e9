"""Shows what runs did, as one HTML file; several runs are compared.

    python -m nfnet_jax.report runs/digits
    python -m nfnet_jax.report runs/a runs/b --output ab.html

The file needs no network and runs no script.
"""

import os

from nfnet_jax import cli
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.files import replacing

_MOST_MISTAKES = 24


def main(argv: list[str]) -> None:
    """Writes the report and prints where it is."""
    flags = cli.parse(
        argv,
        __doc__,
        arguments="WORKDIR ...",
        output="HTML file to write (default: report.html in the directory of the run, "
        "or in this one for several runs)",
        data_dir="directory of the runs' folder or TFDS set, if it has moved",
    )
    workdirs = flags.arguments
    if not workdirs:
        raise UserError("no work directory, expected those of runs")
    from nfnet_jax.reports.measured import measure_run
    from nfnet_jax.reports.page import make_page
    from nfnet_jax.reports.record import read_records
    from nfnet_jax.training.trained import set_data_dir
    from nfnet_jax.training.workdir import writing

    records = read_records(workdirs)
    folder = workdirs[0] if len(workdirs) == 1 else ""
    path = flags.output or os.path.join(folder, "report.html")
    _check_path(path)
    configs = [record.config.copy_and_resolve_references() for record in records]
    for config in configs if flags.data_dir else ():
        set_data_dir(config, flags.data_dir)
    cli.prepare_jax()
    mistakes = max(1, _MOST_MISTAKES // len(records))
    measured = [
        measure_run(config, record.workdir, mistakes)
        for config, record in zip(configs, records, strict=True)
    ]
    page = make_page(records, measured)
    with writing(path, "--output"), replacing(path) as part:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")
    print(path)


def _check_path(path: str) -> None:
    """Refuses a path that cannot be written, before minutes are spent on measuring."""
    if os.path.isdir(path):
        raise UserError(f"--output: {path!r} is a directory, expected an HTML file")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UserError(f"--output: {path!r}: there is no directory {folder!r}")


if __name__ == "__main__":
    cli.run(main)
