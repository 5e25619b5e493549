"""EFMVectorEnv: bit for bit what as many single envs do, in every autoreset mode; and what only a batch has."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics

import efm_envs
from efm_envs.errors import EFMError, InvalidActionError, InvalidStateError, UnknownOptionError
from efm_envs.rewards.oracle import OracleRewardModel
from efm_envs.task import Goals
from efm_envs.vector import EFMVectorEnv
from tests.conftest import REWARD_MODELS
from tests.efm_envs.fakes import POINT_MASS, Spy

NUM_ENVS, LIMIT = 5, 7
INSERT = "EFM-InsertEE-v0"


def made(env_id: str = POINT_MASS, num_envs: int = NUM_ENVS, **kwargs: Any) -> Any:
    return gym.make_vec(env_id, num_envs=num_envs, **kwargs)


def singles(env_id: str, mode: AutoresetMode, num_envs: int = NUM_ENVS, **kwargs: Any) -> Any:
    return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **kwargs)


def random_actions(envs: Any, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.2, 1.2, (steps, *envs.action_space.shape)).astype(np.float32)


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Bit for bit, through dicts, tuples and arrays of objects."""
    if isinstance(a, dict):
        assert set(a) == set(b), where
        for name in a:
            assert_same(a[name], b[name], f"{where}/{name}")
    elif isinstance(a, tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        assert len(a) == len(b)
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}/{i}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and np.array_equal(a, b), (where, a, b)
    else:
        assert a == b, where


def test_make_vec_gives_the_batch(env_id: str) -> None:
    envs = made(env_id, num_envs=2)
    assert isinstance(envs.unwrapped, EFMVectorEnv) and envs.num_envs == 2
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_batch_is_bit_identical_to_single_envs(env_id: str, mode: AutoresetMode) -> None:
    envs = made(env_id, autoreset_mode=mode, num_threads=2, step_limit=LIMIT)
    others = singles(env_id, mode, step_limit=LIMIT)
    assert_same(envs.reset(seed=3), others.reset(seed=3), "reset")
    for k, actions in enumerate(random_actions(envs, 20)):
        stepped = envs.step(actions)
        assert_same(stepped, others.step(actions), f"step {k}")
        ended = stepped[2] | stepped[3]
        if mode is AutoresetMode.DISABLED and ended.any():
            resets = [e.reset(options={"reset_mask": ended.copy()}) for e in (envs, others)]
            assert_same(*resets, f"reset after {k}")


@pytest.mark.parametrize("terminate_on", ["predicted", "true", "never"])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_experts_succeed_at_the_same_steps_as_in_single_envs(mode: AutoresetMode, terminate_on: str) -> None:
    runs = []
    for envs in (made(autoreset_mode=mode, terminate_on=terminate_on), singles(POINT_MASS, mode, terminate_on=terminate_on)):
        expert, seen = efm_envs.make_expert(envs, "human"), []
        envs.reset(seed=5)
        for _ in range(60):
            seen.append(envs.step(expert.act())[:4])
            ended = seen[-1][2] | seen[-1][3]
            if mode is AutoresetMode.DISABLED and ended.any():
                envs.reset(options={"reset_mask": ended.copy()})
        runs.append(tuple(seen))
    assert_same(*runs)


def test_other_observations_are_those_of_single_envs(obs_mode: str) -> None:
    pixels = {"image_size": (24, 32), "cameras": ["top", "left/wrist"]} if obs_mode != "flat" else {}
    kwargs = {"obs_mode": obs_mode, "num_envs": 2, **pixels}
    envs, others = made(INSERT, **kwargs), singles(INSERT, AutoresetMode.NEXT_STEP, **kwargs)
    assert envs.observation_space == others.observation_space
    assert_same(envs.reset(seed=0)[0], others.reset(seed=0)[0])
    for actions in random_actions(envs, 3):
        assert_same(envs.step(actions)[0], others.step(actions)[0])
    envs.close()
    others.close()


