"""The comparison of vector envs with single envs: it passes where they agree, and sees a single bit where they do not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import efm_envs
from efm_benchmarks import equality
from efm_envs.vector import EFMVectorEnv

STORED = Path(__file__).resolve().parents[2] / "benchmarks/results/equality.json"
POINT_MASS = "EFM-PointMass-v0"


@pytest.mark.parametrize("mode", equality.MODES)
def test_it_passes_where_they_agree(mode: str) -> None:
    result = equality.compare(equality.Job(POINT_MASS, mode), num_envs=3, steps=equality.STEP_LIMIT + 2)
    assert result["differences"] == [] and result["episodes"] == 3 and result["law_error"] < 1e-9


def test_it_sees_a_single_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    step = EFMVectorEnv.step

    def off_by_a_bit(envs: EFMVectorEnv, actions: np.ndarray) -> Any:
        observations, rewards, *rest = step(envs, actions)
        rewards[1] = np.nextafter(rewards[1], np.inf)
        return observations, rewards, *rest

    monkeypatch.setattr(EFMVectorEnv, "step", off_by_a_bit)
    result = equality.compare(equality.Job(POINT_MASS, "NextStep"), num_envs=3, steps=4)
    assert [text.split(":")[0] for text in result["differences"]] == ["1 threads, step 0", "2 threads, step 0"]
    assert "returned[1] is" in result["differences"][0]


def test_a_law_that_is_broken_is_measured() -> None:
    law = equality.Law(AutoresetMode.NEXT_STEP, 2)
    d = {"steps_to_go": np.array([5.0, 3.0])}
    law.begin(np.ones(2, bool), d)
    law.step(np.array([1.5, 0.0]), np.array([True, False]), np.zeros(2, bool), {"steps_to_go": np.array([4.0, 3.0])})
    assert (law.episodes, law.error) == (1, 0.5)


@pytest.mark.parametrize(
    ("a", "b", "where"),
    [
        (np.zeros(2), np.zeros(2, np.float32), "returned is"),
        (np.zeros(2), np.array([0.0, -0.0]), "returned is"),
        ({"a": 1}, {"b": 1}, r"returned has \['a'\], expected \['b'\]"),
        ((1, {"x": np.array([1, None], object)}), (1, {"x": np.array([1, 2], object)}), r"returned\[1\]\['x'\]\[1\] is None, expected 2"),
        (True, 1, "returned is True, expected 1"),
        ((1, 2), (1,), "returned is tuple of 2"),
    ],
)
def test_differences_are_named(a: Any, b: Any, where: str) -> None:
    with pytest.raises(AssertionError, match=where):
        raise AssertionError(next(equality.differences(a, b)))


def test_what_is_stored_covers_every_id_and_found_no_difference() -> None:
    stored = json.loads(STORED.read_text())
    assert list(stored["envs"]) == efm_envs.ids() and (stored["num_envs"], stored["steps"]) == (64, 500)
    for env_id, modes in stored["envs"].items():
        assert sorted(modes) == sorted(equality.MODES)
        for mode, result in modes.items():
            assert result["differences"] == [] and result["episodes"] >= 64 and result["law_error"] < 1e-6, (env_id, mode)
