"""The envs of dm_control's suite are dm_control's: its physics bit for bit, its observations, and its reward's maximum for success."""

import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scipy.stats import ks_2samp

import efm_envs
from efm_envs.errors import MissingExtraError, UnknownNameError
from efm_envs.registration import registration
from efm_envs.task import Array, Scenario

suite = pytest.importorskip("dm_control.suite")

PUBLISHED = {  # our id: the suite's domain and task
    "EFM-DMC-PointMassEasy-v0": ("point_mass", "easy"),
    "EFM-DMC-ReacherEasy-v0": ("reacher", "easy"),
    "EFM-DMC-ReacherHard-v0": ("reacher", "hard"),
    "EFM-DMC-BallInCupCatch-v0": ("ball_in_cup", "catch"),
    "EFM-DMC-FingerTurnEasy-v0": ("finger", "turn_easy"),
    "EFM-DMC-FingerTurnHard-v0": ("finger", "turn_hard"),
    "EFM-DMC-ManipulatorBringBall-v0": ("manipulator", "bring_ball"),
    "EFM-DMC-ManipulatorInsertPeg-v0": ("manipulator", "insert_peg"),
}
TARGETS = {  # what dm_control moves in the model, in the order of our mocap bodies
    "reacher": ("geom", ("target",)),
    "finger": ("site", ("target",)),
    "bring_ball": ("body", ("target_ball",)),
    "insert_peg": ("body", ("slot", "target_peg")),
}
WITH_EXPERTS = [dmc_id for dmc_id, (domain, _) in PUBLISHED.items() if domain in ("point_mass", "reacher")]
WITHOUT = sorted(set(PUBLISHED) - set(WITH_EXPERTS))
STEPS, STARTS = 100, 400

each = pytest.mark.parametrize("dmc_id", PUBLISHED)


def ours(dmc_id: str) -> Any:
    return gym.make(dmc_id, terminate_on="never").unwrapped


def theirs(dmc_id: str) -> Any:
    env = suite.load(*PUBLISHED[dmc_id], task_kwargs={"random": 0})
    env.reset()
    return env


def targets(dmc_id: str) -> tuple[str, tuple[str, ...]]:
    domain, task = PUBLISHED[dmc_id]
    return TARGETS.get(domain) or TARGETS.get(task) or ("", ())


def begin(env: Any, dmc_id: str, scenario: Scenario) -> None:
    """Begins an episode of dm_control's as one of ours begins."""
    kind, names = targets(dmc_id)
    start, model = scenario.physics, env.physics.named.model
    env.reset()
    with env.physics.reset_context():
        env.physics.data.qpos[:], env.physics.data.qvel[:] = start["qpos"], start.get("qvel", 0.0)
        for i, name in enumerate(names):
            getattr(model, f"{kind}_pos")[name] = start["mocap_pos"][i]
            if kind == "body":
                model.body_quat[name] = start["mocap_quat"][i]


def at_the_maximum(env: Any) -> bool:
    """Whether dm_control's own reward is 1, or would be without control."""
    env.physics.set_control(np.zeros(env.action_spec().shape))
    return bool(env.task.get_reward(env.physics) == 1.0)


def numbers(observation: dict[str, Array]) -> Array:
    """All that was observed but the instruction, float32, sorted."""
    parts = [np.ravel(values) for name, values in observation.items() if name != "instruction"]
    return np.sort(np.concatenate(parts).astype(np.float32))


def near_the_goal(env: Any, dmc_id: str, rng: np.random.Generator) -> Scenario:
    """The env's start, changed so that it is a success or nearly one."""
    task, start = env.task, dict(env.scenario.physics)
    qpos = start["qpos"].copy()
    aims: dict[str, Callable[[], None]] = {
        "point_mass": lambda: np.copyto(qpos, rng.uniform(-0.02, 0.02, 2)),
        "reacher": lambda: np.copyto(qpos, task.aim(env.physics)[0] + rng.normal(0.0, 0.4, 2)),
        "ball_in_cup": lambda: np.copyto(qpos[2:], rng.normal((0.0, 0.35), 0.03)),
        "finger": lambda: qpos.put(2, rng.normal(0.0, 0.5) - np.arctan2(*(env.goals.states[0] - task.model.body("spinner").pos[::2]))),
        "manipulator": lambda: np.copyto(qpos[-3:], env.goals.states[0] + rng.normal(0.0, (0.005, 0.005, 0.05))),
    }
    aims[PUBLISHED[dmc_id][0]]()
    return Scenario({**start, "qpos": qpos}, env.goals[0])


