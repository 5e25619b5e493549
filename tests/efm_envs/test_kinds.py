"""What a model says, of whatever kind, becomes control steps in one place, and what cannot be is refused with the env's number."""

import json
from typing import Any

import numpy as np
import pytest

from efm_envs.errors import EFMError, RewardModelError, UnknownNameError
from efm_envs.rewards import StepsToGo
from efm_envs.rewards.kinds import Unit, after_change, to_steps, values
from efm_envs.task import Array

DT = 0.05  # [s]


def converted(output: Any, **unit: Any) -> StepsToGo:
    """Converts the output of a batch of as many envs as it has rows."""
    return to_steps(Unit(**unit), output, len(output), control_dt_s=np.full(len(output), DT), who="reward model 'm' (M)")


# -- known answers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "output", "steps"),
    [
        ({"kind": "steps"}, [0.0, 3.5, 100.0], [0.0, 3.5, 100.0]),
        ({"kind": "steps", "scale": -1}, [-7.0, 0.0], [7.0, 0.0]),  # a value: negative steps
        ({"kind": "steps", "scale": 5}, [2, 0], [10.0, 0.0]),  # at a fifth of our frequency
        ({"kind": "seconds"}, [0.0, 0.05, 2.0], [0.0, 1.0, 40.0]),
        ({"kind": "seconds", "scale": 0.001}, [500, 50], [10.0, 1.0]),  # milliseconds
        ({"kind": "progress", "horizon_steps": 80}, [0.0, 0.25, 1.0], [80.0, 60.0, 0.0]),
        ({"kind": "progress", "horizon_steps": 80, "scale": 0.01}, [0, 75, 100], [80.0, 20.0, 0.0]),  # percent
        ({"kind": "progress", "horizon_steps": 80, "scale": 0.25, "offset": -0.25}, [1, 2, 5], [80.0, 60.0, 0.0]),  # levels 1..5
        ({"kind": "progress", "horizon_steps": 80, "logits": True}, [-1e3, 0.0, 1e3], [80.0, 40.0, 0.0]),
        ({"kind": "success"}, [0.0, 0.25, 1.0], [1.0, 0.75, 0.0]),
        ({"kind": "success", "logits": True}, [0.0, 1e3, np.log(3.0)], [0.5, 0.0, 0.25]),
        ({"kind": "success", "scale": -1, "offset": 1}, [0.9, 0.0], [0.9, 0.0]),  # the probability of failure
    ],
)
def test_a_value_becomes_steps(unit: dict[str, Any], output: Any, steps: list[float]) -> None:
    for dtype in (np.float64, np.float32):
        said = converted(np.array(output, dtype), **unit)
        np.testing.assert_allclose(said.mean, steps, rtol=1e-6, atol=1e-6)
        assert said.mean.dtype == np.float64 and said.edges is None and said.probs is None


@pytest.mark.parametrize(
    ("unit", "edges", "steps"),
    [
        ({"kind": "steps"}, [0, 10, 30], [0.0, 10.0, 30.0]),
        ({"kind": "steps", "scale": -1}, [-30, -10, 0], [0.0, 10.0, 30.0]),
        ({"kind": "seconds"}, [0, 1, 4], [0.0, 20.0, 80.0]),
        ({"kind": "progress", "horizon_steps": 100}, [0, 0.5, 1], [0.0, 50.0, 100.0]),
    ],
)
def test_a_distribution_becomes_one_of_steps(unit: dict[str, Any], edges: list[float], steps: list[float]) -> None:
    probs = np.array([[1.0, 0.0], [0.25, 0.75]])
    said = converted(probs, edges=edges, **unit)
    is_reversed = unit["kind"] == "progress" or unit.get("scale") == -1
    assert said.edges is not None and said.probs is not None
    assert said.edges.tolist() == steps
    np.testing.assert_array_equal(said.probs, probs[:, ::-1] if is_reversed else probs)
    np.testing.assert_allclose(said.mean, said.probs @ ((said.edges[1:] + said.edges[:-1]) / 2))


def test_a_distribution_may_come_as_logits() -> None:
    probs = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    said = converted(np.log(probs) + np.array([[700.0], [-700.0]]), kind="seconds", edges=[0, 1, 2, 3], logits=True)
    np.testing.assert_allclose(said.probs, probs)


