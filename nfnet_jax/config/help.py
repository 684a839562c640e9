"""What `--help` prints: the usage, what a command does, its flags, the config keys."""

import textwrap
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from nfnet_jax.config import leaves
from nfnet_jax.config.keys import KEYS

_WIDTH = 88
_COLUMN = 24
_HIDDEN = ("flagfile", "undefok", "help")
"""Flags that absl brings, and the one that was just given."""


def help_text(
    path: str,
    about: str,
    values: flags.FlagValues,
    *,
    usage: str = "",
    config: ConfigDict | None = None,
) -> str:
    """All that a user of the command in the file `path` has to know.

    `about` is the docstring of its module, with examples; `config` is shown key by key.
    """
    shown = [f for f in own_flags(values) if "." not in f and f not in _HIDDEN]
    usage += " [--FLAG=VALUE ...]" if shown else ""
    parts = [_wrapped(f"usage: {command(path)}{usage}", 0, 4), about.strip()]
    if shown:
        entries = [_flag_entry(values[flag]) for flag in shown]
        parts.append("\n".join(["flags:", *entries]))
    if config is not None:
        parts.append(
            "config keys with their values here, each set by --config.KEY=VALUE;\n"
            "lists as a,b or ['a', 'b'], an item that is nothing but [...] in quotes:\n"
            + key_table(config)
        )
    return "\n\n".join(filter(None, parts))


def command(path: str) -> str:
    """ "python -m nfnet_jax.train" for "/somewhere/nfnet_jax/train.py"."""
    parts = Path(path).with_suffix("").parts
    if "nfnet_jax" not in parts:
        return Path(path).name
    start = len(parts) - 1 - parts[::-1].index("nfnet_jax")
    module = [part for part in parts[start:] if part != "__main__"]
    return f"python -m {'.'.join(module)}"


def own_flags(values: flags.FlagValues) -> list[str]:
    """Full names of the flags, without their abbreviations."""
    return [name for name in values if values[name].name == name]


def key_table(config: ConfigDict) -> str:
    """`KEY=VALUE` of every key, and below it the meaning and what is expected."""
    lines, values = [], leaves(config)
    for path, key in KEYS.items():
        shown = "unset" if values[path] is None else repr(values[path])
        lines += [f"  {path}={shown}", _wrapped(f"{key.meaning} ({key.expected})", 6)]
    return "\n".join(lines)


def _flag_entry(flag: flags.Flag) -> str:
    value = "" if flag.boolean else "=VALUE"
    value = "=FILE[:ARGUMENT]" if flag.name == "config" else value
    head = f"  --{flag.name}{value}"
    text = _wrapped(flag.help, _COLUMN)
    if len(head) > _COLUMN - 2:
        return f"{head}\n{text}"
    return head + text[len(head) :]


def _wrapped(text: str, indent: int, hanging: int = 0) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        _WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )
