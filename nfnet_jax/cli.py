"""What all entry points share: flags in, one line out when the user erred."""

import contextlib
import errno
import gc
import io
import itertools
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from nfnet_jax.config import (
    KEYS,
    base_config,
    check_config,
    check_key,
    wrong_value,
)
from nfnet_jax.config.files import load_config
from nfnet_jax.config.help import help_text, own_flags
from nfnet_jax.config.lists import read_list
from nfnet_jax.utils.cache import enable_compilation_cache
from nfnet_jax.utils.errors import Interrupted, UserError, nearest, one_line
from nfnet_jax.utils.host_memory import keep_host_memory
from nfnet_jax.utils.paths import check_local

_OBJECTS_PER_COLLECTION = 100_000
URLS = ("storage", "coordinator")
"""Flags, of any command, that may name something on another machine."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def run(main: Callable[[list[str]], None]) -> None:
    """Runs `main(argv)` and exits: 0, 2 with one line on stderr, 130 on Ctrl-C, 143 on
    SIGTERM, or 141 when nobody reads on, as in `... | head`."""
    # Importing and tracing make many objects that stay. At Python's 700, looking
    # through them takes 8 % of the time that tracing does.
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
        # Or Python flushes into the same pipe on its way out, and says so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        complain(f"cannot write: {error.strerror}")
        sys.exit(2)


def complain(message: str) -> None:
    """Tells on stderr what is wrong, in one line."""
    sys.stderr.write(f"error: {one_line(message)}\n")


def prepare_jax() -> None:
    """Before anything is computed: keeps compiled programs, and a CPU's memory."""
    enable_compilation_cache()
    keep_host_memory()


def parse_flags(
    argv: list[str], *, about: str = "", **meanings: str
) -> flags.FlagValues:
    """Text flags `--NAME`, a `meaning` each, None where absent.

    `--help` prints them below `about`, the docstring of the entry point, and exits.

    Raises:
      UserError: an unknown flag or a stray argument.
    """
    values = flags.FlagValues()
    _define(values, meanings)
    _refuse_arguments(_parse(values, argv, about))
    return values