def test_the_number_of_threads_changes_nothing() -> None:
    runs = []
    for num_threads in (0, 1, 2, 3):
        envs = made("EFM-LanguageTable4-v0", num_threads=num_threads, step_limit=LIMIT)
        runs.append((envs.reset(seed=1), *(envs.step(actions) for actions in random_actions(envs, 15))))
    for other in runs[1:]:
        assert_same(runs[0], other)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_rewards_telescope(env_id: str, mode: AutoresetMode) -> None:
    envs = made(env_id, autoreset_mode=mode, step_limit=LIMIT)
    _, info = envs.reset(seed=0)
    first, total, starting, whole = info["steps_to_go"].copy(), np.zeros(NUM_ENVS), np.zeros(NUM_ENVS, bool), 0
    for actions in random_actions(envs, 3 * LIMIT):
        _, rewards, terminated, truncated, info = envs.step(actions)
        ended = terminated | truncated
        if mode is AutoresetMode.NEXT_STEP:
            assert not rewards[starting].any() and not ended[starting].any()
            first[starting], total[starting] = info["steps_to_go"][starting], 0.0
        total += rewards
        last = info["final_info"]["steps_to_go"] if mode is AutoresetMode.SAME_STEP and ended.any() else info["steps_to_go"]
        np.testing.assert_allclose(total[ended], (first - last)[ended], atol=1e-6)
        whole += ended.sum()
        if mode is AutoresetMode.DISABLED and ended.any():
            _, info = envs.reset(options={"reset_mask": ended})
        if mode is not AutoresetMode.NEXT_STEP:
            first[ended], total[ended] = info["steps_to_go"][ended], 0.0
        starting = ended
    assert whole >= NUM_ENVS


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_model_is_asked_once_a_step_and_once_more_where_episodes_restart_in_the_same_step(mode: AutoresetMode) -> None:
    envs = made(autoreset_mode=mode, step_limit=3, terminate_on="never")
    envs.reset(seed=0)
    calls = []
    for actions in random_actions(envs, 3):
        before = envs.unwrapped.signal.calls
        envs.step(actions)
        calls.append(envs.unwrapped.signal.calls - before)
    assert calls == ([1, 1, 2] if mode is AutoresetMode.SAME_STEP else [1, 1, 1])


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_model_with_a_memory_is_told_of_every_episode_that_starts(mode: AutoresetMode) -> None:
    class Remembering(OracleRewardModel):
        begun = np.zeros(NUM_ENVS, int)

        def reset(self, goals: Goals, mask: np.ndarray) -> None:
            self.begun = self.begun + mask

    model = Remembering()
    envs = made(autoreset_mode=mode, terminate_on="never", reward_model=model)
    envs.set_attr("step_limit", [1, 2, 3, 4, 5])
    envs.reset(seed=0)
    for actions in random_actions(envs, 6):
        *_, terminated, truncated, _ = envs.step(actions)
        if mode is AutoresetMode.DISABLED and (terminated | truncated).any():
            envs.reset(options={"reset_mask": terminated | truncated})
    assert model.begun.tolist() == ([4, 3, 2, 2, 2] if mode is AutoresetMode.NEXT_STEP else [7, 4, 3, 2, 2])
    assert model.begun.tolist() == list(envs.get_attr("episode_count"))


def test_an_env_whose_episode_is_over_stays_as_it_is_until_it_is_reset() -> None:
    envs = made(INSERT, autoreset_mode="Disabled", step_limit=2, terminate_on="never")
    envs.reset(seed=0)
    actions = random_actions(envs, 4)
    envs.step(actions[0])
    envs.step(actions[1])
    envs.reset(options={"reset_mask": np.arange(NUM_ENVS) == 1})
    batch = envs.unwrapped.batch
    before, time = batch.bind("qpos").copy(), batch.bind("time").copy()
    observations, rewards, terminated, truncated, _ = envs.step(actions[2])
    over = np.arange(NUM_ENVS) != 1
    assert (batch.bind("qpos")[over] == before[over]).all() and (batch.bind("time")[over] == time[over]).all(), "no physics"
    assert (batch.bind("qpos")[1] != before[1]).any() and batch.bind("time")[1] > time[1]
    assert not rewards[over].any() and not (terminated | truncated)[over].any()
    envs.step(actions[3])
    assert (batch.bind("qpos")[over] == before[over]).all(), "nor later"


