"""Published limits of accelerators, and the time that a step would take there."""

from typing import NamedTuple

UTILIZATION = 0.35
"""Assumed share of the peak that convolutions reach."""


class Hardware(NamedTuple):
    """Limits of one chip.

    `flops`: dense bfloat16 FLOP/s. `memory`: bytes. `near`, `far`: bytes per second
    that it can send within an island of `island` chips, and beyond.
    """

    flops: float
    memory: float
    near: float
    island: int
    far: float


HARDWARE = {
    "A100 80GB": Hardware(312e12, 80e9, 300e9, 8, 25e9),
    "H100 SXM": Hardware(989e12, 80e9, 450e9, 8, 50e9),
    "H200": Hardware(989e12, 141e9, 450e9, 8, 50e9),
    "B200": Hardware(2250e12, 180e9, 900e9, 8, 50e9),
    "TPU v4": Hardware(275e12, 32e9, 300e9, 4096, 300e9),
    "TPU v5e": Hardware(197e12, 16e9, 200e9, 256, 200e9),
    "TPU v5p": Hardware(459e12, 95e9, 600e9, 8960, 600e9),
    "TPU v6e": Hardware(918e12, 32e9, 400e9, 256, 400e9),
    "TPU7x": Hardware(2307e12, 192e9, 600e9, 9216, 600e9),
}
"""Data sheets of the makers; bandwidths in one direction. GPUs: NVLink within a machine
of 8, between machines an adapter of 200 or 400 Gbit/s for each GPU."""


class StepTime(NamedTuple):
    """Predicted seconds of a step, and whether its memory fits."""

    computing: float
    sending: float
    fits: bool

    @property
    def seconds(self) -> float:
        """Sum of both, as if nothing were sent while something is computed."""
        return self.computing + self.sending


def predict(
    chip: Hardware,
    flops: float,
    sent: float,
    memory: float,
    devices: int,
    dtype: str = "bfloat16",
) -> StepTime:
    """Time of a step on `devices` chips, by arithmetic alone.

    `flops` are those of all devices together, `sent` and `memory` bytes of each. The
    peak of float32 is half of that of bfloat16: the rate of TF32.
    """
    peak = chip.flops / (1 if dtype == "bfloat16" else 2)
    speed = chip.near if devices <= chip.island else chip.far
    return StepTime(
        flops / devices / (peak * UTILIZATION), sent / speed, memory <= chip.memory
    )
