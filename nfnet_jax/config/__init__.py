"""The base config, made and checked by the keys of `config_keys.py`.

    python -m nfnet_jax.config

prints all of it. A config file sets what differs from the base and nothing else; what
follows from other values (steps from epochs, the peak rate from the batch, ...) is
derived in `training/plan.py`, after overrides. What follows from a variant, as
`configs/imagenet_nfnet.py:f3` names one, its config file sets as plain numbers.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from nfnet_jax.config.keys import KEYS
from nfnet_jax.utils.errors import UserError, nearest


def base_config() -> ConfigDict:
    """All keys at their defaults; adding a key that `KEYS` does not have raises."""
    config = ConfigDict()
    for path, key in KEYS.items():
        *sections, leaf = path.split(".")
        node = config
        for section in sections:
            if section not in node:
                node[section] = ConfigDict()
            node = node[section]
        node[leaf] = placeholder(key.default) if key.unset else key.default
    return config.lock()


def choose(variants: Mapping[str, Any], name: str) -> Any:
    """`variants[name]`, for the argument of a config file.

    Raises:
      UserError: there is none of that name.
    """
    if name not in variants:
        raise UserError(
            f"unknown variant {name!r}, expected one of {', '.join(variants)}"
            f"{nearest(name, variants)}"
        )
    return variants[name]


def check_config(config: ConfigDict) -> None:
    """Checks every value by itself.

    Raises:
      UserError: not made from `base_config`, or a value out of range.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"get_config() returned {type(config).__name__}, expected the ConfigDict "
            "that nfnet_jax.config.base_config() makes"
        )
    found = leaves(config)
    for path in found:
        check_key(path)
    for path, key in KEYS.items():
        if path not in found:
            raise UserError(f"config has no key {path!r}: start from base_config()")
        value = found[path]
        if value is not None and not key.valid(value):
            raise wrong_value(path, value)
        if value is None and not key.unset:
            raise UserError(f"{path} is unset, expected {key.expected}")


def check_key(path: str) -> None:
    """Raises UserError if no key is called `path`, naming the nearest one."""
    if path in KEYS:
        return
    if keys := _keys_below(path):
        raise UserError(
            f"config key {path!r} is a section, expected {path}.KEY=VALUE with KEY one "
            f"of {', '.join(keys)}"
        )
    raise UserError(f"unknown config key {path!r}{nearest_key(path)}")


def nearest_key(path: str) -> str:
    """What to try instead of the unknown `path`: one key, or those of its section."""
    if hint := nearest(path, KEYS, paths=True):
        return hint
    section = path.rpartition(".")[0]
    while section and not _keys_below(section):
        section = section.rpartition(".")[0]
    if section:
        return f", expected one of {', '.join(_keys_below(section))} in {section!r}"
    return "; python -m nfnet_jax.config lists the keys"


def wrong_value(path: str, value: Any) -> UserError:
    """The error of a value that the key `path` cannot take."""
    hint = nearest(str(value), KEYS[path].choices)
    if isinstance(value, str) and KEYS[path].expected.startswith("a whole number"):
        hint = _as_whole_number(value)
    return UserError(f"{path} is {value!r}, expected {KEYS[path].expected}{hint}")


def _as_whole_number(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        return ""
    return f"; did you mean {number:.0f}?" if number.is_integer() else ""


def _keys_below(section: str) -> list[str]:
    prefix = f"{section}."
    return [key.removeprefix(prefix) for key in KEYS if key.startswith(prefix)]


def leaves(config: ConfigDict | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim.learning_rate": 0.1, ...}"""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def model_overrides(config: ConfigDict) -> dict[str, Any]:
    """The options that `config.model` sets, as `create_model` takes them."""
    own = ("name", "num_classes", "weights")
    return {k: v for k, v in config.model.items() if k not in own and v is not None}


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Plain nested dict of what JSON can hold; tuples become lists."""
    return {
        name: to_json(value)
        if isinstance(value, ConfigDict)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in config.items()
    }


def from_json(values: dict[str, Any]) -> ConfigDict:
    """The inverse of `to_json`.

    Raises:
      UserError: a key that this version does not have, or a value of the wrong type.
    """
    config = base_config()
    for path, value in leaves(values).items():
        check_key(path)
        value = tuple(value) if isinstance(value, list) else value
        try:
            config.update_from_flattened_dict({path: value})
        except TypeError as error:
            raise wrong_value(path, value) from error
    return config
