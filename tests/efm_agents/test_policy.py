import math
from pathlib import Path

import numpy as np
import pytest
import torch

from efm_agents.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from efm_agents.inputs import Reads
from efm_agents.policy import ChunkPolicy, ModelPolicy, load_model, load_policy, make_policy, torch_generator
from efm_agents.practice import Decisions
from efm_agents.rollout import make_vector_env, rollout
from efm_envs.errors import CheckpointError, EFMError
from efm_envs.seeding import Stream
from tests.efm_agents.small import POINT_MASS, Says, headed

Observations = dict[str, np.ndarray]


@pytest.fixture
def observations() -> Observations:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(-1, 1, (32, size)).astype(np.float32) for name, size in (("agent_pos", 4), ("environment_state", 2))}


def load(run: Path, seed: int = 0, greedy: bool = False) -> ModelPolicy:
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


def log_probs(policy: ModelPolicy, observations: Observations) -> np.ndarray:
    with torch.no_grad():
        return policy.model.actions(policy.model.inputs(observations)).log_probs[:, 0].double().numpy()


def test_a_greedy_policy_takes_the_most_likely_token_of_each_component(sft_run: Path, observations: Observations) -> None:
    policy = load(sft_run, greedy=True)
    actions = policy.act(observations)
    assert actions.dtype == np.float32 and actions.shape == (32, 2)
    np.testing.assert_array_equal(actions, policy.model.action_head.tokens.values.numpy()[log_probs(policy, observations).argmax(axis=-1)])
    np.testing.assert_array_equal(actions, policy.act(observations))


def test_tokens_are_sampled_as_often_as_the_distribution_says_and_components_apart() -> None:
    model = headed(Reads(("agent_pos",), (4,)), action_bins=3).requires_grad_(False)
    policy = ModelPolicy(model, torch_generator(0, Stream.POLICY))
    one = {"agent_pos": np.full((20_000, 4), 0.7, np.float32)}
    tokens = model.action_head.tokens.of(torch.from_numpy(policy.act(one))).numpy()
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


def test_a_model_that_was_loaded_is_frozen(sft_run: Path) -> None:
    for name in ("policy", "steps_to_go"):
        assert not any(weight.requires_grad for weight in load_model(sft_run, name, "PointMass").parameters())


# -- chunks -----------------------------------------------------------------------------------------------------------------------


def seen(*x: float) -> Observations:
    return {"x": np.array(x, np.float32)[:, None]}


def walk(policy: ModelPolicy, *steps: tuple[float, ...]) -> np.ndarray:
    """(T, B): the actions at T steps, at each of which every env sees a number."""
    return np.array([policy.act(seen(*x))[:, 0] for x in steps])


def said(x: float, place: int) -> float:
    """What `Says` says of x about the step that is `place` steps later."""
    return x + 0.01 * (place + 1)


def every(rows: int) -> np.ndarray:
    return np.ones(rows, bool)


def only(row: int, rows: int) -> np.ndarray:
    return np.arange(rows) == row


def test_one_action_at_a_time_needs_no_memory() -> None:
    assert type(make_policy(Says(1), None)) is ModelPolicy and type(make_policy(Says(2), None)) is ChunkPolicy
    assert not hasattr(make_policy(Says(1), None), "reset")


def test_an_unknown_execution_is_refused() -> None:
    with pytest.raises(EFMError, match="execution is one of open-loop, ensemble; got 'closed'"):
        make_policy(Says(2), None, "closed")


@pytest.mark.parametrize("k", [2, 3, 5])
def test_open_loop_carries_out_exactly_what_was_said_before_it_looks_again(k: int) -> None:
    policy = ChunkPolicy(model := Says(k), None)
    policy.reset(every(2))
    actions = walk(policy, *((float(t), 10.0 + t) for t in range(2 * k + 1)))
    expected = [[said(row + t - t % k, t % k) for row in (0.0, 10.0)] for t in range(2 * k + 1)]
    np.testing.assert_allclose(actions, expected, rtol=1e-6)
    assert actions.dtype == np.float32 and len(model.looks) == 3


def test_notes_hold_the_chunks_that_were_said_in_the_order_in_which_they_were_said() -> None:
    policy = ChunkPolicy(Says(3), None)
    policy.reset(every(2))
    walk(policy, *((float(t), 10.0 + t) for t in range(7)))
    for row, start in enumerate((0.0, 10.0)):
        chunks = np.array(policy.notes(row)["chunks"])
        expected = [[[said(start + t, place)] for place in range(3)] for t in (0, 3, 6)]
        np.testing.assert_allclose(chunks, expected, rtol=1e-6)


def test_notes_that_were_taken_do_not_change_with_the_next_look() -> None:
    policy = ChunkPolicy(Says(2), None)
    policy.reset(every(1))
    walk(policy, (0.0,), (1.0,))
    before = policy.notes(0)
    walk(policy, (2.0,))
    assert len(before["chunks"]) == 1 and len(policy.notes(0)["chunks"]) == 2


