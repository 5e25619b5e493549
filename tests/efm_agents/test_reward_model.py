import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec

from efm_agents.checkpoint import load_checkpoint, save_checkpoint
from efm_agents.reward_model import CheckpointRewardModel, card_beside
from efm_envs import testing
from efm_envs.data import Episode
from efm_envs.errors import CheckpointError, EFMError, RewardModelError, UnknownOptionError
from efm_envs.rewards import make_reward_model
from efm_envs.rollout import rollout
from efm_envs.task import Goals

POINT_MASS = "EFM-PointMass-v0"


@pytest.fixture
def spec(sft_run: Path) -> dict[str, Any]:
    return {"id": "checkpoint", "path": str(sft_run)}


def changed(sft_run: Path, path: Path, **facts: Any) -> str:
    """Writes the run's steps-to-go checkpoint with other facts, and returns its path."""
    weights, config = load_checkpoint(sft_run / "checkpoints/steps_to_go.safetensors", "steps_to_go")
    save_checkpoint(path, "steps_to_go", weights, {**config, **facts})
    return str(path)


def test_a_trained_model_is_a_reward_model_by_name(spec: dict[str, Any]) -> None:
    env = gym.make(POINT_MASS, reward_model=spec)
    _, before = env.reset(seed=0)
    _, reward, _, _, after = env.step(env.action_space.sample())
    assert isinstance(env.unwrapped.signal.model, CheckpointRewardModel)
    assert reward == before["steps_to_go"] - after["steps_to_go"] != 0.0
    env.close()


def test_a_trained_model_keeps_the_laws_of_reward_models(spec: dict[str, Any]) -> None:
    testing.check_reward_model(spec, POINT_MASS)


def test_an_env_with_a_trained_model_keeps_the_laws_of_envs(spec: dict[str, Any]) -> None:
    testing.check_task(POINT_MASS, reward_model=spec)


def test_what_the_model_said_online_it_says_again_of_the_stored_observations(
    spec: dict[str, Any], demonstrations: Sequence[Episode]
) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (200, 3, 2)).astype(np.float32)

    class Random:
        steps = iter(actions)

        def act(self, observations: Any) -> np.ndarray:
            return next(self.steps)

    episodes = list(rollout(Random(), POINT_MASS, range(3), num_envs=3, reward_model=spec, terminate_on="never"))
    model = make_reward_model(spec)
    for episode in episodes:
        offline = model.steps_to_go({name: episode.observations[name] for name in model.needs}, Goals([])).mean
        np.testing.assert_allclose(offline, episode.steps_to_go, rtol=1e-5)
        np.testing.assert_array_equal(episode.predicted_success, episode.steps_to_go <= model.success_threshold)
        np.testing.assert_allclose(episode.rewards, episode.steps_to_go[:-1] - episode.steps_to_go[1:], atol=1e-9)
    assert len(episodes) == 3


def test_a_trained_model_reads_only_what_the_policy_sees(spec: dict[str, Any]) -> None:
    model = make_reward_model(spec)
    env = gym.make(POINT_MASS)
    assert not model.is_privileged and set(model.needs) <= set(env.observation_space.spaces)


def test_a_trained_model_is_frozen(spec: dict[str, Any]) -> None:
    assert not any(parameter.requires_grad for parameter in make_reward_model(spec).model.parameters())


def test_the_fingerprint_is_that_of_the_weights_and_not_of_the_path(sft_run: Path, tmp_path: Path) -> None:
    file = sft_run / "checkpoints/steps_to_go.safetensors"
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())
    weights, config = load_checkpoint(file, "steps_to_go")
    name = "backbone.layers.steps_to_go.0.weight"
    weights[name][0, 0] += 2**-10
    save_checkpoint(tmp_path / "other.safetensors", "steps_to_go", weights, config)
    prints = [CheckpointRewardModel(p).fingerprint for p in (sft_run, file, copy, tmp_path / "other.safetensors")]
    assert prints[0] == prints[1] == prints[2] != prints[3]


def test_the_fingerprint_changes_with_the_success_threshold(sft_run: Path, tmp_path: Path) -> None:
    other = changed(sft_run, tmp_path / "c.safetensors", success_threshold=99.0)
    assert CheckpointRewardModel(other).fingerprint != CheckpointRewardModel(str(sft_run)).fingerprint


def test_the_spec_survives_json_and_makes_the_same_model_again(spec: dict[str, Any]) -> None:
    env = gym.make(POINT_MASS, reward_model=spec)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    models = [e.unwrapped.signal.model for e in (env, again)]
    assert models[0].fingerprint == models[1].fingerprint and models[0].spec == models[1].spec == spec
    assert env.reset(seed=3)[1] == again.reset(seed=3)[1]