# -- the same as dm_control's ----------------------------------------------------------------------------------------------------------


def compare(dmc_id: str, env: Any, reference: Any, seed: int, steps: int) -> list[bool]:
    """Steps both with the same actions from the env's present state; returns the successes."""
    successes = []
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        action = rng.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)
        observation, _, _, _, info = env.step(action)
        expected = reference.step(action.astype(np.float64))
        assert (env.data.qpos == reference.physics.data.qpos).all() and (env.data.qvel == reference.physics.data.qvel).all()
        np.testing.assert_array_max_ulp(numbers(observation), numbers(expected.observation), 1)
        assert info["is_success"] == at_the_maximum(reference)
        successes.append(info["is_success"])
    return successes


@each
def test_physics_and_observations_are_dm_controls(dmc_id: str) -> None:
    env, reference = ours(dmc_id), theirs(dmc_id)
    for seed in range(4):
        env.reset(seed=seed)
        begin(reference, dmc_id, env.scenario)
        compare(dmc_id, env, reference, seed, STEPS)


@each
def test_success_is_where_dm_controls_reward_is_greatest(dmc_id: str) -> None:
    env, reference, rng, seen = ours(dmc_id), theirs(dmc_id), np.random.default_rng(0), []
    for seed in range(30):
        env.reset(seed=seed)
        scenario = near_the_goal(env, dmc_id, rng)
        env.simulation.start(scenario)
        begin(reference, dmc_id, scenario)
        assert env.simulation.is_success() == at_the_maximum(reference)
        seen += [env.simulation.is_success(), *compare(dmc_id, env, reference, seed, 5)]
    assert 15 <= sum(seen) <= len(seen) - 15, "both happened"


@each
def test_limits_times_controls_and_cameras_are_dm_controls(dmc_id: str) -> None:
    env, reference = ours(dmc_id), theirs(dmc_id)
    model = reference.physics.model
    assert env.step_limit == round(reference._step_limit) == 1000
    assert env.task.control_dt_s == pytest.approx(reference.control_timestep())
    assert (reference.action_spec().minimum == env.action_space.low).all() and (model.actuator_ctrlrange == [-1.0, 1.0]).all()
    assert list(env.task.cameras) == [model.id2name(i, "camera") for i in range(model.ncam)]


@each
def test_starts_are_distributed_as_dm_controls(dmc_id: str) -> None:
    env, reference = ours(dmc_id), theirs(dmc_id)
    mine, its = [], list[Any]()
    for seed in range(STARTS):
        env.reset(seed=seed)
        mine.append(state(env.data, dmc_id))
    while len(its) < STARTS:
        reference.reset()
        if not at_the_maximum(reference):
            its.append(state(reference.physics.data.ptr, dmc_id))
    for i, (values, expected) in enumerate(zip(np.array(mine).T, np.array(its).T, strict=True)):
        assert ks_2samp(values, expected).pvalue > 1e-3, i


def state(data: Any, dmc_id: str) -> Array:
    """Positions and velocities, and where the targets are."""
    kind, names = targets(dmc_id)
    places = [getattr(data, kind)(name) for name in names]
    turns = [place.xquat for place in places if kind == "body"]
    return np.concatenate([data.qpos, data.qvel, *(place.xpos for place in places), *turns])


# -- starts --------------------------------------------------------------------------------------------------------------------------


@each
def test_nothing_touches_anything_at_the_start_and_no_start_is_a_success(dmc_id: str) -> None:
    env = ours(dmc_id)
    for seed in range(50):
        _, info = env.reset(seed=seed)
        assert env.data.ncon == 0 and not info["is_success"] and info["steps_to_go"] >= 1.0