def test_an_episode_that_starts_is_forgotten_and_the_others_go_on() -> None:
    policy = ChunkPolicy(model := Says(3), None)
    policy.reset(every(3))
    first = walk(policy, (0.0, 10.0, 20.0), (1.0, 11.0, 21.0))
    policy.reset(only(1, 3))
    then = walk(policy, (2.0, 12.0, 22.0), (3.0, 13.0, 23.0))
    np.testing.assert_allclose(first, [[said(r, 0) for r in (0, 10, 20)], [said(r, 1) for r in (0, 10, 20)]], rtol=1e-6)
    np.testing.assert_allclose(then, [[said(0, 2), said(12, 0), said(20, 2)], [said(3, 0), said(12, 1), said(23, 0)]], rtol=1e-6)
    assert [len(policy.notes(row)["chunks"]) for row in range(3)] == [2, 1, 2]
    assert model.looks == [[0, 10, 20], [12], [3, 23]], "an env was looked at before its chunk was carried out"


def ensembled(looks: list[float], k: int) -> float:
    """By hand: what the looks of an episode so far, oldest first, said about now, weighted by exp(0.1 · age)."""
    recent = looks[-k:]
    about_now = [said(x, age) for age, x in enumerate(reversed(recent))]
    weights = [math.exp(0.1 * age) for age in range(len(recent))]
    return sum(w * a for w, a in zip(weights, about_now, strict=True)) / sum(weights)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_an_ensemble_averages_what_the_last_looks_said_about_now_older_ones_counting_more(k: int) -> None:
    policy = ChunkPolicy(Says(k), None, "ensemble")
    policy.reset(every(2))
    steps = [(float(t * t), 10.0 - t) for t in range(2 * k + 1)]
    expected = [[ensembled([x[row] for x in steps[: t + 1]], k) for row in (0, 1)] for t in range(2 * k + 1)]
    np.testing.assert_allclose(walk(policy, *steps), expected, rtol=1e-5)


def test_an_ensemble_forgets_only_the_episodes_that_start() -> None:
    policy = ChunkPolicy(Says(3), None, "ensemble")
    policy.reset(every(2))
    walk(policy, (0.0, 50.0), (1.0, 60.0))
    policy.reset(only(1, 2))
    found = walk(policy, (4.0, 10.0), (9.0, 30.0))
    expected = [[ensembled([0, 1, 4], 3), ensembled([10], 3)], [ensembled([0, 1, 4, 9], 3), ensembled([10, 30], 3)]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("execution", ["open-loop", "ensemble"])
def test_a_policy_that_was_told_of_no_start_takes_its_first_observation_for_one(execution: str) -> None:
    told, untold = (ChunkPolicy(Says(3), None, execution) for _ in range(2))
    told.reset(every(2))
    steps = [(float(t), 10.0 - t) for t in range(4)]
    np.testing.assert_array_equal(walk(told, *steps), walk(untold, *steps))


@pytest.mark.parametrize("execution", ["open-loop", "ensemble"])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_policy_can_go_to_another_number_of_envs(execution: str, rows: int) -> None:
    """As one that was evaluated in 8 envs, and then in 1."""
    used, fresh = (ChunkPolicy(Says(3), None, execution) for _ in range(2))
    used.reset(every(2))
    walk(used, (5.0, 6.0), (7.0, 8.0))
    for policy in (used, fresh):
        policy.reset(every(rows))
    steps = [tuple(float(t + 10 * row) for row in range(rows)) for t in range(4)]
    np.testing.assert_array_equal(walk(used, *steps), walk(fresh, *steps))
    assert used.notes(0) == fresh.notes(0)


def test_chunks_are_carried_out_in_envs_whose_episodes_start_at_different_times() -> None:
    """The actions of every episode are its chunks, one after another; and stage 2 finds in each what the model read."""
    reads = Reads(("agent_pos", "environment_state"), (4, 2))
    model = headed(reads, chunk=3).requires_grad_(False)
    envs = make_vector_env(POINT_MASS, 3, reward_model="oracle", terminate_on="predicted", success_threshold=11.0, step_limit=20)
    episodes = list(rollout(make_policy(model, torch_generator(0, Stream.POLICY)), envs, range(8)))
    envs.close()
    assert len({len(e) for e in episodes}) > 2
    for episode in episodes:
        chunks = np.array(episode.notes["chunks"], np.float32)
        assert len(chunks) == -(-len(episode) // 3)
        np.testing.assert_array_equal(chunks.reshape(-1, 2)[: len(episode)], episode.actions)
    assert len(Decisions.of(episodes, model, 0.9)) == sum(-(-len(e) // 3) for e in episodes)
