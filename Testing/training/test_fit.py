"""Training on a tiny cohort on disk: from files to a bundle, and on from where it was interrupted."""

import csv
import dataclasses
import os
import resource
import signal

import numpy as np
import pytest
import torch
import yaml

from hnseg.errors import ConfigError, DeviceError, InputError, OutputError, UnreadableFile
from hnseg.image.files import is_partial
from hnseg.inference.devices import network_type
from hnseg.organs import ORGANS, find_organ
from hnseg.plain import to_plain
from hnseg.preprocessing import PreprocessSettings
from hnseg_training.cases import prepare
from hnseg_training.cli import main
from hnseg_training.config import (
    AugmentationConfig,
    CohortConfig,
    LossConfig,
    NetworkConfig,
    OptimisationConfig,
    PatchConfig,
    TrainConfig,
    load_config,
    with_steps,
)
from hnseg_training.curves import read_series
from hnseg_training.export import export
from hnseg_training.fit import averaged_weights, fit
from hnseg_training.module import SegmentationModule
from hnseg_training.patches import PatchDataset
from hnseg_training.sources import case_loaders
from hnseg_training.teaching import Taught, write_taught
from hnseg_training.weights import best_checkpoint, starting_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own advice on workers and devices


@pytest.fixture
def config(tmp_path, write_patient):
    cohort = tmp_path / "cohort"
    write_patient(cohort / "case_01", organs=("Brainstem", "Parotid_L"))
    write_patient(cohort / "case_02", mr=False, organs=("Brainstem",))
    return TrainConfig(
        name="tiny",
        seed=5,
        cohorts=(CohortConfig(source="hanseg", path=str(cohort)),),
        preprocess=PreprocessSettings(spacing_mm=(4.0, 4.0, 5.0)),
        network=NetworkConfig(arguments={"filters": [4, 8, 8], "factor": [2, 2, 2]}),
        patch=PatchConfig(size_kji=(8, 16, 16)),
        augmentation=AugmentationConfig(affine_probability=0.5),
        optimisation=OptimisationConfig(steps=4, checkpoint_every=2, warmup_steps=1, loader_workers=0),
    )


def silent(_fraction, _text):
    pass


def test_a_cohort_on_disk_becomes_a_bundle_that_opens(config, tmp_path):
    fit(config, tmp_path / "run", on_progress=silent)
    bundle = export(config, tmp_path / "run", tmp_path / "tiny")
    network = bundle.load_network()
    trained = averaged_weights(tmp_path / "run" / "checkpoints" / "last.ckpt")
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(weight, trained[name], rtol=2e-3, atol=1e-4)  # float16 in the bundle
    assert bundle.metadata.patch_kji == (8, 16, 16)
    assert bundle.metadata.trained_organs == ("Brainstem", "Parotid_L"), "nobody drew the others"
    assert "not a medical device" in bundle.card


def test_a_second_look_joins_the_bundle(config, tmp_path):
    closer = dataclasses.replace(
        config,
        name="closer",
        organs=("Parotid_L",),
        preprocess=dataclasses.replace(config.preprocess, spacing_mm=(2.0, 2.0, 2.5)),
    )
    fit(config, tmp_path / "run", on_progress=silent)
    fit(closer, tmp_path / "closer", on_progress=silent)
    bundle = export(config, tmp_path / "run", tmp_path / "both", fine=[(closer, tmp_path / "closer")])
    (stage,) = bundle.metadata.stages
    assert (stage.name, stage.decides, stage.preprocess.spacing_mm) == ("closer", ("Parotid_L",), (2.0, 2.0, 2.5))
    _, network = bundle.load_networks()
    trained = averaged_weights(tmp_path / "closer" / "checkpoints" / "last.ckpt")
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(weight, trained[name], rtol=2e-3, atol=1e-4)


