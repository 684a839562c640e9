"""The base config: made of the keys, checked by the keys, kept as JSON."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from nfnet_jax.config.keys import KEYS, SECTIONS
from nfnet_jax.utils.errors import UserError, nearest


class UnknownKey(UserError, AttributeError):
    """A key that the config does not have."""


class WrongType(UserError, TypeError):
    """A value of another type than its key has."""


class Section(ConfigDict):
    """Part of a config, which takes no unknown key and no value of another type."""

    def __setitem__(self, name: str, value: Any) -> None:
        try:
            super().__setitem__(name, value)
        except KeyError as error:
            hint = nearest_key(name)
            raise UnknownKey(f"unknown config key {name!r}{hint}") from error
        except TypeError as error:
            kind = self.get_type(name)
            expected = {
                tuple: "tuple such as ('a', 'b') or ('a',)",
                Section: "no value, as it is a section of keys",
            }.get(kind, kind.__name__)
            found = f"{name} is {value} ({type(value).__name__})"
            raise WrongType(f"{found}, expected {expected}") from error


def base_config() -> ConfigDict:
    """Returns a config with all keys at their defaults; it takes no other keys."""
    return _make(SECTIONS).lock()


def _make(section: Mapping[str, Any]) -> Section:
    made = Section()
    for name, entry in section.items():
        if isinstance(entry, dict):
            made[name] = _make(entry)
        else:
            unset = entry.default is None
            made[name] = placeholder(entry.type) if unset else entry.default
    return made


def check_config(config: ConfigDict) -> None:
    """Checks all that can be known without data and model.

    Raises:
      UserError: not made by `base_config`, a value out of range, or values that exclude
        each other.
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
        key.check(path, found[path])
    _check_pairs(config)


def _check_pairs(config: ConfigDict) -> None:
    augment, parallel = config.data.augment, config.parallel
    if augment.random_resized_crop and augment.crop_padding:
        raise UserError(
            f"data.augment.crop_padding is {augment.crop_padding} and "
            "data.augment.random_resized_crop is True, expected only one crop"
        )
    if parallel.fsdp and parallel.mode != "jit":
        raise UserError(
            f"parallel.fsdp is True with parallel.mode {parallel.mode!r}, expected "
            "mode 'jit': pmap keeps all of the state on every device"
        )


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
    """Hint at what was meant by the unknown `path`: a key, or the keys of a section."""
    if hint := nearest(path, KEYS, paths=True):
        return hint
    section = path.rpartition(".")[0]
    while section and not _keys_below(section):
        section = section.rpartition(".")[0]
    if section:
        return f", expected one of {', '.join(_keys_below(section))} in {section!r}"
    return "; python -m nfnet_jax.config lists the keys"


def _keys_below(section: str) -> list[str]:
    prefix = f"{section}."
    return [key.removeprefix(prefix) for key in KEYS if key.startswith(prefix)]


def override(config: ConfigDict, values: Mapping[str, Any]) -> None:
    """Sets keys by path, {"optim.learning_rate": 0.1, ...}; raises UserError for an
    unknown key or a value of another type."""
    for path, value in values.items():
        check_key(path)
        try:
            config.update_from_flattened_dict({path: value})
        except TypeError as error:
            raise KEYS[path].refusal(path, value) from error


def override_by_text(config: ConfigDict, path: str, text: str) -> None:
    """Sets the key `path` to the value that `text` writes, as a flag does; raises
    UserError for an unknown key or a text of no such value."""
    check_key(path)
    try:
        value = KEYS[path].read(text)
    except ValueError as error:
        raise KEYS[path].refusal(path, text) from error
    override(config, {path: value})


def leaves(config: ConfigDict | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by path: {"optim.learning_rate": 0.1, ...}."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def model_overrides(config: ConfigDict) -> dict[str, Any]:
    """Returns the options that `config.model` sets, as `create_model` takes them."""
    own = ("name", "num_classes", "weights")
    return {k: v for k, v in config.model.items() if k not in own and v is not None}


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as nested dicts of what JSON can hold; tuples become lists."""
    return {
        name: to_json(value)
        if isinstance(value, ConfigDict)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in config.items()
    }


def from_json(values: dict[str, Any]) -> ConfigDict:
    """Returns the config of which `to_json` made `values`; absent keys get defaults.

    Raises:
      UserError: a key that this version does not have, or a value of the wrong type.
    """
    config = base_config()
    for path, value in leaves(values).items():
        override(config, {path: tuple(value) if isinstance(value, list) else value})
    return config
