"""What a run writes down about itself."""

from types import SimpleNamespace

import pytest

from hnseg_training import callbacks
from hnseg_training.callbacks import DataWait


def test_data_wait_is_the_share_of_training_s_own_time(monkeypatch):
    clock, logged = [0.0], []
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: clock[0])
    loader = SimpleNamespace(waited_s=0.0)
    trainer = SimpleNamespace(global_step=0, log_every_n_steps=2, train_dataloader=loader)
    module = SimpleNamespace(log=lambda name, value: logged.append((name, value)))
    wait = DataWait()

    def pass_time(seconds, waited_s=0.0):
        clock[0] += seconds
        loader.waited_s += waited_s

    def step(seconds, waited_s):
        pass_time(seconds, waited_s)
        trainer.global_step += 1
        wait.on_train_batch_end(trainer, module)

    pass_time(500.0, 3.0)  # cases are prepared, the first patch is fetched
    wait.on_train_start(trainer, module)
    step(2.0, 1.0)
    assert not logged
    step(2.0, 0.0)
    wait.on_validation_start(trainer, module)
    pass_time(100.0)
    wait.on_validation_end(trainer, module)
    step(4.0, 1.0)
    step(4.0, 1.0)
    assert logged == [("data_wait", pytest.approx(0.25)), ("data_wait", pytest.approx(0.25))]