def with_everything_that_remembers(config):
    """Plateau, organs' weights, mixup and two samples a batch: all of them must survive an interruption."""
    return dataclasses.replace(
        config,
        validation=config.cohorts,
        loss=LossConfig(terms={"focal": 1.0, "soft_dice": 1.0}, adapt_to_organs=True, mixup="weighted"),
        optimisation=dataclasses.replace(
            config.optimisation, batch_size=2, schedule="plateau", patience=0, validate_every=1, validation_patches=2
        ),
    )


@pytest.mark.parametrize("change", [lambda config: config, with_everything_that_remembers], ids=["plain", "everything"])
def test_interrupted_and_resumed_training_gives_the_same_weights(config, change, tmp_path, monkeypatch):
    config = change(config)
    fit(config, tmp_path / "whole", on_progress=silent)
    step = SegmentationModule.training_step

    def stops_in_the_fourth(module, batch, index):
        if module.global_step == 3:
            raise ConnectionAbortedError("power cut")
        return step(module, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", stops_in_the_fourth)
        with pytest.raises(ConnectionAbortedError):
            fit(config, tmp_path / "resumed", on_progress=silent)
    last = tmp_path / "resumed" / "checkpoints" / "last.ckpt"
    halfway = averaged_weights(last)
    fit(config, tmp_path / "resumed", on_progress=silent, resume=True)
    whole, resumed = averaged_weights(tmp_path / "whole" / "checkpoints" / "last.ckpt"), averaged_weights(last)
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=0)
    assert any(not torch.equal(halfway[name], weight) for name, weight in whole.items())


def test_training_that_gets_no_better_stops_early_and_keeps_its_best(config, tmp_path):
    settings = dataclasses.replace(
        config.optimisation, steps=20, learning_rate=0.0, weight_decay=0.0, validate_every=1, validation_patches=1,
        stop_after=2,
    )  # fmt: skip
    stuck = dataclasses.replace(config, validation=config.cohorts, optimisation=settings)
    last = torch.load(fit(stuck, tmp_path / "run", on_progress=silent), weights_only=True)
    assert last["global_step"] == 3, "the first validation, and two that were no better"
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


def test_a_new_training_keeps_nothing_of_the_one_before(config, tmp_path):
    watched = dataclasses.replace(
        config,
        validation=config.cohorts,
        optimisation=dataclasses.replace(config.optimisation, validate_every=2, validation_patches=1),
    )
    run = tmp_path / "run"
    fit(watched, run, on_progress=silent)
    (run / "scores.json").write_text("{}")
    assert best_checkpoint(run).name == "best.ckpt"
    fit(with_steps(config, 2), run, on_progress=silent)
    assert best_checkpoint(run).name == "last.ckpt"
    assert not (run / "scores.json").exists()
    assert max(read_series(run)["loss"]) == 1, "the log of two steps, not of four"


def test_a_resumed_training_without_validation_forgets_an_earlier_best(config, tmp_path):
    fit(config, tmp_path / "run", on_progress=silent)
    (tmp_path / "run" / "checkpoints" / "best.ckpt").write_bytes(b"of another measure")
    fit(with_steps(config, 5), tmp_path / "run", on_progress=silent, resume=True)
    assert best_checkpoint(tmp_path / "run").name == "last.ckpt"


def test_a_run_is_resumed_and_exported_only_as_the_network_that_it_trained(config, tmp_path):
    run = tmp_path / "run"
    fit(config, run, on_progress=silent)
    swapped = dataclasses.replace(config, organs=("Parotid_R", *(organ.name for organ in ORGANS[1:])))
    coarse = dataclasses.replace(config, preprocess=PreprocessSettings(spacing_mm=(4.0, 4.0, 4.0)))
    for other, differs in ((swapped, "organs: "), (coarse, "preprocess.spacing_mm: ")):
        with pytest.raises(ConfigError, match=f"other settings than the configuration's .{differs}"):
            export(other, run, tmp_path / "bundle")
        with pytest.raises(ConfigError, match=f"other settings than the configuration's .{differs}"):
            fit(other, run, on_progress=silent, resume=True)
        with pytest.raises(ConfigError, match=differs):
            export(config, run, tmp_path / "bundle", fine=[(other, run)])
    assert load_config(run / "config.yaml") == config