def test_a_restored_state_goes_on_bit_for_bit_in_another_batch(env_id: str) -> None:
    envs, other = made(env_id, step_limit=LIMIT), made(env_id, step_limit=LIMIT, num_threads=1)
    envs.reset(seed=2)
    before, after = np.split(random_actions(envs, 18), 2)
    for actions in before:
        envs.step(actions)
    state = copy.deepcopy(envs.unwrapped.get_state())
    expected = tuple(envs.step(actions) for actions in after)
    other.reset(seed=9)
    for restored in (envs, other):
        restored.unwrapped.set_state(state)
        assert_same(expected, tuple(restored.step(actions) for actions in after))


def test_experts_go_on_with_the_goals_of_a_restored_state() -> None:
    envs, other = made("EFM-LanguageTable4-v0"), made("EFM-LanguageTable4-v0")
    envs.reset(seed=2)
    state = envs.unwrapped.get_state()
    expected = efm_envs.make_expert(envs).act()
    other.unwrapped.set_state(state)
    assert np.array_equal(efm_envs.make_expert(other).act(), expected), "never reset"
    other.reset(seed=9)
    other.unwrapped.set_state(state)
    assert np.array_equal(efm_envs.make_expert(other).act(), expected)
    assert [goal.instructions for goal in other.unwrapped.get_attr("goals")] == [[text] for text in other.unwrapped.goals.instructions]


