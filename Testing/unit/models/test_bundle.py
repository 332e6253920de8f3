"""The bundle: written, opened, and refused when anything about it is off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hnseg.errors import ConfigError, InputError, ModelError, OutputError
from hnseg.models.bundle import Bundle, open_bundle, verify_bundle, write_bundle
from hnseg.models.calibration import Calibration
from hnseg.models.metadata import (
    BundleMetadata,
    FineStage,
    InputLimits,
    NetworkSettings,
    PostprocessSettings,
    monai_metadata,
)
from hnseg.models.networks import build_network
from hnseg.models.places import MODELS_VARIABLE, search_path
from hnseg.preprocessing import PreprocessSettings

ARGUMENTS = {"in_channels": 4, "out_channels": 3, "filters": [4, 6, 8], "factor": [1, 2, 2]}
METADATA = BundleMetadata(
    name="tiny-model",
    title="A tiny model",
    version="1.2.3",
    licence="Apache-2.0",
    training_data="None: random weights.",
    network=NetworkSettings("subpixel_unet", ARGUMENTS),
    preprocess=PreprocessSettings(spacing_mm=(2.0, 2.5, 3.0)),
    patch_kji=(8, 16, 24),
    overlap=0.25,
    labels=("background", "Brainstem", "Parotid_L"),
    trained_organs=("Brainstem",),
    taught_by={"Brainstem": ("phantom", "patient union")},
    postprocess=PostprocessSettings(parts={"Brainstem": 2}, ranges_ml={"Brainstem": (10.0, 40.0)}),
    limits=InputLimits(body_median_hu=(-50.0, 90.0)),
    calibration=Calibration(-3.0, 4.0, 1.0, -2.0, 0.55, {"openkbp": 31}),
    organ_centres_mm={"Brainstem": (0.0, 12.5, 30.0)},
)


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return build_network("subpixel_unet", **ARGUMENTS).state_dict()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(
        tmp_path / "tiny-model", metadata=METADATA, state_dict=state(), card="# Tiny\n", licence_text="Apache-2.0\n"
    )


def rewrite(bundle: Bundle, change: Callable[[dict[str, object]], object]) -> None:
    path = bundle.folder / "configs" / "metadata.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def seal(bundle: Bundle, name: str) -> None:
    """Make a changed file official, as a dishonest publisher could."""
    digest = hashlib.sha256((bundle.folder / name).read_bytes()).hexdigest()
    rewrite(bundle, lambda document: document["hnseg"]["files"].__setitem__(name, digest))  # type: ignore[index]


def test_metadata_come_back_as_they_were_with_the_digest_of_every_file(bundle: Bundle) -> None:
    opened = open_bundle(bundle.folder)
    assert replace(opened.metadata, files={}) == METADATA
    assert set(opened.metadata.files) == {
        "configs/inference.json", "models/model.safetensors", "docs/README.md", "LICENSE",
    }  # fmt: skip
    for name, digest in opened.metadata.files.items():
        assert hashlib.sha256((bundle.folder / name).read_bytes()).hexdigest() == digest
    assert opened.card == "# Tiny\n"


def test_pictures_of_the_card_are_files_of_the_bundle_like_any_other(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "m",
        metadata=METADATA,
        state_dict=state(),
        card="![a](worst/a.png)\n",
        licence_text="-",
        documents={"worst/a.png": b"picture"},
    )
    assert (open_bundle(bundle.folder).folder / "docs" / "worst" / "a.png").read_bytes() == b"picture"
    (bundle.folder / "docs" / "worst" / "a.png").write_bytes(b"another")
    with pytest.raises(ModelError, match=r"a\.png .* not the file that was published"):
        open_bundle(bundle.folder)


def test_the_network_comes_back_with_its_weights_to_half_precision(bundle: Bundle) -> None:
    network, before = bundle.load_network(), state()
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, before[name].half().float(), rtol=0, atol=0)


def test_weights_can_be_kept_in_full_precision(tmp_path: Path) -> None:
    kept = write_bundle(
        tmp_path / "m", metadata=METADATA, state_dict=state(), card="", licence_text="", half=False
    ).load_network()
    before = state()
    for name, tensor in kept.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_tensor_with_two_names_is_stored_once(bundle: Bundle) -> None:
    weights = load_file(bundle.folder / "models" / "model.safetensors")
    assert len(weights) < len(state())
    parameters = build_network("subpixel_unet", **ARGUMENTS).parameters()
    assert sum(tensor.numel() for tensor in weights.values()) == sum(p.numel() for p in parameters)


def test_labels_and_trained_organs_follow_the_organ_table() -> None:
    assert METADATA.label_values == (0, 5, 27)
    assert METADATA.organs == ("Brainstem",)
    assert replace(METADATA, trained_organs=()).organs == ("Brainstem", "Parotid_L")


def test_the_metadata_carry_the_keys_of_monais_schema(bundle: Bundle) -> None:
    document = json.loads((bundle.folder / "configs" / "metadata.json").read_text())
    required = {
        "schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version",
        "required_packages_version", "task", "description", "authors", "copyright", "network_data_format",
    }  # fmt: skip
    assert required <= document.keys()
    image = document["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == len(image["channel_def"]) == 4
    assert document["network_data_format"]["outputs"]["pred"]["channel_def"]["2"] == "Parotid_L"


def test_monai_builds_the_same_network_from_the_bundles_own_configuration(bundle: Bundle) -> None:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(bundle.folder / "configs" / "inference.json")
    parser["bundle_root"] = str(bundle.folder)
    parser.get_parsed_content("load_weights")
    network = parser.get_parsed_content("network_def").eval()
    image = torch.randn(1, 4, 8, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(network(image), bundle.load_network()(image))
    assert parser.get_parsed_content("inferer").roi_size == [8, 16, 24]


def test_a_name_is_found_on_the_search_path_and_a_near_one_is_suggested(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(bundle.folder.parent))
    assert search_path()[0] == bundle.folder.parent
    assert open_bundle("tiny-model").folder == bundle.folder
    with pytest.raises(ModelError, match="did you mean 'tiny-model'"):
        open_bundle("tiny-modle")


def test_the_digest_changes_with_the_metadata(bundle: Bundle) -> None:
    before = bundle.digest
    rewrite(bundle, lambda document: document["hnseg"].__setitem__("overlap", 0.5))  # type: ignore[attr-defined]
    assert open_bundle(bundle.folder).digest != before


@pytest.mark.parametrize("name", ["models/model.safetensors", "LICENSE", "docs/README.md", "configs/inference.json"])
def test_a_tampered_file_is_refused(bundle: Bundle, name: str) -> None:
    content = bytearray((bundle.folder / name).read_bytes())
    content[-1] ^= 1
    (bundle.folder / name).write_bytes(content)
    with pytest.raises(ModelError, match="not the file that was published"):
        verify_bundle(bundle.folder)


@pytest.mark.parametrize("name", ["models/model.safetensors", "LICENSE"])
def test_a_missing_file_is_named(bundle: Bundle, name: str) -> None:
    (bundle.folder / name).unlink()
    with pytest.raises(ModelError, match=f"lacks {name}"):
        verify_bundle(bundle.folder)


def test_a_file_that_is_not_listed_is_refused(bundle: Bundle) -> None:
    (bundle.folder / "scripts").mkdir()
    (bundle.folder / "scripts" / "run.py").write_text("print('hello')")
    with pytest.raises(ModelError, match=r"does not list: scripts/run\.py"):
        verify_bundle(bundle.folder)


@pytest.mark.parametrize("name", ["models/model.pt", "model.PTH", "deep/er/x.ckpt", "models/weights.pkl"])
def test_a_pickle_is_refused_even_if_it_is_listed_with_its_digest(bundle: Bundle, name: str) -> None:
    (bundle.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle.folder / name).write_bytes(b"\x80\x04.")
    seal(bundle, name)
    with pytest.raises(ModelError, match="safetensors weights only"):
        verify_bundle(bundle.folder)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/passwd", "docs/../../x", "C:\\x", ""])
def test_a_listed_name_that_leaves_the_folder_is_refused(bundle: Bundle, name: str) -> None:
    rewrite(bundle, lambda document: document["hnseg"]["files"].__setitem__(name, "00"))  # type: ignore[index]
    with pytest.raises(ModelError, match="leaves its folder"):
        verify_bundle(bundle.folder)


def test_a_link_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("Apache-2.0\n")
    (bundle.folder / "LICENSE").unlink()
    (bundle.folder / "LICENSE").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="is a link"):
        verify_bundle(bundle.folder)


def test_weights_of_another_network_are_refused_with_the_names_that_differ(bundle: Bundle) -> None:
    weights = load_file(bundle.folder / "models" / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if "output_block" not in name}
    save_file({**weights, "stray": torch.zeros(2)}, bundle.folder / "models" / "model.safetensors")
    seal(bundle, "models/model.safetensors")
    with pytest.raises(ModelError, match=r"do not fit its network .*output_block.* is missing"):
        open_bundle(bundle.folder).load_network()


def test_weights_that_are_no_safetensors_are_refused(bundle: Bundle) -> None:
    (bundle.folder / "models" / "model.safetensors").write_bytes(b"not at all")
    seal(bundle, "models/model.safetensors")
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        open_bundle(bundle.folder).load_network()


def test_an_unknown_network_is_refused_with_the_nearest_one(bundle: Bundle) -> None:
    rewrite(bundle, lambda document: document["hnseg"]["network"].__setitem__("name", "subpixel_net"))  # type: ignore[index]
    with pytest.raises(ModelError, match="did you mean 'subpixel_unet'"):
        open_bundle(bundle.folder).load_network()


def test_a_patch_that_the_network_cannot_take_is_refused(bundle: Bundle) -> None:
    rewrite(bundle, lambda document: document["hnseg"].__setitem__("patch_kji", [8, 16, 20]))  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"no multiple of \(4, 8, 8\)"):
        open_bundle(bundle.folder).load_network()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format", 99, "update HNSeg"),
        ("name", "../x", "name is made of"),
        ("labels", ["background", "Spleen"], "No organ is called"),
        ("labels", ["Brainstem"], "labels begins with"),
        ("patch_kji", [1, 2], "needs 3 values"),
        ("overlapp", 0.5, "did you mean 'overlap'"),
    ],
)
def test_metadata_that_make_no_sense_are_refused_with_the_reason(
    bundle: Bundle, key: str, value: object, says: str
) -> None:
    rewrite(bundle, lambda document: document["hnseg"].__setitem__(key, value))  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=says):
        verify_bundle(bundle.folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_folder_with_other_metadata_is_no_bundle(bundle: Bundle, content: str) -> None:
    (bundle.folder / "configs" / "metadata.json").write_text(content)
    with pytest.raises(ModelError, match=r"metadata\.json"):
        verify_bundle(bundle.folder)


def test_a_folder_without_metadata_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model bundle"):
        open_bundle(tmp_path)


def test_weights_that_do_not_fit_are_not_written_and_the_old_bundle_stays(bundle: Bundle) -> None:
    before = bundle.digest
    with pytest.raises(ModelError, match="do not fit"):
        write_bundle(bundle.folder, metadata=METADATA, state_dict={"stray": torch.zeros(2)}, card="", licence_text="")
    assert verify_bundle(bundle.folder).digest == before
    assert [entry.name for entry in bundle.folder.parent.iterdir()] == ["tiny-model"]


def test_a_bundle_can_be_written_over_an_older_one(bundle: Bundle) -> None:
    newer = replace(METADATA, version="2.0.0")
    write_bundle(bundle.folder, metadata=newer, state_dict=state(), card="# New\n", licence_text="")
    assert open_bundle(bundle.folder).metadata.version == "2.0.0"
    assert [entry.name for entry in bundle.folder.parent.iterdir()] == ["tiny-model"]


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "m", metadata=METADATA, state_dict=state(), card="", licence_text="")


def test_post_processing_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one part"):
        PostprocessSettings(parts={"Brainstem": 0})
    with pytest.raises(ConfigError, match="pairs"):
        PostprocessSettings(ranges_ml={"Brainstem": (3.0, 2.0)})
    with pytest.raises(ConfigError, match="at least 0"):
        PostprocessSettings(body_margin_mm=-1.0)


def test_writing_does_not_change_the_callers_tensors(tmp_path: Path) -> None:
    weights = state()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    write_bundle(tmp_path / "m", metadata=METADATA, state_dict=weights, card="", licence_text="")
    assert all(np.array_equal(weights[name], before[name]) for name in weights)


FINE_ARGUMENTS = {"in_channels": 4, "out_channels": 2, "filters": [4, 4, 6], "factor": [1, 1, 1]}
FINE = FineStage(
    name="cochleas",
    network=NetworkSettings("subpixel_unet", FINE_ARGUMENTS),
    preprocess=PreprocessSettings(spacing_mm=(0.8, 0.8, 0.8)),
    patch_kji=(8, 8, 8),
    labels=("background", "Cochlea_L"),
)


def fine_state(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return build_network("subpixel_unet", **FINE_ARGUMENTS).state_dict()


def test_a_bundle_with_folds_and_a_finer_stage_comes_back_whole(tmp_path: Path) -> None:
    network = replace(METADATA.network, members=2)
    stage = replace(FINE, network=replace(FINE.network, members=3))
    metadata = replace(METADATA, network=network, stages=(stage,))
    torch.manual_seed(6)
    second = build_network("subpixel_unet", **ARGUMENTS).state_dict()
    fine = [fine_state(seed) for seed in (1, 2, 3)]
    written = write_bundle(
        tmp_path / "m", metadata=metadata, state_dict=state(), others=[second, *fine], card="", licence_text=""
    )
    assert replace(written.metadata, files={}) == metadata
    assert {name for name in written.metadata.files if name.endswith(".safetensors")} == {
        "models/model-0.safetensors", "models/model-1.safetensors",
        "models/cochleas-0.safetensors", "models/cochleas-1.safetensors", "models/cochleas-2.safetensors",
    }  # fmt: skip
    assert written.metadata.organs == ("Brainstem", "Cochlea_L")
    first, looks_again = written.load_networks()
    alone = []
    for weights in fine:
        member = build_network("subpixel_unet", **FINE_ARGUMENTS).eval()
        member.load_state_dict({name: tensor.half().float() for name, tensor in weights.items()})
        alone.append(member)
    image = torch.randn(1, 4, 8, 8, 8)
    with torch.inference_mode():
        mean = torch.stack([torch.softmax(member(image), dim=1) for member in alone]).mean(dim=0)
        torch.testing.assert_close(torch.softmax(looks_again(image), dim=1), mean)
        assert first(torch.zeros(1, 4, 8, 16, 24)).shape == (1, 3, 8, 16, 24)


def test_a_second_look_with_an_mr_that_the_first_network_never_has_is_refused() -> None:
    alone = replace(METADATA.preprocess, takes_mr=False)
    with pytest.raises(ConfigError, match="'cochleas' takes an MR, the first network none; train both"):
        replace(METADATA, preprocess=alone, stages=(FINE,))


@pytest.mark.parametrize(("takes_mr", "modality"), [(True, "CT, MR"), (False, "CT")])
def test_a_bundle_says_whether_its_network_takes_an_mr(takes_mr: bool, modality: str, tmp_path: Path) -> None:
    metadata = replace(METADATA, preprocess=replace(METADATA.preprocess, takes_mr=takes_mr))
    written = write_bundle(tmp_path / "m", metadata=metadata, state_dict=state(), card="", licence_text="")
    assert open_bundle(written.folder).metadata.takes_mr is takes_mr
    versions = dict.fromkeys(("monai", "torch", "numpy", "hnseg", "safetensors"), "1")
    (image,) = monai_metadata(metadata, versions=versions)["network_data_format"]["inputs"].values()
    assert image["modality"] == modality


def test_weights_for_every_network_are_asked_for_by_name(tmp_path: Path) -> None:
    metadata = replace(METADATA, stages=(FINE,))
    with pytest.raises(ModelError, match=r"models/model.safetensors, models/cochleas.safetensors; got 1"):
        write_bundle(tmp_path / "m", metadata=metadata, state_dict=state(), card="", licence_text="")


def test_a_bundle_that_lacks_a_stages_weights_is_refused(tmp_path: Path) -> None:
    metadata = replace(METADATA, stages=(FINE,))
    bundle = write_bundle(
        tmp_path / "m", metadata=metadata, state_dict=state(), others=[fine_state(1)], card="", licence_text=""
    )
    (bundle.folder / "models" / "cochleas.safetensors").unlink()
    rewrite(bundle, lambda document: document["hnseg"]["files"].pop("models/cochleas.safetensors"))  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="lacks models/cochleas"):
        open_bundle(bundle.folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../up"}, {"name": "model"}, {"name": "model-0"}, {"organs": ("Brainstem",)}, {"margin_mm": -1.0},
        {"labels": ("Cochlea_L",)}, {"labels": ("background", "Spleen")},
    ],
)  # fmt: skip
def test_an_impossible_stage_is_refused_when_it_is_made(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(FINE, **changes)  # type: ignore[arg-type]


def test_two_stages_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="same name"):
        replace(METADATA, stages=(FINE, FINE))
