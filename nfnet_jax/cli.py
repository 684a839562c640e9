"""Command lines: flags in, one line out when the user erred."""

import errno
import gc
import io
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from ml_collections import ConfigDict

from nfnet_jax.config import KEYS, base_config, check_config, check_key, leaves
from nfnet_jax.config.base import override_by_text
from nfnet_jax.config.files import load_file
from nfnet_jax.config.kinds import Key, Several, Switch, Text
from nfnet_jax.utils.errors import Interrupted, UserError, nearest, one_line
from nfnet_jax.utils.files import check_local
from nfnet_jax.utils.runtime import enable_compilation_cache, keep_host_memory

_OBJECTS_PER_COLLECTION = 100_000
URLS = ("storage", "coordinator")
"""Flags, of any command, that may name something on another machine."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_WIDTH = 88
_COLUMN = 24


def run(main: Callable[[list[str]], None]) -> None:
    """Runs `main(argv)` and exits: 0, 2 with one line on stderr, 130 on Ctrl-C, 143 on
    SIGTERM, or 141 when nobody reads on, as in `... | head`."""
    # Importing and tracing make many objects that stay. At Python's threshold of 700,
    # collecting garbage among them takes 8 % of the time of tracing.
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    # Names of files and classes may hold what the terminal's encoding lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main(sys.argv)
    except UserError as error:
        complain(str(error))
        sys.exit(2)
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        # Otherwise Python flushes the closed pipe at exit and prints a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        complain(f"cannot write: {error.strerror}")
        sys.exit(2)


def complain(message: str) -> None:
    """Writes a line to stderr about what is wrong."""
    sys.stderr.write(f"error: {one_line(message)}\n")


def prepare_jax() -> None:
    """Prepares computing: keeps compiled programs, and the memory of a CPU."""
    enable_compilation_cache()
    keep_host_memory()


def parse(
    argv: Sequence[str],
    about: str | None,
    *,
    config: Literal["needed", "optional"] | None = None,
    arguments: str = "",
    **flags: str | Key,
) -> SimpleNamespace:
    """Reads `--NAME=VALUE` or `--NAME VALUE` for each of `flags`, in any order.

    A flag is a kind of value, such as `Int(1, "how many devices", "[1, 4096]")`, or the
    meaning of a text. `--NAME` alone turns a `Switch` on, `--noNAME` off. `--` ends the
    flags. `--help` prints them below `about`, the docstring of the command, and exits.

    Args:
      config: takes `--config FILE[:ARGUMENT]`, which may be "needed" or "optional", and
        `--config.KEY=VALUE`, without a file of the base config.
      arguments: name in the help of what may stand beside flags; "": nothing.

    Returns:
      The value or default of each flag, and `arguments`; with `config` also the checked
      `config`, the `names` that its file defines, and `config_flags`, which make it.

    Raises:
      UserError: an unknown flag or key, a value of the wrong type or out of range, a
        stray argument, no such file or an error in it.
    """
    keys = {n: Text(None, f) if isinstance(f, str) else f for n, f in flags.items()}
    keys["help"] = Switch(False, "print this and exit")
    if config:
        keys = {"config": _CONFIG, **keys}
    known = keys | ({f"config.{path}": KEYS[path] for path in KEYS} if config else {})
    given, rest = _split(argv[1:], known)
    found = SimpleNamespace(arguments=rest)
    for name, key in keys.items():
        values = [_value(name, key, text) for flag, text in given if flag == name]
        last = values[-1] if values else key.default
        setattr(found, name, values if isinstance(key, Several) else last)
    if config:
        files = [text for flag, text in given if flag == "config"]
        overrides = [flag for flag in given if flag[0].startswith("config.")]
        found.config, found.names = _load(files, overrides)
        found.config_flags = [f"--config={file}" for file in files]
        found.config_flags += [f"--{name}={text}" for name, text in overrides]
    if found.help:
        print(_help(argv[0], about or "", keys, config, arguments, found))
        sys.exit(0)
    for argument in rest:
        if not arguments:
            raise UserError(f"unexpected argument {argument!r}, expected --FLAG=VALUE")
        check_local(argument, "argument")
    if config == "needed" and not files:
        raise UserError(
            "--config is missing, expected a file such as configs/digits.py"
        )
    return found


_CONFIG = Text(
    None,
    "Python file whose get_config(ARGUMENT) gives the experiment to run, such as those "
    "in configs/",
)


def _split(
    given: Sequence[str], known: Mapping[str, Key]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Names and texts of the flags, and the other arguments."""
    flags: list[tuple[str, str]] = []
    rest: list[str] = []
    words = iter(given)
    for word in words:
        if word == "--":
            rest += words
        elif word.startswith("-"):
            flags.append(_read_flag(word, words, known))
        else:
            rest.append(word)
    return flags, rest


def _read_flag(
    word: str, words: Iterator[str], known: Mapping[str, Key]
) -> tuple[str, str]:
    """Name and text of the flag `word`, with its value from `words` if need be."""
    name, equals, text = word.lstrip("-").partition("=")
    name = "help" if name == "h" else name
    switch = name.removeprefix("no")
    if name not in known and isinstance(known.get(switch), Switch):
        if equals:
            raise UserError(f"{word}: --{name} does not take an argument")
        return switch, "false"
    if name not in known:
        raise _unknown_flag(name, known)
    if equals:
        return name, text
    if isinstance(known[name], Switch):
        return name, "true"
    for text in words:
        return name, text
    raise UserError(f"--{name} has no value, expected {known[name].expected}")


