"""Every shipped system, narrow and for two steps: it trains, and its bundle segments through the one predictor."""

import csv
import dataclasses
from functools import cache, partial
from pathlib import Path

import pytest
import torch

from hnseg.image.files import read_volume
from hnseg.inference.segment import segment
from hnseg.models.bundle import open_bundle
from hnseg.models.networks import build_network
from hnseg.organs import find_organ
from hnseg_training import sources
from hnseg_training.cases import prepare
from hnseg_training.cli import main
from hnseg_training.config import AugmentationConfig, CohortConfig, TrainConfig, load_config, smoke, with_steps
from hnseg_training.data import PatchData
from hnseg_training.export import export
from hnseg_training.fit import averaged_weights, fit
from hnseg_training.module import _overlaps, channels
from hnseg_training.patches import PatchDataset
from hnseg_training.systems import transfer
from hnseg_training.validate import validate

CONFIGS = sorted((Path(__file__).parents[2] / "HNSegTraining" / "configs").glob("*.yaml"))
each = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own advice on workers and devices


def silent(_fraction, _text):
    pass


def tiny(path, cohort):
    """The smoke run of a configuration on the tiny cohort, for two steps on patches of 32³ or a few slices."""
    config = with_steps(smoke(load_config(path)), 2)
    arguments = dict(config.network.arguments)
    width = 64 if config.network.name in ("nnunet", "resnet18_unet") else 32  # norms need two voxels at the bottom
    if "patch_kji" in arguments:
        arguments["patch_kji"] = [32, 32, 32]
    return dataclasses.replace(
        config,
        cohorts=(cohort,),
        validation=(cohort,),
        preprocess=dataclasses.replace(config.preprocess, spacing_mm=(4.0, 4.0, 5.0)),
        network=dataclasses.replace(config.network, arguments=arguments),
        patch=dataclasses.replace(
            config.patch,
            size_kji=(config.patch.size_kji[0], 32, width),
            predict_kji=config.patch.predict_kji and (8, 32, 32),
        ),
    )


@each
def test_the_real_network_takes_the_patches_of_training_and_prediction(path):
    config = load_config(path)
    with torch.device("meta"):
        network = build_network(config.network.name, **channels(config), **config.network.arguments)
    for patch in (config.patch.size_kji, config.patch.predict_kji or config.patch.size_kji):
        assert all(n % d == 0 for n, d in zip(patch, network.divisor, strict=True))
        assert network.eval()(torch.zeros(1, channels(config)["in_channels"], *patch, device="meta")).shape[2:] == patch


@each
def test_every_system_trains_and_its_bundle_segments(path, tiny_cohort, tmp_path):
    config = tiny(path, tiny_cohort)
    fit(config, tmp_path / "run", on_progress=silent)
    bundle = export(config, tmp_path / "run", tmp_path / config.name)
    ct = read_volume(Path(tiny_cohort.path) / "case_01" / "case_01_IMG_CT.nrrd")
    result = segment(ct, bundle=bundle)
    assert result.labels.grid.is_close(ct.grid)
    assert {finding.organ for finding in result.organs if finding.ml} <= set(bundle.metadata.organs)
    with next((tmp_path / "run" / "log").rglob("metrics.csv")).open() as file:
        logged = {name for row in csv.DictReader(file) for name, value in row.items() if value}
    assert {"loss", "data_wait"} <= logged
    assert not config.optimisation.validate_every or {"val_loss", "val_dsc"} <= logged
    assert (tmp_path / "run" / "organ_patches.csv").exists()
    assert (tmp_path / "run" / "curves.svg").exists()