def test_nothing_is_resumed_where_nothing_was_trained(config, tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint to go on from; train with `hnseg-train fit`"):
        fit(config, tmp_path / "run", on_progress=silent, resume=True)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_ends_with_its_own_exit_code_and_a_sentence(config, tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(to_plain(config)))
    step = SegmentationModule.training_step

    def interrupted(module, batch, index):
        if module.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(module, batch, index)

    monkeypatch.setattr(SegmentationModule, "training_step", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["fit", "--config", str(tmp_path / "tiny.yaml"), "--runs", str(tmp_path)]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "go on with `hnseg-train resume`" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["resume", "--config", str(tmp_path / "tiny.yaml"), "--runs", str(tmp_path)]) == 0


@pytest.fixture
def full_disk():
    """Called, it lets no file grow beyond 4 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_sentence_and_leaves_the_last_checkpoint_whole(config, tmp_path, full_disk, monkeypatch):
    checkpoint = fit(config, tmp_path / "run", on_progress=silent)
    before = checkpoint.read_bytes()
    monkeypatch.setattr(SegmentationModule, "on_train_batch_start", lambda *_: full_disk())
    with pytest.raises(OutputError, match=r"Cannot write .*ckpt"):
        fit(with_steps(config, 6), tmp_path / "run", on_progress=silent, resume=True)
    assert checkpoint.read_bytes() == before
    assert not [file for file in checkpoint.parent.iterdir() if file.suffix != ".ckpt" or is_partial(file)]


def test_a_case_that_does_not_fit_on_the_disk_is_one_sentence(config, tmp_path, full_disk):
    full_disk()
    with pytest.raises(OutputError, match=r"case cannot be written .*; free space"):
        prepare(config, tmp_path / "cases", on_progress=silent)
    assert not list((tmp_path / "cases").rglob("*.npy"))


@pytest.mark.parametrize("kept", [0, 1000, -100])
def test_a_broken_checkpoint_is_named(kept, config, tmp_path):
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(to_plain(config)))
    torch.save({"state_dict": SegmentationModule(config).state_dict(), "global_step": 4}, checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    write_taught(run, Taught(("Parotid_L",)))
    with pytest.raises(UnreadableFile, match=r"last\.ckpt is no whole checkpoint"):
        fit(config, run, on_progress=silent, resume=True)
    with pytest.raises(UnreadableFile, match=r"last\.ckpt is no whole checkpoint"):
        export(config, run, tmp_path / "bundle")


def test_a_refused_start_leaves_the_run_as_it_was(config, tmp_path):
    checkpoint = fit(config, tmp_path / "run", on_progress=silent)
    for start, words in ((tmp_path / "run", "own folder"), (tmp_path, "neither a run nor a bundle")):
        with pytest.raises(ConfigError, match=words):
            fit(dataclasses.replace(config, start_from=str(start)), tmp_path / "run", on_progress=silent)
        assert checkpoint.exists()


def test_organs_are_counted_in_the_patches_that_training_saw(config, tmp_path):
    fit(config, tmp_path / "run", on_progress=silent)
    patches = PatchDataset(config, prepare(config, tmp_path / "run" / "cases", on_progress=silent))
    labels = [patch["labels"] for patch, _ in zip(patches, range(4), strict=False)]
    with (tmp_path / "run" / "organ_patches.csv").open() as file:
        counted = {row["organ"]: (int(row["patches"]), int(row["voxels"])) for row in csv.DictReader(file)}
    for organ in ORGANS:
        here = [int((patch == organ.label).sum()) for patch in labels]
        assert counted[organ.name] == (sum(n > 0 for n in here), sum(here))
    assert counted["Brainstem"][0] > 0


def test_training_starts_from_another_run(config, tmp_path):
    fit(config, tmp_path / "first", on_progress=silent)
    second = dataclasses.replace(
        config,
        start_from=str(tmp_path / "first"),
        optimisation=dataclasses.replace(config.optimisation, learning_rate=0.0, weight_decay=0.0),
    )
    fit(second, tmp_path / "second", on_progress=silent)
    first = averaged_weights(tmp_path / "first" / "checkpoints" / "last.ckpt")
    for name, weight in averaged_weights(tmp_path / "second" / "checkpoints" / "last.ckpt").items():
        torch.testing.assert_close(weight, first[name])


def test_training_starts_from_a_bundle(config, tmp_path):
    fit(config, tmp_path / "first", on_progress=silent)
    export(config, tmp_path / "first", tmp_path / "bundle")
    weights = starting_weights(tmp_path / "bundle")
    for name, weight in averaged_weights(tmp_path / "first" / "checkpoints" / "last.ckpt").items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=1e-5)  # a bundle holds half precision


def test_training_starts_from_what_is_exported_of_another_run(config, tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name, value in (("best", 1.0), ("last", 2.0)):
        torch.save({"state_dict": {"network.w": torch.tensor(value)}, "global_step": 1}, checkpoints / f"{name}.ckpt")
    assert starting_weights(tmp_path / "run")["w"] == 1.0


def test_frozen_batch_norms_keep_their_statistics_and_others_do_not(config, tmp_path):
    network = NetworkConfig("rrse_unet", {"filters": [4, 8], "norm": "batch"})
    settings = dataclasses.replace(config.optimisation, steps=2, validate_every=1, validation_patches=1, ema_decay=0.0)
    first = dataclasses.replace(config, network=network, validation=config.cohorts, optimisation=settings)
    fit(first, tmp_path / "first", on_progress=silent)
    frozen = dataclasses.replace(first, start_from=str(tmp_path / "first"), freeze=0.5)
    after = averaged_weights(fit(frozen, tmp_path / "second", on_progress=silent, transfer=True))
    before = starting_weights(tmp_path / "first")
    changed = [not torch.equal(before[name], after[name]) for name in before if name.endswith("running_mean")]
    assert changed == sorted(changed)
    assert set(changed) == {False, True}


def test_a_start_that_is_neither_run_nor_bundle_is_refused(config, tmp_path):
    with pytest.raises(ConfigError, match="neither a run nor a bundle"):
        fit(dataclasses.replace(config, start_from=str(tmp_path)), tmp_path / "run", on_progress=silent)


def test_masks_that_are_absent_count_as_not_annotated(config):
    first, second = (load() for load in case_loaders(config.cohorts[0]).values())
    assert second.annotated == (find_organ("Brainstem").label,)
    assert second.mr is None
    assert set(np.unique(first.labels.array_kji)) == {0, find_organ("Brainstem").label, find_organ("Parotid_L").label}


def test_held_out_cases_are_the_others(config):
    fold = dataclasses.replace(config.cohorts[0], fold=(0, 2))
    assert list(case_loaders(fold)) == ["case_02"]
    assert list(case_loaders(dataclasses.replace(fold, part="held-out"))) == ["case_01"]


def test_an_empty_cohort_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no case_XX folders"):
        case_loaders(CohortConfig(source="hanseg", path=str(tmp_path)))


@pytest.mark.skipif(network_type(torch.device("cpu")) != torch.bfloat16, reason="this CPU has no AMX")
def test_bf16_trains_where_the_processor_has_it(config, tmp_path):
    short = dataclasses.replace(
        config, optimisation=dataclasses.replace(config.optimisation, steps=1, precision="bf16")
    )
    weights = averaged_weights(fit(short, tmp_path / "run", on_progress=silent))
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in weights.values())


def test_bf16_is_refused_where_it_would_be_slow(config, tmp_path, monkeypatch):
    monkeypatch.setattr("hnseg.inference.devices._has_amx", lambda: False)
    short = dataclasses.replace(config, optimisation=dataclasses.replace(config.optimisation, precision="bf16"))
    with pytest.raises(DeviceError, match="CPU with AMX, which this is not; set precision: auto"):
        fit(short, tmp_path / "run", on_progress=silent)
