"""Two processes under torchrun train as one process does on the same patches together."""

import csv
import dataclasses
import os
import subprocess
import sys

import pytest
import torch
import yaml

from hnseg.plain import to_plain
from hnseg.preprocessing import PreprocessSettings
from hnseg_training.config import NetworkConfig, OptimisationConfig, PatchConfig, TrainConfig
from hnseg_training.fit import averaged_weights, fit

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own advice on workers and devices


def logged(run, name):
    (file,) = (run / "log").rglob("metrics.csv")
    with file.open() as rows:
        return [float(row[name]) for row in csv.DictReader(rows) if row[name]]


def test_two_processes_have_the_loss_and_the_weights_of_one_with_the_same_patches(tiny_cohort, tmp_path):
    single = TrainConfig(
        name="single",
        cohorts=(tiny_cohort,),
        preprocess=PreprocessSettings(spacing_mm=(4.0, 4.0, 5.0)),
        network=NetworkConfig(arguments={"filters": [4, 8, 8]}),
        patch=PatchConfig(size_kji=(8, 16, 16)),
        # Not Adam: its first steps follow the gradients' signs, and those of gradients near 0 are the rounding's.
        optimisation=OptimisationConfig(
            steps=3, batch_size=2, warmup_steps=1, loader_workers=0, optimizer="sgd", learning_rate=0.1
        ),
    )
    each = dataclasses.replace(single, name="two", optimisation=dataclasses.replace(single.optimisation, batch_size=1))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(to_plain(each)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ["-m", "hnseg_training", "fit", "--config", str(tmp_path / "two.yaml"), "--runs", str(tmp_path)]
    done = subprocess.run(
        [*torchrun, *program], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    fit(single, tmp_path / "single", on_progress=lambda _fraction, _text: None)
    losses = [logged(tmp_path / name, "loss") for name in ("two", "single")]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    ours, theirs = (averaged_weights(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("two", "single"))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-3, atol=1e-5)