def test_probabilities_in_half_precision_are_made_to_sum_to_1() -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(64), 20).astype(np.float16)
    assert (probs.sum(axis=1, dtype=float) != 1).any()
    said = converted(probs, kind="steps", edges=np.arange(65))
    assert said.probs is not None
    np.testing.assert_allclose(said.probs.sum(axis=1), 1.0, rtol=1e-15)


def test_an_output_is_converted_in_a_batch_as_by_itself() -> None:
    rng = np.random.default_rng(1)
    for kind, edges in (("seconds", np.geomspace(0.1, 512, 257)), ("progress", np.linspace(0, 1, 11)), ("steps", np.arange(202) - 201.0)):
        unit = Unit(kind, -1.0 if kind == "steps" else 1.0, edges=edges, logits=True, horizon_steps=90 if kind == "progress" else None)
        logits = rng.normal(size=(7, len(edges) - 1))
        for batch in (logits, np.asfortranarray(logits)):
            said = to_steps(unit, batch, 7, control_dt_s=np.full(7, DT), who="m")
            for row in range(7):
                alone = to_steps(unit, logits[row : row + 1], 1, control_dt_s=np.full(1, DT), who="m")
                assert said.probs is not None and alone.probs is not None
                assert said.mean[row] == alone.mean[0]
                np.testing.assert_array_equal(said.probs[row], alone.probs[0])


def test_changes_add_up_from_the_horizon_and_not_below_0() -> None:
    unit = Unit("change", scale=2.0, horizon_steps=10)
    d = after_change(unit, np.full(3, np.nan), np.array([5.0, 0.0, -5.0]))
    assert d.tolist() == [10.0, 10.0, 10.0]  # what led to an episode's first observation was no part of it
    d = after_change(unit, d, values(unit, np.array([1.0, -3.0, 9.0]), 3, "m"))
    assert d.tolist() == [8.0, 16.0, 0.0]


def test_a_little_above_1_is_1() -> None:
    assert converted(np.array([1.0005, -0.0005]), kind="progress", horizon_steps=100).mean.tolist() == [0.0, 100.0]


# -- what cannot be ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "output", "message"),
    [
        (
            {"kind": "seconds"},
            np.array([1.0, 1.0, -2.0]),
            r"'m' \(M\) returned -2.0 seconds for env 2; expected a finite number, at least 0",
        ),
        ({"kind": "steps"}, np.array([1.0, np.nan]), r"returned nan steps-to-go for env 1"),
        ({"kind": "steps"}, np.array([1.0, np.inf]), r"returned inf steps-to-go for env 1"),
        (
            {"kind": "progress", "horizon_steps": 9},
            np.array([0.5, 1.002]),
            r"returned 1.002 progress for env 1; expected a number from 0 to 1",
        ),
        ({"kind": "progress", "horizon_steps": 9}, np.array([-0.002]), r"returned -0.002 progress for env 0"),
        (
            {"kind": "progress", "horizon_steps": 9, "scale": 0.01},
            np.array([150]),
            r"returned 150.0, which stands for 1.5 progress for env 0",
        ),
        ({"kind": "success"}, np.array([2.5]), r"returned 2.5 success probability for env 0"),
        ({"kind": "success", "logits": True}, np.array([0.0, np.nan]), r"returned nan success probability for env 1"),
        ({"kind": "steps"}, np.ones((3, 1)), r"steps-to-go of shape \(3, 1\) for a batch of 3; expected \(3,\)"),
        ({"kind": "steps"}, np.array(["a"]), r"steps-to-go of dtype <U1; expected numbers"),
        (
            {"kind": "steps", "edges": [0, 1, 2]},
            np.ones((2, 3)),
            r"probabilities of bins of shape \(2, 3\) for a batch of 2; expected \(2, 2\)",
        ),
        ({"kind": "steps", "edges": [0, 1, 2]}, np.array([[0.5, 0.5], [2.0, 0.0]]), r"sum to 2.0 for env 1; .* Then pass logits=True"),
        ({"kind": "steps", "edges": [0, 1, 2]}, np.array([[1.5, -0.5]]), r"probabilities from -0.5 that sum to 1.0 for env 0"),
        ({"kind": "steps", "edges": [0, 1], "logits": True}, np.array([[0.0], [np.inf]]), r"for env 1; expected none below 0"),
    ],
)
def test_an_output_that_cannot_be_is_refused_with_the_envs_number(unit: dict[str, Any], output: Array, message: str) -> None:
    with pytest.raises(RewardModelError, match=message):
        converted(output, **unit)