def _value(name: str, key: Key, text: str) -> Any:
    if name == "config":
        return text
    if not text:
        raise UserError(f"--{name} is empty, expected --{name}=VALUE")
    if name not in URLS:
        check_local(text, f"--{name}")
    try:
        value = key.read(text)
    except ValueError as error:
        raise key.refusal(f"--{name}", text) from error
    if not key.valid(value):
        raise key.refusal(f"--{name}", text)
    return value


def _load(
    files: Sequence[str], overrides: Sequence[tuple[str, str]]
) -> tuple[ConfigDict, dict[str, Any]]:
    """Config of a file, or the base config, with `overrides`; names of the file."""
    config = base_config()
    names: dict[str, Any] = {}
    if files[1:]:
        raise UserError(f"--config={files[1]}: --config is given twice")
    try:
        for file in files:
            config, names = load_file(file)
    except UserError as error:
        raise UserError(f"--config: {error}") from error
    for name, text in overrides:
        override_by_text(config, name.removeprefix("config."), text)
    check_config(config)
    return config, names


def _unknown_flag(name: str, known: Mapping[str, Key]) -> UserError:
    if "config" in known and name.startswith("config."):
        check_key(name.removeprefix("config."))
    own = [f"--{flag}" for flag in known if "." not in flag]
    hint, listed = nearest(name, own), ", ".join(own)
    if "config" in known:
        listed += " or --config.KEY=VALUE"
        keys = [f"--config.{path}" for path in KEYS]
        hint = hint or nearest(name, keys, paths=True)
    return UserError(f"unknown flag --{name}, expected {listed}{hint}")


def check_network_flags(flags: SimpleNamespace) -> None:
    """Raises UserError unless either --workdir or --model and --weights are given."""
    if not flags.workdir and not flags.model and not flags.weights:
        raise UserError(
            "--workdir is missing, expected the directory of a run, or --model and "
            "--weights"
        )
    for name, other in (("model", "weights"), ("weights", "model")):
        if getattr(flags, name) and flags.workdir:
            raise UserError(
                f"--workdir and --{name} exclude each other, expected one of them"
            )
        if getattr(flags, name) and not getattr(flags, other):
            raise UserError(f"--{other} is missing, --{name} needs it")


def load_published(flags: SimpleNamespace) -> tuple[Any, Any]:
    """Network and parameters of --model and --weights; UserError if there are none."""
    from nfnet_jax.weights.load import load_pretrained

    try:
        return load_pretrained(flags.model, flags.weights)
    except ValueError as error:
        raise UserError(f"--model: {error}") from error


def _help(
    path: str,
    about: str,
    keys: Mapping[str, Key],
    config: str | None,
    arguments: str,
    found: SimpleNamespace,
) -> str:
    """Usage, description, flags and config keys of the command in the file `path`."""
    usage = f"usage: {command(path)}"
    if config:
        usage += " --config=FILE[:ARGUMENT]" if config == "needed" else ""
        usage += " [--config.KEY=VALUE ...]"
    usage += f" {arguments}" if arguments else ""
    usage += " [--FLAG=VALUE ...]"
    entries = "\n".join(["flags:", *map(_entry, keys, keys.values())])
    parts = [_wrapped(usage, 0, 4), about.strip(), entries]
    if config:
        parts.append(
            "config keys with their values here, each set by --config.KEY=VALUE;\n"
            "lists as a,b or ['a', 'b'], an item that is nothing but [...] in quotes:\n"
            + key_table(found.config)
        )
    return "\n\n".join(parts)


def command(path: str) -> str:
    """Returns "python -m nfnet_jax.train" for "/somewhere/nfnet_jax/train.py"."""
    parts = Path(path).with_suffix("").parts
    if "nfnet_jax" not in parts:
        return Path(path).name
    start = len(parts) - 1 - parts[::-1].index("nfnet_jax")
    module = [part for part in parts[start:] if part != "__main__"]
    return f"python -m {'.'.join(module)}"


def key_table(config: ConfigDict) -> str:
    """Returns `KEY=VALUE` for every key, above the meaning and what is expected."""
    lines, values = [], leaves(config)
    for path, key in KEYS.items():
        shown = "unset" if values[path] is None else repr(values[path])
        lines += [f"  {path}={shown}", _wrapped(f"{key.meaning} ({key.expected})", 6)]
    return "\n".join(lines)


def _entry(name: str, key: Key) -> str:
    """Lines about a flag: its meaning, what is expected, and the default."""
    value = "=FILE[:ARGUMENT]" if name == "config" else "=VALUE"
    head = f"  --{name}{'' if isinstance(key, Switch) and not key.default else value}"
    notes = [] if isinstance(key, Text | Several) else [key.expected]
    notes += [] if key.default in (None, False, ()) else [f"default: {key.default}"]
    text = f"{key.meaning} ({'; '.join(notes)})" if notes else key.meaning
    text = _wrapped(text, _COLUMN)
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