def test_making_an_env_with_a_trained_model_leaves_the_global_generator_alone(spec: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    gym.make(POINT_MASS, reward_model=spec).reset(seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_path_object_will_do_as_well_as_a_string(sft_run: Path) -> None:
    assert make_reward_model({"id": "checkpoint", "path": sft_run}).spec == {"id": "checkpoint", "path": str(sft_run)}


def test_the_checkpoints_threshold_holds_where_no_other_is_given(sft_run: Path, tmp_path: Path) -> None:
    path = changed(sft_run, tmp_path / "c.safetensors", success_threshold=12.5)
    make = {"reward_model": {"id": "checkpoint", "path": path}}
    assert gym.make(POINT_MASS, **make).unwrapped.signal.success_threshold == 12.5
    assert gym.make(POINT_MASS, success_threshold=3, **make).unwrapped.signal.success_threshold == 3.0


def test_a_model_of_another_task_is_refused_and_both_tasks_are_named(sft_run: Path, tmp_path: Path) -> None:
    path = changed(sft_run, tmp_path / "c.safetensors", task="Insert")
    with pytest.raises(RewardModelError, match="made for task 'Insert'; this env's task is 'PointMass'"):
        gym.make(POINT_MASS, reward_model={"id": "checkpoint", "path": path})


def test_a_model_that_needs_what_the_env_does_not_show_is_refused(sft_run: Path, tmp_path: Path) -> None:
    model = load_checkpoint(sft_run / "checkpoints/steps_to_go.safetensors", "steps_to_go")[1]["model"]
    reads = {**model["reads"], "names": ["agent_pos", "whiskers"], "sizes": [4, 2]}
    path = changed(sft_run, tmp_path / "c.safetensors", model={**model, "reads": reads})
    with pytest.raises(EFMError, match="reward model 'checkpoint' needs: 'whiskers'"):
        gym.make(POINT_MASS, reward_model={"id": "checkpoint", "path": path})


def test_a_truncated_file_is_refused(sft_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    whole = (sft_run / "checkpoints/steps_to_go.safetensors").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"c\.safetensors is not a complete checkpoint"):
        gym.make(POINT_MASS, reward_model={"id": "checkpoint", "path": str(path)})


def test_a_path_where_nothing_is_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no 'steps_to_go' checkpoint in .*nowhere"):
        gym.make(POINT_MASS, reward_model={"id": "checkpoint", "path": str(tmp_path / "nowhere")})
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nothing\.safetensors"):
        gym.make(POINT_MASS, reward_model={"id": "checkpoint", "path": str(tmp_path / "nothing.safetensors")})


def test_a_policy_is_refused_as_a_reward_model(sft_run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a checkpoint of 'policy' .* expected 'steps_to_go'"):
        gym.make(POINT_MASS, reward_model={"id": "checkpoint", "path": str(sft_run / "checkpoints/policy.safetensors")})


def test_a_missing_path_and_an_unknown_option_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(RewardModelError, match="needs 'path'"):
        gym.make(POINT_MASS, reward_model="checkpoint")
    with pytest.raises(UnknownOptionError, match="unknown option of reward model 'checkpoint': 'pth'"):
        gym.make(POINT_MASS, reward_model={"id": "checkpoint", "pth": "x"})


# -- what an audit recommended ----------------------------------------------------------------------------------------------------


def with_card(sft_run: Path, folder: Path, **facts: Any) -> str:
    """Copies the run's steps-to-go checkpoint, lays a card beside it, and returns its path."""
    path = changed(sft_run, folder / "steps_to_go.safetensors")
    recommended = {"success_threshold": 3.25, "success_k_of_n": [2, 3]}
    card = {"fingerprint": CheckpointRewardModel(path).fingerprint, "recommended": recommended, **facts}
    card_beside(Path(path)).write_text(json.dumps(card))
    return path


def test_the_recommended_threshold_is_the_default_afterwards(sft_run: Path, tmp_path: Path) -> None:
    path = with_card(sft_run, tmp_path)
    signal = gym.make(POINT_MASS, reward_model={"id": "checkpoint", "path": path}).unwrapped.signal
    assert (signal.success_threshold, signal.success_k_of_n) == (3.25, (2, 3))


def test_a_card_of_other_weights_or_without_advice_changes_nothing(sft_run: Path, tmp_path: Path) -> None:
    chosen = CheckpointRewardModel(str(sft_run)).success_threshold
    for i, facts in enumerate(({"fingerprint": "other"}, {"recommended": None})):
        (tmp_path / str(i)).mkdir()
        model = CheckpointRewardModel(with_card(sft_run, tmp_path / str(i), **facts))
        assert (model.success_threshold, model.success_k_of_n) == (chosen, (1, 1))


def test_a_damaged_card_is_named(sft_run: Path, tmp_path: Path) -> None:
    path = with_card(sft_run, tmp_path)
    card_beside(Path(path)).write_text("{")
    with pytest.raises(CheckpointError, match=r"steps_to_go\.card\.json is not a complete card .* Delete it, or run `efm audit` again"):
        CheckpointRewardModel(path)
