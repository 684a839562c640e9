"""Published limits of accelerators, to predict what a step would take there."""

from typing import NamedTuple

UTILIZATION = 0.35
"""Assumed share of the peak that convolutions reach."""


class Hardware(NamedTuple):
    """Of one chip: dense bfloat16 FLOP/s, bytes of memory, bytes per second that it can
    send, within an island of so many chips and beyond it."""

    flops: float
    memory: float
    near: float
    island: int
    far: float


HARDWARE = {
    "A100 80GB": Hardware(312e12, 80e9, 300e9, 8, 25e9),
    "H100 SXM": Hardware(989e12, 80e9, 450e9, 8, 50e9),
    "TPU v4": Hardware(275e12, 32e9, 300e9, 4096, 300e9),
    "TPU v5e": Hardware(197e12, 16e9, 200e9, 256, 200e9),
    "TPU v5p": Hardware(459e12, 95e9, 600e9, 8960, 600e9),
}
"""From the makers' data sheets; bandwidths in one direction. GPUs: NVLink within a
machine of 8, between machines an adapter of 200 or 400 Gbit/s for each."""


class Prediction(NamedTuple):
    """Seconds of a step, and whether its memory fits."""

    computing: float
    sending: float
    fits: bool

    @property
    def seconds(self) -> float:
        """As if nothing were sent while something is computed."""
        return self.computing + self.sending


def predict(
    chip: Hardware,
    flops: float,
    sent: float,
    memory: float,
    devices: int,
    dtype: str = "bfloat16",
) -> Prediction:
    """What a step takes on `devices` chips, by arithmetic alone.

    `flops` of all devices together, `sent` and `memory` in bytes of each. float32 runs
    at half of the peak, which is that of TF32.
    """
    peak = chip.flops / (1 if dtype == "bfloat16" else 2)
    speed = chip.near if devices <= chip.island else chip.far
    return Prediction(
        flops / devices / (peak * UTILIZATION), sent / speed, memory <= chip.memory
    )
