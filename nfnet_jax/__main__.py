"""Runs a command by its name.

    nfnet train --config configs/digits.py
    python -m nfnet_jax train --config configs/digits.py

`python -m nfnet_jax.train` is the same command. `nfnet NAME --help` describes one.
"""

import ast
import importlib
from pathlib import Path

from nfnet_jax import cli
from nfnet_jax.utils.errors import UserError, nearest

COMMANDS = (
    *("train", "evaluate", "predict", "export", "plan", "analyze", "report", "sweep"),
    *("data", "models", "config"),
)


def main() -> None:
    """Runs the command that the command line names."""
    cli.run(dispatch)


def dispatch(argv: list[str]) -> None:
    """Runs `argv[1]` with the arguments after it; without one, lists the commands.

    Raises:
      UserError: no such command.
    """
    name = argv[1] if argv[1:] else "--help"
    if name in ("-h", "--help", "help"):
        print(list_commands())
        return
    if name not in COMMANDS:
        raise UserError(
            f"unknown command {name!r}, expected one of {', '.join(COMMANDS)}"
            f"{nearest(name, COMMANDS)}"
        )
    module = ".".join(_file(name).with_suffix("").relative_to(_PACKAGE).parts)
    command = importlib.import_module(f"nfnet_jax.{module}")
    command.main([f"nfnet {name}", *argv[2:]])


def list_commands() -> str:
    """Returns the usage, and each command with the first line of its docstring."""
    lines = []
    for name in COMMANDS:
        about = ast.get_docstring(ast.parse(_file(name).read_text(encoding="utf-8")))
        lines.append(f"  {name:10}{(about or '').splitlines()[0]}")
    usage = "usage: nfnet COMMAND [--FLAG=VALUE ...]; nfnet COMMAND --help"
    return "\n".join([usage, "", *lines])


_PACKAGE = Path(__file__).parent


def _file(name: str) -> Path:
    """Python file of the command `name`."""
    folder = _PACKAGE / name
    return folder / "__main__.py" if folder.is_dir() else folder.with_suffix(".py")


if __name__ == "__main__":
    main()
