"""Two real processes, started by torchrun, against one; the ring against a sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils import parallel

SETTINGS = {"steps": 4, "batch_size": 6, "context": 16, "d_model": 16, "seed": 1}


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_equal_one(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    settings = parallel.Settings(**SETTINGS)
    batch_of, vocab_size = parallel.play_batches(settings)
    alone = parallel.train_shares(batch_of, vocab_size, settings)
    together = parallel.launch(tmp_path / "x.json", parallel.STRATEGIES, 2, **SETTINGS)
    assert together.pop("world_size") == 2 and together.pop("backend") == "gloo"
    assert set(together) == set(parallel.STRATEGIES)
    for strategy, result in together.items():
        np.testing.assert_allclose(result["losses"], alone["losses"], atol=1e-5, err_msg=strategy)
        assert result["checksum"] == pytest.approx(alone["checksum"], rel=1e-5)
        assert result["parameters"] == alone["parameters"]
    assert alone["losses"][-1] < alone["losses"][0] - 0.3
    assert together["ddp"]["held"] == alone["parameters"]
    assert together["fsdp"]["held"] < 0.55 * alone["parameters"]


def test_a_failure_is_told(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        class Done:
            returncode, stderr = 1, "ValueError: 7 sequences cannot be shared"

        return Done()

    monkeypatch.setattr("subprocess.run", fail)
    with pytest.raises(RuntimeError, match="7 sequences"):
        parallel.launch(tmp_path / "x.json")


def test_main_wants_torchrun(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit):
        parallel.main(["--output", str(tmp_path / "x.json")])
    assert "torchrun" in capsys.readouterr().err


def test_shares_make_up_the_batch():
    batch = torch.arange(24).reshape(6, 4)
    for n in (1, 2, 3, 6):
        assert torch.equal(torch.cat([parallel.share(batch, r, n) for r in range(n)]), batch)
    with pytest.raises(ValueError, match="6 sequences cannot be shared equally by 4"):
        parallel.share(batch, 0, 4)
    with pytest.raises(ValueError, match="no rank 2"):
        parallel.share(batch, 2, 2)


def test_unknown_strategy():
    with pytest.raises(ValueError, match="hand, ddp, fsdp"):
        parallel.prepare(torch.nn.Linear(1, 1), "zero", torch.device("cpu"))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_ring_sums_and_sends_what_the_formula_says(n):
    rng = np.random.default_rng(n)
    vectors = rng.normal(size=(n, 6 * n))
    before = vectors.copy()
    sums, sent = parallel.ring_all_reduce(vectors)
    np.testing.assert_allclose(sums, np.tile(vectors.sum(axis=0), (n, 1)))
    assert sent == 2 * (n - 1) * 6
    assert np.array_equal(vectors, before)


def test_ring_needs_equal_chunks():
    with pytest.raises(ValueError, match="n divides"):
        parallel.ring_all_reduce(np.zeros((3, 4)))
