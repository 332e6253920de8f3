"""From organ labels to the classes of a network that tells only some organs apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hnseg.organs import ORGANS, Organ


def to_classes(labels: Tensor, merge: Tensor, organs: Sequence[Organ]) -> tuple[Tensor, Tensor]:
    """Labels as classes, and the class that each class counts as (C,), where class n + 1 is ``organs[n]``.

    ``labels``: organ labels, merged; ``merge`` (31,): the label that each label counts as. Other organs are background.
    A union of which the network tells only a part counts as not drawn: where in it that part lies is unknown.
    """
    told = torch.tensor([0, *(organ.label for organ in organs)], device=merge.device)
    unknown = torch.ones(len(ORGANS) + 1, dtype=torch.bool, device=merge.device)
    unknown[told] = False
    class_of = torch.zeros(len(ORGANS) + 1, dtype=torch.int64, device=merge.device)
    class_of[told] = torch.arange(len(told), device=merge.device)
    class_of[merge[unknown]] = 0
    return class_of[labels.long()], class_of[merge[told]]
