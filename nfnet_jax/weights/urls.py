"""Where published weights are."""

import dataclasses

from nfnet_jax.utils.download import RemoteFile
from nfnet_jax.utils.errors import UserError, nearest

_DEEPMIND = "https://storage.googleapis.com/dm-nfnets"
_TIMM = "https://huggingface.co/timm"

"""Of pixels scaled to [0, 1]: what all these weights expect images normalized with."""


@dataclasses.dataclass(frozen=True)
class Published:
    """Weights of the variant `model` of this project."""

    model: str
    file: RemoteFile


def _deepmind(level: int) -> Published:
    return Published(f"nfnet_f{level}", RemoteFile(f"{_DEEPMIND}/F{level}_haiku.npz"))


def _timm(model: str, repository: str) -> Published:
    url = f"{_TIMM}/{repository}/resolve/main/model.safetensors"
    return Published(model, RemoteFile(url, filename=f"{repository}.safetensors"))


PUBLISHED = {
    **{f"nfnet_f{n}": _deepmind(n) for n in range(7)},
    **{
        f"dm_nfnet_f{n}": _timm(f"dm_nfnet_f{n}", f"dm_nfnet_f{n}.dm_in1k")
        for n in range(7)
    },
    "nfnet_l0": _timm("nfnet_l0", "nfnet_l0.ra2_in1k"),
    "eca_nfnet_l0": _timm("eca_nfnet_l0", "eca_nfnet_l0.ra2_in1k"),
    "eca_nfnet_l1": _timm("eca_nfnet_l1", "eca_nfnet_l1.ra2_in1k"),
    "eca_nfnet_l2": _timm("eca_nfnet_l2", "eca_nfnet_l2.ra3_in1k"),
    "timm_nf_regnet_b1": _timm("timm_nf_regnet_b1", "nf_regnet_b1.ra2_in1k"),
    "timm_nf_resnet50": _timm("timm_nf_resnet50", "nf_resnet50.ra2_in1k"),
}
"""By name; nfnet_f* in the naming of the published Haiku code, others in timm's.

No publisher states checksums, so none is checked here.
"""


def find_published(name: str, hint: str = "") -> Published:
    """The weights called `name`.

    Raises:
      UserError: unknown name; `hint` ends the message instead of the nearest one.
    """
    if name not in PUBLISHED:
        raise UserError(
            f"weights {name!r}: neither a file nor published, expected one of "
            f"{', '.join(PUBLISHED)}{hint or nearest(name, PUBLISHED)}"
        )
    return PUBLISHED[name]