def parse_flags_and_arguments(
    argv: list[str],
    *,
    about: str = "",
    arguments: str,
    switches: Mapping[str, str] = MappingProxyType({}),
    **meanings: str,
) -> tuple[flags.FlagValues, list[str]]:
    """Text flags as in `parse_flags`, `--SWITCH` without a value, and arguments.

    Flags and arguments may stand in any order; `--` ends the flags. `arguments` is what
    the help calls them, `switches` are names and meanings.

    Raises:
      UserError: an unknown flag.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    _define(values, meanings)
    for name, meaning in switches.items():
        flags.DEFINE_boolean(name, False, meaning, flag_values=values)
    return values, _parse(values, argv, about, f" {arguments}")


def whole_number(flag: str, text: str | None, most: int) -> int | None:
    """The value of `--flag`, from 1 to `most`; None where it is absent.

    Raises:
      UserError: another text.
    """
    if text is None:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise UserError(f"--{flag} is {text!r}, expected a whole number in [1, {most}]")
    return int(text)


def check_network_flags(values: flags.FlagValues) -> None:
    """Raises UserError unless either --workdir or --model and --weights are given."""
    if not values.workdir and not values.model and not values.weights:
        raise UserError(
            "--workdir is missing, expected the directory of a run, or --model and "
            "--weights"
        )
    for name, other in (("model", "weights"), ("weights", "model")):
        if values[name].value and values.workdir:
            raise UserError(
                f"--workdir and --{name} exclude each other, expected one of them"
            )
        if values[name].value and not values[other].value:
            raise UserError(f"--{other} is missing, --{name} needs it")


def parse_config_flags(
    argv: list[str],
    *,
    about: str = "",
    file_needed: bool = True,
    repeated: Mapping[str, str] = MappingProxyType({}),
    switches: Mapping[str, str] = MappingProxyType({}),
    **meanings: str,
) -> tuple[ConfigDict, flags.FlagValues]:
    """The checked config of `--config FILE[:ARGUMENT] --config.KEY=VALUE ...`.

    With `file_needed=False` and no `--config`, overrides are of the base config. Other
    flags are as in `parse_flags`; `repeated` ones may be given several times and are
    lists, `switches` have no value.

    Raises:
      UserError: no such file, an error in it, an unknown key, a value of the wrong type
        or out of range, an unknown flag, a stray argument.
    """
    file, argv = _take_config(argv)
    _refuse_flag_files(argv)
    _check_overrides(argv)
    argv = _with_tuples(argv)
    config = base_config() if file is None else load_config(file)
    values = flags.FlagValues()
    with _one_line_errors(values):
        config_flags.DEFINE_config_dict(
            "config",
            config,
            "Python file whose get_config(ARGUMENT) gives the experiment to run, such "
            "as those in configs/",
            flag_values=values,
            sys_argv=argv,
        )
    _define(values, meanings)
    for name, meaning in repeated.items():
        flags.DEFINE_multi_string(name, [], meaning, flag_values=values)
    for name, meaning in switches.items():
        flags.DEFINE_boolean(name, False, meaning, flag_values=values)
    usage = " --config=FILE[:ARGUMENT]" if file_needed else ""
    usage += " [--config.KEY=VALUE ...]"
    _refuse_arguments(_parse(values, argv, about, usage, config))
    if file is None and file_needed:
        raise UserError(
            "--config is missing, expected a file such as configs/digits.py"
        )
    check_config(values.config)
    return values.config, values


def config_arguments(argv: list[str]) -> list[str]:
    """Those of `argv` that make the config, each as --NAME=VALUE."""
    file, argv = _take_config(argv)
    found = [f"--config={file}"]
    for argument, following in itertools.pairwise([*argv, "--"]):
        if not re.match(r"--?(no)?config\.", argument):
            continue
        apart = "=" not in argument and not following.startswith("-")
        found.append(f"{argument}={following}" if apart else argument)
    return found


def config_function(argv: list[str], name: str) -> Callable[..., Any] | None:
    """The function `name` of the file in `--config FILE`, None where it has none."""
    file, _ = _take_config(argv)
    if file is None:
        return None
    return runpy.run_path(file.split(":", 1)[0]).get(name)


def _take_config(argv: list[str]) -> tuple[str | None, list[str]]:
    """The value of `--config`, None where absent, and the other arguments."""
    for i, argument in enumerate(argv):
        if argument in ("-config", "--config"):
            return "".join(argv[i + 1 : i + 2]), argv[:i] + argv[i + 2 :]
        if re.match("--?config=", argument):
            return argument.partition("=")[2], argv[:i] + argv[i + 1 :]
    return None, argv


def _check_overrides(argv: list[str]) -> None:
    """Unknown keys, told better than the flag library does."""
    for argument in argv:
        name = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("-"):
            continue
        if name == "config":
            raise UserError(f"{argument}: --config is given twice, expected one file")
        if name.removeprefix("no").startswith("config."):
            check_key(name.removeprefix("no").removeprefix("config."))


def _refuse_flag_files(argv: list[str]) -> None:
    """The flag library would read them without the checks made here."""
    for argument in argv[1:]:
        if re.match(r"--?(flagfile|undefok)(=|$)", argument):
            raise UserError(f"{argument}: unknown flag, expected --FLAG=VALUE itself")


def _with_tuples(argv: list[str]) -> list[str]:
    """Lists in any notation of `read_list` become the tuples of the flag library."""
    argv = list(argv)
    for i, argument in enumerate(argv):
        name, equals, text = argument.partition("=")
        path = re.sub(r"^--?config\.", "", name)
        apart = not equals and i + 1 < len(argv)
        if path == name or path not in KEYS or not (equals or apart):
            continue
        if isinstance(KEYS[path].default, tuple):
            text = argv[i + 1] if apart else text
            try:
                found = repr(read_list(text))
            except ValueError as error:
                raise wrong_value(path, text) from error
            argv[i : i + 1 + apart] = [name, found] if apart else [f"{name}={found}"]
    return argv


def _define(values: flags.FlagValues, meanings: dict[str, str]) -> None:
    for name, meaning in meanings.items():
        flags.DEFINE_string(name, None, meaning, flag_values=values)


def _refuse_arguments(rest: list[str]) -> None:
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}, expected --FLAG=VALUE")


def _parse(
    values: flags.FlagValues,
    argv: list[str],
    about: str,
    usage: str = "",
    config: ConfigDict | None = None,
) -> list[str]:
    """Fills `values`, and `config` with it, and returns the arguments that are not
    flags."""
    flags.DEFINE_boolean("help", False, "", short_name="h", flag_values=values)
    _refuse_flag_files(argv)
    with _one_line_errors(values):
        rest = values(argv)[1:]
    if values.help:
        print(help_text(argv[0], about, values, usage=usage, config=config))
        sys.exit(0)
    for name in own_flags(values):
        if values[name].value == "" and "." not in name:
            raise UserError(f"--{name} is empty, expected --{name}=VALUE")
        if "." not in name and name not in URLS:
            for value in _texts(values[name].value):
                check_local(value, f"--{name}")
    for argument in rest:
        check_local(argument, "argument")
    return rest


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [value for value in values if isinstance(value, str)]


@contextlib.contextmanager
def _one_line_errors(values: flags.FlagValues) -> Iterator[None]:
    """Turns what the flag library raises into a UserError."""
    try:
        yield
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown_flag(error.flagname, values)) from error
    except Exception as error:
        raise _bad_value(str(error)) from error


def _unknown_flag(name: str, values: flags.FlagValues) -> str:
    known = [f"--{flag}" for flag in own_flags(values) if "." not in flag]
    listed = ", ".join(known)
    if "--config" not in known:
        return f"unknown flag --{name}, expected {listed}{nearest(name, known)}"
    listed += " or --config.KEY=VALUE"
    if hint := nearest(name, known):
        return f"unknown flag --{name}, expected {listed}{hint}"
    choices = [f"--config.{path}" for path in KEYS]
    hint = nearest(name, choices, paths=True)
    return f"unknown flag --{name}, expected {listed}{hint}"


def _bad_value(text: str) -> UserError:
    """From "flag --config.KEY=VALUE: reason" to what the key expects."""
    wrong = re.match(r"flag --config\.([\w.]+)=(.*?): ", text, re.DOTALL)
    if wrong and wrong[1] in KEYS:
        return wrong_value(wrong[1], wrong[2])
    lacking = re.fullmatch(r"Missing value for flag --config\.([\w.]+)", text)
    if lacking and lacking[1] in KEYS:
        return UserError(
            f"{lacking[1]} has no value, expected {KEYS[lacking[1]].expected}"
        )
    return UserError(" ".join(text.removeprefix("ERROR:: ").split()))