@pytest.mark.parametrize("made_id", [POINT_MASS, "EFM-LanguageTable4-v0", INSERT, "EFM-DMC-PointMassEasy-v0"])
@pytest.mark.parametrize("terminate_on", ["predicted", "true"])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_simulation_that_diverges_ends_its_own_episode_only_and_is_no_success(
    made_id: str, terminate_on: str, mode: AutoresetMode, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log
    kwargs: dict[str, Any] = {"terminate_on": terminate_on, "num_envs": 3}
    envs, healthy, others = (
        made(made_id, autoreset_mode=mode, **kwargs),
        made(made_id, autoreset_mode=mode, **kwargs),
        singles(made_id, mode, **kwargs),
    )
    for e in (envs, healthy, others):
        e.reset(seed=0)
    actions = random_actions(envs, 3)
    for e in (envs, healthy, others):
        e.step(actions[0])
    envs.unwrapped.envs[1].physics.qvel[:] = np.nan
    others.envs[1].unwrapped.physics.qvel[:] = np.nan
    stepped, expected = envs.step(actions[1]), healthy.step(actions[1])
    _, rewards, terminated, truncated, info = stepped
    assert truncated.tolist() == [False, True, False] and not terminated.any() and rewards[1] == 0.0
    at_end = info["final_info"] if mode is AutoresetMode.SAME_STEP else info
    assert "the simulation diverged" in at_end["error"][1] and at_end["_error"].tolist() == truncated.tolist()
    assert not at_end["is_success"][1] and not at_end["predicted_success"][1]
    assert (rewards[[0, 2]] == expected[1][[0, 2]]).all()
    of_singles = others.step(actions[1])
    assert_same(stepped[1:4], of_singles[1:4], "as in single envs")
    at_their_end = of_singles[4]["final_info"] if mode is AutoresetMode.SAME_STEP else of_singles[4]
    for name in ("error", "_error", "is_success", "predicted_success", "steps_to_go"):
        assert_same(at_end[name], at_their_end[name], name)
    if mode is AutoresetMode.DISABLED:
        for e in (envs, others):
            e.reset(options={"reset_mask": truncated.copy()})
    assert_same(envs.step(actions[2]), others.step(actions[2]), "and so they go on")


def test_a_restored_state_forgets_that_the_simulation_diverged(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    envs = made(INSERT, num_envs=2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    state, actions = envs.unwrapped.get_state(), random_actions(envs, 1)[0]
    expected = envs.step(actions)
    envs.unwrapped.envs[0].physics.qvel[:] = np.nan
    assert envs.step(actions)[3].tolist() == [True, False]
    envs.unwrapped.set_state(state)
    assert_same(envs.step(actions), expected)


def test_what_was_returned_does_not_change_afterwards() -> None:
    envs = made(INSERT)
    kept = [envs.reset(seed=0)[0], *(envs.step(actions)[0] for actions in random_actions(envs, 3))]
    copies = copy.deepcopy(kept)
    for observation in kept[:2]:
        for value in observation.values():
            value[:] = 0
    for actions in random_actions(envs, 2, seed=1):
        envs.step(actions)
    assert_same(tuple(kept[2:]), tuple(copies[2:]))


def test_gymnasiums_wrappers_work_around_it() -> None:
    envs = RecordEpisodeStatistics(NormalizeObservation(made(obs_mode="flat", step_limit=LIMIT, terminate_on="never")))
    envs.reset(seed=0)
    lengths: list[int] = []
    for actions in random_actions(envs, 2 * LIMIT):
        info = envs.step(actions)[4]
        lengths += info["episode"]["l"][info["_episode"]].tolist() if "episode" in info else []
    assert lengths == [LIMIT] * NUM_ENVS


def test_attributes_of_each_env_can_be_asked_for() -> None:
    envs = made("EFM-LanguageTable4-v0")
    _, info = envs.reset(seed=4)
    assert envs.unwrapped.get_attr("episode_key") == tuple((4 + i, 0) for i in range(NUM_ENVS))
    assert envs.unwrapped.call("task_description") == tuple(info["instruction"])
    single = gym.make("EFM-LanguageTable4-v0").unwrapped
    single.reset(seed=0, options={"scenario": envs.unwrapped.envs[3].scenario})
    assert single.goals.instructions[0] == info["instruction"][3]


def test_a_picture_of_one_env_is_that_of_a_single_env() -> None:
    envs, single = made(num_envs=3, render_size=(32, 32)), gym.make(POINT_MASS, render_mode="rgb_array", render_size=(32, 32))
    envs.reset(seed=0)
    single.reset(seed=2)
    assert np.array_equal(envs.unwrapped.render_env(2), single.render())
    envs.close()
    single.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_threads": -1}, "num_threads is a whole number, 0 .* or more; got -1"),
        ({"num_envs": 0}, "num_envs is a whole number, at least 1; got 0"),
        ({"autoreset_mode": "never"}, "unknown autoreset_mode: 'never'.* Valid: 'Disabled', 'NextStep', 'SameStep'"),
        ({"obs_mode": "words"}, "unknown obs_mode: 'words'"),
        ({"max_episode_steps": 0}, "max_episode_steps is a whole number, at least 1; got 0"),
        ({"render_mode": "human"}, "a vector env has no window"),
        ({"vectorization_mode": "sync", "num_threads": 2}, "'num_threads': only our own vector env takes it"),
    ],
)
def test_bad_options_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(EFMError, match=message):
        made(**{"num_envs": 2, **kwargs})


def test_bad_calls_are_refused_and_change_nothing() -> None:
    envs, others = made(), made()
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(np.zeros((NUM_ENVS, 2)))
    with pytest.raises(gym.error.ResetNeeded):
        envs.reset(options={"reset_mask": np.arange(NUM_ENVS) == 0})
    for e in (envs, others):
        e.reset(seed=0)
    bad = np.zeros((NUM_ENVS, 2))
    bad[3, 1] = np.nan
    with pytest.raises(InvalidActionError, match="element 1 of env 3's is nan"):
        envs.step(bad)
    with pytest.raises(InvalidActionError, match=r"have shape \(5, 2\); got \(2,\)"):
        envs.step(np.zeros(2))
    for mask in (np.zeros(NUM_ENVS, bool), np.ones(3, bool), [True] * NUM_ENVS, np.ones(NUM_ENVS)):
        with pytest.raises(EFMError, match=r"reset_mask is an array \(5,\) of bool"):
            envs.reset(options={"reset_mask": mask})
    with pytest.raises(EFMError, match="one for each of 5 envs; got 2"):
        envs.reset(seed=[1, 2])
    for seed in (1.5, True, "abcde", np.array(3), [0, 1, 2, 3, "x"], [0.0] * NUM_ENVS, [0, 1, 2, 3, -1]):
        with pytest.raises(EFMError, match="seed is a whole number"):
            envs.reset(seed=seed)
    with pytest.raises(EFMError, match="options is a dict"):
        envs.reset(options=5)
    with pytest.raises(EFMError, match="one dict for each of 5 envs; got 1"):
        envs.unwrapped.reset_each(options=[{}])
    with pytest.raises(UnknownOptionError, match="unknown option"):
        envs.reset(options={"peg": (0, 0)})
    with pytest.raises(InvalidStateError, match="takes what get_state"):
        envs.unwrapped.set_state(None)
    with pytest.raises(InvalidStateError, match="these are 5 of"):
        smaller = made(num_envs=2)
        smaller.reset(seed=0)
        envs.unwrapped.set_state(smaller.unwrapped.get_state())
    actions = random_actions(envs, 1)[0]
    assert_same(envs.step(actions), others.step(actions))


def test_max_episode_steps_shortens_episodes() -> None:
    envs = made(max_episode_steps=2, terminate_on="never")
    envs.reset(seed=0)
    ends = [envs.step(actions)[3].all() for actions in random_actions(envs, 2)]
    assert ends == [False, True]


@pytest.mark.parametrize("name", ["noisy", "delayed", "cached", "reader"])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_models_that_remember_or_read_histories_are_the_same_in_a_batch(name: str, mode: str, tmp_path: Path) -> None:
    model = REWARD_MODELS[name](POINT_MASS, tmp_path)
    options = {"reward_model": model, "success_k_of_n": (2, 3), "success_threshold": 2.0, "step_limit": 7}
    batch, single = made(num_envs=3, autoreset_mode=mode, **options), singles(POINT_MASS, AutoresetMode(mode), 3, **options)
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 3, 2)).astype(np.float32)
    for envs in (batch, single):
        envs.reset(seed=3)
    for action in actions:
        (_, rewards, *ends, infos), (_, expected, *expected_ends, expected_infos) = batch.step(action), single.step(action)
        np.testing.assert_array_equal(rewards, expected)
        np.testing.assert_array_equal(ends, expected_ends)
        for key in ("steps_to_go", "predicted_success"):
            np.testing.assert_array_equal(infos[key], expected_infos[key])
    batch.close()
    single.close()


def test_an_env_that_waits_for_its_reset_adds_nothing_to_a_history() -> None:
    spy = Spy(("agent_pos",))
    spy.history = {"agent_pos": 3}
    envs = made(num_envs=2, autoreset_mode="Disabled", reward_model=spy, step_limit=4)
    envs.reset(seed=0)
    envs.set_attr("step_limit", [2, 4])
    for _ in range(4):
        envs.step(np.ones((2, 2), np.float32))
    ended = [shown["agent_pos"][0] for shown in spy.seen[2:]]
    np.testing.assert_array_equal(ended[0], ended[-1])
    assert not np.array_equal(spy.seen[2]["agent_pos"][1], spy.seen[-1]["agent_pos"][1])
