"""Images that cannot be decoded: each is named once, too many stop the run."""

import logging

from nfnet_jax.utils.errors import UserError

_LISTED = 20
_logger = logging.getLogger(__name__)


class BadImages:
    """The broken images of one split of `examples`.

    `max_fraction` of them, `config.data.max_bad_fraction`, are passed over.
    """

    def __init__(self, split: str, examples: int, max_fraction: float):
        self._split, self._examples = split, examples
        self._max_fraction = max_fraction
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, name: str, reason: str) -> None:
        """Warns of an image, the first time that it is added.

        Raises:
          UserError: the fraction of broken images is too large; it lists them.
        """
        if name in self._reasons:
            return
        self._reasons[name] = reason
        _logger.warning("skipped %s: %s", name, reason)
        if len(self) > self._max_fraction * self._examples:
            raise self.error()

    def add_all(self, reasons: dict[str, str]) -> None:
        """As `add`, for all that a split has, so that an error can list them all."""
        for name, reason in reasons.items():
            _logger.warning("skipped %s: %s", name, reason)
        self._reasons |= reasons
        if len(self) > self._max_fraction * self._examples:
            raise self.error()

    def error(self) -> UserError:
        """One line that lists the images found so far."""
        listed = [f"{name} ({why})" for name, why in self._reasons.items()][:_LISTED]
        more = len(self) - len(listed)
        return UserError(
            f"{len(self)} of {self._examples:,} images of {self._split} cannot be "
            f"decoded, more than data.max_bad_fraction ({self._max_fraction:g}): "
            f"{'; '.join(listed)}{f' and {more} more' if more else ''}"
        )
