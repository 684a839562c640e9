"""GPUs as XLA describes them to its compiler, one `GpuTargetConfigProto` each.

Values of openxla/xla, `xla/backends/gpu/target_config/specs`; the cuDNN is the one that
jax installs.
"""

from typing import Any

_TEXT = """gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_memory}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: {l2}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  shared_memory_per_block_optin: {shared_memory_optin}
  cuda_compute_capability {{ major: {major} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
runtime_version {{ major: 12 minor: 9 }}
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""
_HOPPER: dict[str, Any] = {
    "shared_memory": 233472,
    "cores": 132,
    "fpus": 128,
    "l2": 52428800,
    "clock": 1.98,
    "shared_memory_optin": 232448,
    "major": 9,
}
GPUS: dict[str, dict[str, Any]] = {
    "a100": {
        "name": "NVIDIA A100-SXM4-80GB",
        "shared_memory": 167936,
        "cores": 108,
        "fpus": 64,
        "bandwidth": 2039040000000,
        "l2": 41943040,
        "clock": 1.41,
        "memory": 85100068864,
        "shared_memory_optin": 166912,
        "major": 8,
    },
    "h100": _HOPPER
    | {
        "name": "NVIDIA H100 80GB HBM3",
        "bandwidth": 3352320000000,
        "memory": 84942979072,
    },
    "h200": _HOPPER
    | {
        "name": "NVIDIA H200 141GB HBM3e",
        "bandwidth": 4800000000000,
        "memory": 151397597184,
    },
    "b200": _HOPPER
    | {
        "name": "NVIDIA B200",
        "cores": 148,
        "bandwidth": 7672320000000,
        "l2": 132644864,
        "clock": 1.965,
        "memory": 191514411008,
        "major": 10,
    },
}
"""Cards by their short names. `memory`: bytes, of the whole card."""


def config_text(name: str) -> str:
    """The `GpuTargetConfigProto` of a card of `GPUS`, in text form."""
    return _TEXT.format(**GPUS[name])
