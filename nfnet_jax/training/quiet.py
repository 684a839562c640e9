"""What Orbax says besides what it raises."""

import contextlib
import logging
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def only_raised() -> Iterator[None]:
    """Leaves a failed write to the exception that Orbax raises for it.

    Its log tells the same with a traceback; and writes that fail after the first one
    report to an event loop that has ended with it, once for each array.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook

    def tell(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logger.addFilter(_is_not_raised)
    sys.unraisablehook = tell
    try:
        yield
    finally:
        sys.unraisablehook = hook
        logger.removeFilter(_is_not_raised)


def _is_not_raised(record: logging.LogRecord) -> bool:
    """Whether a record tells more than an exception that Orbax raises later."""
    return not (record.exc_info and "orbax" in record.pathname)