def test_a_start_is_drawn_again_while_it_is_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    task, drawn = ours("EFM-DMC-PointMassEasy-v0").task, []
    places = iter([[0.0, 0.0], [0.01, 0.0], [0.1, 0.0]])
    monkeypatch.setattr(task, "draw", lambda rng: drawn.append(Scenario({"qpos": np.array(next(places))}, task.goal())) or drawn[-1])
    assert task.sample(np.random.default_rng(0)) is drawn[2]


# -- experts and estimates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["clean", "human"])
@pytest.mark.parametrize("dmc_id", WITH_EXPERTS)
def test_experts_succeed(dmc_id: str, style: str) -> None:
    records = efm_envs.evaluate(lambda envs: efm_envs.make_expert(envs, style), dmc_id, 40)
    assert np.mean([record.success_once for record in records]) >= 0.95


def test_where_the_expert_aims_the_tip_is_on_the_target() -> None:
    env = ours("EFM-DMC-ReacherHard-v0")
    for seed in range(20):
        env.reset(seed=seed)
        aim = env.task.aim(env.physics)[0]
        assert abs(aim[0] - env.data.qpos[0]) <= np.pi + 1e-9 and aim[1] * env.data.qpos[1] >= 0.0
        env.simulation.start(Scenario({**env.scenario.physics, "qpos": aim}, env.goals[0]))
        np.testing.assert_allclose(env.data.geom("finger").xpos[:2], env.data.geom("target").xpos[:2], atol=1e-9)


@pytest.mark.parametrize("dmc_id", WITH_EXPERTS)
def test_the_estimate_tells_how_long_the_expert_needs(dmc_id: str) -> None:
    env, starts, needed = gym.make(dmc_id, terminate_on="true"), [], []
    expert = efm_envs.make_expert(env)
    for seed in range(30):
        starts.append(env.reset(seed=seed)[1]["steps_to_go"])
        while not env.step(expert.act())[2]:
            pass
        needed.append(env.unwrapped.elapsed_steps)
    assert np.corrcoef(starts, needed)[0, 1] > 0.8


@pytest.mark.parametrize("dmc_id", WITHOUT)
def test_the_estimate_is_less_near_the_goal(dmc_id: str) -> None:
    env, rng = ours(dmc_id), np.random.default_rng(0)
    far, near = [], []
    for seed in range(20):
        far.append(env.reset(seed=seed)[1]["steps_to_go"])
        env.simulation.start(near_the_goal(env, dmc_id, rng))
        near.append(env.task.steps_to_go(env.physics, env.goals)[0])
    assert np.mean(near) < 0.7 * np.mean(far)


@pytest.mark.parametrize("dmc_id", WITHOUT)
def test_an_env_without_experts_says_so(dmc_id: str) -> None:
    env = gym.make(dmc_id)
    with pytest.raises(UnknownNameError, match=r"DMC\w+ has no experts; 'clean' was asked for\. Act with a policy of your own"):
        efm_envs.make_expert(env)


# -- the extra -------------------------------------------------------------------------------------------------------------------------


def test_the_ids_are_those_of_the_tag_and_name_their_extra() -> None:
    assert efm_envs.ids(tags=["dm_control"]) == list(PUBLISHED)
    assert {registration(dmc_id).extra for dmc_id in PUBLISHED} == {"dm-control"}


@pytest.mark.parametrize("make", [gym.make, lambda dmc_id: gym.make_vec(dmc_id, num_envs=2)])
def test_without_dm_control_the_extra_is_named(make: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(MissingExtraError, match=r'needs the extra \[dm-control\].*pip install "efm-envs\[dm-control\]"'):
        make("EFM-DMC-ReacherEasy-v0")
    assert "EFM-DMC-ReacherEasy-v0" in efm_envs.ids()


def test_an_unknown_difficulty_lists_the_valid_ones() -> None:
    for dmc_id in ("EFM-DMC-ReacherEasy-v0", "EFM-DMC-FingerTurnEasy-v0"):
        with pytest.raises(UnknownNameError, match=r"unknown difficulty: 'medium'\. Valid: 'easy', 'hard'"):
            gym.make(dmc_id, difficulty="medium")