def test_an_output_of_several_things_is_refused() -> None:
    with pytest.raises(RewardModelError, match=r"m returned steps-to-go of type tuple; expected an array of \(2,\)"):
        to_steps(Unit("steps"), (np.ones(2), np.ones(3)), 2, control_dt_s=None, who="m")


def test_changes_may_be_negative_but_are_numbers() -> None:
    with pytest.raises(RewardModelError, match=r"'m' returned nan steps of change for env 1; expected a finite number"):
        values(Unit("change", horizon_steps=5), np.array([-3.0, np.nan]), 2, "'m'")


@pytest.mark.parametrize("control_dt_s", [None, np.array([0.1, 0.0]), np.array([0.1, np.nan])])
def test_seconds_need_a_control_period(control_dt_s: Array | None) -> None:
    with pytest.raises(RewardModelError, match=r"m speaks seconds.*'control_dt_s'"):
        to_steps(Unit("seconds"), np.ones(2), 2, control_dt_s=control_dt_s, who="m")


def test_envs_of_several_control_periods_share_no_bins() -> None:
    periods = np.array([0.1, 0.2])
    assert to_steps(Unit("seconds"), np.ones(2), 2, control_dt_s=periods, who="m").mean.tolist() == [10.0, 5.0]
    with pytest.raises(RewardModelError, match="several control periods"):
        to_steps(Unit("seconds", edges=[0, 1]), np.ones((2, 1)), 2, control_dt_s=periods, who="m")


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ({"kind": "rank"}, "only the order means something is no distance.*no unit"),
        ({"kind": "value"}, "unknown kind: 'value'"),
        ({"kind": "steps", "scale": 0}, r"scale \(not 0\) and offset are finite numbers; got scale=0"),
        ({"kind": "steps", "offset": "much"}, "got scale=1.0, offset='much'"),
        ({"kind": "progress"}, "pass horizon_steps, in control steps, above 0 .* got None"),
        ({"kind": "change", "horizon_steps": 0}, "pass horizon_steps.* got 0"),
        ({"kind": "seconds", "horizon_steps": 50}, "horizon_steps belongs to the kinds .* got 50 for kind='seconds'"),
        ({"kind": "seconds", "logits": True}, "logits are of a probability"),
        ({"kind": "success", "edges": [0, 1]}, "edges belong to the kinds .* got them for kind='success'"),
        ({"kind": "steps", "edges": [0, 2, 1]}, "each larger than the one before"),
        ({"kind": "steps", "edges": [0]}, "edges are 2 or more finite numbers"),
        ({"kind": "steps", "edges": 7}, "edges are 2 or more finite numbers, .* got 7"),
        ({"kind": "steps", "edges": ["low", "high"]}, "edges are 2 or more finite numbers"),
        ({"kind": "steps", "edges": [-30, 0]}, "edges -30 to 0 do not lie in what 'steps' can be, scale=1.0 .*at least 0"),
        ({"kind": "progress", "horizon_steps": 9, "edges": [0, 100]}, "edges 0 to 100 do not lie in what 'progress' can be"),
    ],
)
def test_what_does_not_go_together_is_refused(unit: dict[str, Any], message: str) -> None:
    with pytest.raises(EFMError, match=message) as refused:
        Unit(**unit)
    assert isinstance(refused.value, RewardModelError | UnknownNameError)


def test_options_come_back_from_json() -> None:
    for unit in (
        Unit("steps"),
        Unit("progress", 0.25, -0.25, horizon_steps=80),
        Unit("seconds", edges=np.geomspace(1, 9, 4), logits=True),
    ):
        assert Unit(unit.kind, **json.loads(json.dumps(unit.options()))) == unit
    assert Unit("steps").options() == {}
