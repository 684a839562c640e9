"""Lists all config keys with their defaults, meanings and valid values.

    python -m nfnet_jax.config

A config file sets what differs; the flag --config.KEY=VALUE overrides it.
"""

from nfnet_jax import cli
from nfnet_jax.config import base_config
from nfnet_jax.config.help import key_table


def main(argv: list[str]) -> None:
    """Prints two lines or more a key."""
    cli.parse_flags(argv, about=__doc__)
    print(key_table(base_config()))


if __name__ == "__main__":
    cli.run(main)
