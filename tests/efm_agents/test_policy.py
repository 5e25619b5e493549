from pathlib import Path

import numpy as np
import pytest
import torch

from efm_agents.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from efm_agents.model import Inputs, Policy
from efm_agents.policy import NetworkPolicy, load_policy, torch_generator
from efm_envs.errors import CheckpointError
from efm_envs.seeding import Stream

Observations = dict[str, np.ndarray]


@pytest.fixture
def observations() -> Observations:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(-1, 1, (32, size)).astype(np.float32) for name, size in (("agent_pos", 4), ("environment_state", 2))}


def load(run: Path, seed: int = 0, greedy: bool = False) -> NetworkPolicy:
    return load_policy(run, task="PointMass", seed=seed, greedy=greedy)


def test_the_same_seed_gives_the_same_actions_and_another_seed_others(sft_run: Path, observations: Observations) -> None:
    first, again, other = ([policy.act(observations) for _ in range(3)] for policy in (load(sft_run), load(sft_run), load(sft_run, 1)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], first[1]), "two control steps drew the same numbers"


def test_sampling_neither_reads_nor_moves_the_global_generator(sft_run: Path, observations: Observations) -> None:
    first = load(sft_run).act(observations)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(load(sft_run).act(observations), first)
    assert torch.equal(torch.get_rng_state(), before)


def log_probs(policy: NetworkPolicy, observations: Observations) -> np.ndarray:
    with torch.no_grad():
        return policy.network.log_probs(policy.network.inputs.features(observations)).double().numpy()


def test_a_greedy_policy_takes_the_most_likely_token_of_each_component(sft_run: Path, observations: Observations) -> None:
    policy = load(sft_run, greedy=True)
    actions = policy.act(observations)
    assert actions.dtype == np.float32 and actions.shape == (32, 2)
    np.testing.assert_array_equal(actions, policy.network.values.numpy()[log_probs(policy, observations).argmax(axis=-1)])
    np.testing.assert_array_equal(actions, policy.act(observations))


def test_tokens_are_sampled_as_often_as_the_distribution_says_and_components_apart() -> None:
    torch.manual_seed(0)
    network = Policy(Inputs(("agent_pos",), (4,)), (), action_size=2, action_bins=3).requires_grad_(False)
    policy = NetworkPolicy(network, torch_generator(0, Stream.POLICY))
    one = {"agent_pos": np.full((20_000, 4), 0.7, np.float32)}
    tokens = network.token_of(torch.from_numpy(policy.act(one))).numpy()
    joint = np.outer(*np.exp(log_probs(policy, {"agent_pos": one["agent_pos"][:1]})[0]))
    frequencies = np.zeros_like(joint)
    np.add.at(frequencies, (tokens[:, 0], tokens[:, 1]), 1 / 20_000)
    assert joint.min() > 0.02 and (np.abs(frequencies - joint) < 5 * np.sqrt(joint / 20_000)).all()


@pytest.mark.parametrize("greedy", [True, False])
def test_an_action_does_not_depend_on_the_observations_of_other_envs(greedy: bool, sft_run: Path, observations: Observations) -> None:
    expected = load(sft_run, greedy=greedy).act(observations)
    others = {name: np.concatenate([values[:1], -values[1:]]) for name, values in observations.items()}
    np.testing.assert_allclose(load(sft_run, greedy=greedy).act(others)[0], expected[0], atol=1e-6)


def test_a_greedy_action_does_not_depend_on_the_size_of_the_batch(sft_run: Path, observations: Observations) -> None:
    policy = load(sft_run, greedy=True)
    alone = [policy.act({name: values[i : i + 1] for name, values in observations.items()})[0] for i in range(32)]
    np.testing.assert_allclose(policy.act(observations), alone, atol=1e-6)


def test_seeds_and_streams_have_generators_of_their_own() -> None:
    keys = [(seed, stream) for seed in range(20) for stream in (Stream.POLICY, Stream.TRAINING)]
    drawn = {key: torch.randint(2**62, (), generator=torch_generator(*key)).item() for key in keys}
    assert len(set(drawn.values())) == 40 and drawn == {k: torch.randint(2**62, (), generator=torch_generator(*k)).item() for k in keys}


def test_a_policy_of_another_task_is_refused_and_both_tasks_are_named(sft_run: Path, tmp_path: Path) -> None:
    weights, facts = load_checkpoint(find_checkpoint(sft_run, "policy"), "policy")
    save_checkpoint(tmp_path / "p.safetensors", "policy", weights, {**facts, "task": "Insert"})
    with pytest.raises(CheckpointError, match="a policy for task 'Insert'; the env's task is 'PointMass'"):
        load(tmp_path / "p.safetensors")


def test_a_steps_to_go_model_is_refused_as_a_policy(sft_run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a checkpoint of 'steps_to_go' .* expected 'policy'"):
        load(sft_run / "checkpoints/steps_to_go.safetensors")
