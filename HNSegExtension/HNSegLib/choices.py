"""What a user chooses before a segmentation, as it is saved in the scene. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hnseg.organs import BY_NAME
from HNSegLib.merging import MergePolicy

DEVICES = ("auto", "cpu", "cuda")
MR_REFERENCE = "MR"
"""Name of the node reference to the MR volume."""

_DEFAULT, _ALL = "default", "all"


@dataclass(frozen=True, slots=True)
class Choices:
    """``model`` empty: the one that ships; ``organs`` empty: all; ``mr_registered``: the MR already lies on the CT."""

    model: str = ""
    organs: tuple[str, ...] = ()
    policy: MergePolicy = MergePolicy.REPLACE
    protect: bool = True
    device: str = "auto"
    mr_registered: bool = False

    @classmethod
    def from_parameters(cls, parameter: Callable[[str], str | None]) -> Choices:
        """From strings by name. What is absent, or unknown because another version wrote it, takes its default."""
        given = {name: parameter(name) or default for name, default in PARAMETERS.items()}
        known = tuple(name for name in given["Organs"].split(",") if name in BY_NAME)
        policies = {policy.value: policy for policy in MergePolicy}
        return cls(
            model="" if given["Model"] == _DEFAULT else given["Model"],
            organs=known,
            policy=policies.get(given["MergePolicy"], MergePolicy.REPLACE),
            protect=given["Protect"] != "0",
            device=given["Device"] if given["Device"] in DEVICES else "auto",
            mr_registered=given["MRRegistered"] == "1",
        )

    def to_parameters(self) -> dict[str, str]:
        """Strings by name, never empty: Slicer takes an empty parameter for a missing one."""
        return {
            "Model": self.model or _DEFAULT,
            "Organs": ",".join(self.organs) or _ALL,
            "MergePolicy": self.policy.value,
            "Protect": "1" if self.protect else "0",
            "Device": self.device,
            "MRRegistered": "1" if self.mr_registered else "0",
        }


PARAMETERS = Choices().to_parameters()
"""Every parameter's name and default."""