@each
def test_every_trained_parameter_has_a_gradient_which_several_processes_wait_for(path, tiny_cohort):
    config = tiny(path, tiny_cohort)
    network = build_network(config.network.name, **channels(config), **config.network.arguments)
    size = (2, channels(config)["in_channels"], *config.patch.size_kji)
    network(torch.randn(size, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    waiting = [name for name, weight in network.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not waiting


def test_a_system_of_ct_alone_is_never_shown_an_mr(tiny_cohort, tmp_path):
    config = tiny(next(path for path in CONFIGS if path.stem == "res3dunet"), tiny_cohort)
    data = PatchData(config, tmp_path / "run", done=0, on_progress=silent)
    assert all(not patch["image"][:, -2:].any() for patch in data.val_dataloader())
    fit(with_steps(config, 1), tmp_path / "run", on_progress=silent)
    bundle = export(config, tmp_path / "run", tmp_path / config.name)
    assert not bundle.metadata.takes_mr
    assert "the network takes no MR" in (bundle.folder / "docs" / "README.md").read_text()
    scores = validate(bundle, config.validation, output=tmp_path / "scores.json", cases=1, on_progress=silent)
    assert list(scores) == ["hanseg, CT"]


def test_an_mr_that_is_always_dropped_is_not_taken():
    config = TrainConfig(name="x", augmentation=AugmentationConfig(mr_dropout=1.0))
    assert not config.preprocess.takes_mr
    assert TrainConfig(name="x").preprocess.takes_mr


@pytest.fixture(scope="module")
def one_phantom():
    """Every phantom of a smoke run is the same one, rendered once."""
    made = cache(partial(sources.phantom_case, 0, CohortConfig()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "phantom_case", lambda seed, cohort: dataclasses.replace(made(), name=f"phantom-{seed}"))
        yield


@pytest.mark.slow
@each
def test_a_smoke_run_from_the_command_line_leaves_a_checkpoint(path, one_phantom, tmp_path):
    assert main(["fit", "--config", str(path), "--smoke", "--runs", str(tmp_path)]) == 0
    assert (tmp_path / f"{load_config(path).name}-smoke" / "checkpoints" / "last.ckpt").exists()


def test_every_command_but_cross_validation_has_a_smoke_run(one_phantom, tmp_path, capsys):
    configs = {path.stem: path for path in CONFIGS}

    def smoke_run(command, *options, config="resunet2d"):
        assert main([command, "--config", str(configs[config]), "--smoke", "--runs", str(tmp_path), *options]) == 0
        return capsys.readouterr().out

    run = tmp_path / "resunet2d-smoke"
    last = run / "checkpoints" / "last.ckpt"
    assert smoke_run("fit", "--steps", "2").strip() == str(last)
    assert torch.load(last, weights_only=True)["global_step"] == 2
    smoke_run("resume")
    assert torch.load(last, weights_only=True)["global_step"] == 4
    scores = tmp_path / "scores.json"
    smoke_run("validate", "--json", str(scores))
    bundle = Path(smoke_run("export", "--scores", str(scores), "-o", str(tmp_path / "bundle")).strip())
    assert open_bundle(bundle).metadata.name == "resunet2d-smoke"
    assert "## Scores on unseen cases" in (bundle / "docs" / "README.md").read_text()
    assert "| resunet2d-smoke | 1 |" in smoke_run("compare")
    assert list((tmp_path / "comparison").glob("*.html"))
    assert Path(smoke_run("transfer", config="res3dunet-transfer").strip()).exists()


@pytest.mark.slow
def test_a_smoke_cross_validation_pools_the_patients_of_both_folds(one_phantom, tmp_path, capsys):
    config = next(path for path in CONFIGS if path.stem == "resunet2d")
    assert main(["cross-validate", "--config", str(config), "--smoke", "--runs", str(tmp_path)]) == 0
    assert "| resunet2d-smoke | 4 |" in capsys.readouterr().out
    output = tmp_path / "resunet2d-smoke-cross-validation"
    (page,) = output.glob("phantom-ct.html")
    assert page.read_text().count("data:image/svg") >= 2
    curves = sorted(tmp_path.glob("resunet2d-smoke-fold*/curves.svg"))
    assert len(curves) == 2


@each
def test_left_stays_left_in_every_system_s_patches(path, tiny_cohort, tmp_path):
    config = tiny(path, tiny_cohort)
    patches = PatchDataset(config, prepare(config, tmp_path, on_progress=silent))
    left, right = (find_organ(name).label for name in ("Parotid_L", "Parotid_R"))
    both = 0
    for patch, _ in zip(patches, range(12), strict=False):
        columns = [(patch["labels"] == label).nonzero()[:, 2].float() for label in (left, right)]
        if all(len(column) for column in columns):
            both += 1
            assert columns[0].mean() > columns[1].mean()
    assert both


def test_organs_that_no_validation_patch_shows_do_not_lower_its_dsc():
    logits = torch.zeros(1, 4, 1, 2, 3)
    logits[0, 1, 0, 0], logits[0, 0, 0, 1] = 30.0, 30.0
    labels = torch.tensor([[[[1, 1, 1], [0, 0, 0]]]])
    overlap, predicted, expected = _overlaps(logits, labels, torch.arange(4)[None])
    assert expected.tolist() == [3, 3, 0, 0]
    assert (2 * overlap / (predicted + expected))[1] == pytest.approx(1.0)


def test_transfer_to_other_organs_keeps_the_first_half_of_the_layers(tiny_cohort, tmp_path):
    config = tiny(next(path for path in CONFIGS if path.stem == "res3dunet-transfer"), tiny_cohort)
    checkpoint = transfer(config, tmp_path, smoke=True, on_progress=silent)
    source = tmp_path / f"{config.name}-source" / "checkpoints" / "last.ckpt"
    before, after = averaged_weights(source), averaged_weights(checkpoint)
    like = {name for name in before if before[name].shape == after[name].shape}
    same = {name for name in like if torch.allclose(before[name], after[name], rtol=0, atol=1e-6)}  # averages round
    changed = set(before) - same
    assert len(same) > 5
    assert len(changed) > 5
    first, last = next(iter(before)), list(before)[-1]
    assert first in same
    assert after[last].shape[0] == 4, "background and three organs"
