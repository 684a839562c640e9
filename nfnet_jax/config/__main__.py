"""Lists all config keys with their defaults, meanings and valid values.

    python -m nfnet_jax.config

A config file sets what differs; the flag --config.KEY=VALUE overrides it.
"""

from nfnet_jax import cli
from nfnet_jax.config import base_config


def main(argv: list[str]) -> None:
    """Prints two lines or more for each key."""
    cli.parse(argv, __doc__)
    print(cli.key_table(base_config()))


if __name__ == "__main__":
    cli.run(main)
