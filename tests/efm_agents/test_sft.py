import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from efm_agents import sft
from efm_agents.checkpoint import load_checkpoint, unpack
from efm_agents.config import SFTConfig
from efm_agents.model import Inputs, Policy, StepsToGoNetwork
from efm_agents.run import read_log
from efm_agents.sft import Dataset, choose_success_threshold, policy_loss, steps_to_go_loss
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from tests.efm_agents.runs import assert_a_break_after_any_report_changes_nothing, assert_a_death_at_any_system_call_changes_nothing

TINY = SFTConfig(steps=20, validate_every=10, batch=8, hidden=(8,), bins=5)
INPUTS = Inputs(("x",), (1,))


def episode(length: int, seed: int = 0, size: int = 1) -> Episode:
    """A demonstration whose observations and actions are all different: 100 · seed + t."""
    t = 100.0 * seed + np.arange(length + 1)
    return Episode(
        env_id="EFM-PointMass-v0",
        seed=seed,
        observations={"x": np.repeat(t[:, None], size, axis=1).astype(np.float32)},
        actions=(t[:-1, None] + 0.5).astype(np.float32),
        rewards=np.zeros(length),
        steps_to_go=np.full(length + 1, np.nan),
        is_success=np.arange(length + 1) == length,
        predicted_success=np.zeros(length + 1, bool),
        end_reason="terminated",
    )


# -- labels -----------------------------------------------------------------------------------------------------------------------


def test_steps_to_go_counts_down_to_zero_at_the_last_observation() -> None:
    data = Dataset.of([episode(3), episode(1, 1), episode(2, 2)], INPUTS)
    assert data.steps_to_go.tolist() == [3, 2, 1, 0, 1, 0, 2, 1, 0]
    assert data.features[:, 0].tolist() == [0, 1, 2, 3, 100, 101, 200, 201, 202]


def test_an_action_is_learned_from_the_observation_before_it_and_none_from_an_end() -> None:
    data = Dataset.of([episode(3), episode(1, 1), episode(2, 2)], INPUTS)
    assert data.acting.tolist() == [0, 1, 2, 4, 6, 7]
    assert torch.equal(data.actions[data.acting], data.features[data.acting] + 0.5)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=40), st.floats(0.01, 0.5), st.integers(0, 5))
def test_whole_episodes_are_held_out_and_none_of_them_is_trained_on(lengths: list[int], fraction: float, seed: int) -> None:
    episodes = [episode(length, k) for k, length in enumerate(lengths)]
    training, held_out = sft._split(episodes, fraction, np.random.default_rng(seed))
    assert sorted(e.seed for e in (*training, *held_out)) == list(range(len(lengths)))
    assert training and held_out and abs(len(held_out) - fraction * len(lengths)) <= 1


# -- losses -----------------------------------------------------------------------------------------------------------------------


def data_and_rows() -> tuple[Dataset, torch.Tensor]:
    return Dataset.of([episode(5), episode(7, 1)], INPUTS), torch.tensor([0, 3, 3, 8])


def test_the_steps_to_go_loss_is_the_cross_entropy_of_the_true_bin() -> None:
    data, rows = data_and_rows()
    network = StepsToGoNetwork(INPUTS, (4,), bins=4, max_steps_to_go=6.0).requires_grad_(False)
    network.normalise(data.features)
    logits = network(data.features[rows]).double().numpy()
    bins = np.minimum(data.steps_to_go[rows].numpy() // 1.5, 3).astype(int)
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), bins])
    assert steps_to_go_loss(network, data, rows).item() == pytest.approx(expected, rel=1e-5)


def test_the_policy_loss_is_the_mean_cross_entropy_of_the_tokens_of_the_actions() -> None:
    data, rows = data_and_rows()
    policy = Policy(INPUTS, (4,), 1, 3).requires_grad_(False)  # tokens -1, 0 and 1
    policy.normalise(data.features)
    acted = dataclasses.replace(data, actions=torch.tensor([[-0.9], [0.4], [0.6], [-0.2]]).repeat(4, 1)[: len(data.features)])
    logits = policy(data.features[rows]).double().numpy()
    tokens = np.array([0, 1, 2, 1] * 4)[rows]
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), tokens])
    assert policy_loss(policy, acted, rows).item() == pytest.approx(expected, rel=1e-5)


# -- success threshold ------------------------------------------------------------------------------------------------------------


def f1(predicted: np.ndarray, true: np.ndarray) -> float:
    return 2 * float((predicted & true).sum()) / float(predicted.sum() + true.sum())


class ReadsSteps(StepsToGoNetwork):
    """Its d is the observation."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        far = (features[:, 0] - self.centres[0]) / (self.centres[1] - self.centres[0])
        return torch.stack([1 - far, far], dim=1).clamp_min(1e-30).log()


def reads(d: Sequence[float], is_last: Sequence[bool]) -> tuple[StepsToGoNetwork, Dataset]:
    network = ReadsSteps(INPUTS, (), bins=2, max_steps_to_go=200.0)  # centres 50 and 150: d within them
    features = torch.tensor(d, dtype=torch.float32)[:, None]
    labels = torch.tensor([0 if last else 1 for last in is_last])
    return network, Dataset(features, torch.zeros(len(d), 1), labels, torch.zeros(0).long())


def test_the_threshold_separates_the_ends_from_the_rest_where_it_can() -> None:
    network, data = reads([60, 90, 64, 80, 62, 70], [True, False, True, False, True, False])
    assert choose_success_threshold(network, data) == pytest.approx(64, rel=1e-5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(60, 75), st.booleans()), min_size=1, max_size=25))
def test_no_threshold_agrees_better_with_the_ends_of_demonstrations(rows: list[tuple[int, bool]]) -> None:
    is_last = np.array([last for _, last in rows])
    assume(is_last.any())
    network, data = reads([float(d) for d, _ in rows], list(is_last))
    d = network.steps_to_go(data.features).mean
    chosen = choose_success_threshold(network, data)
    assert f1(d <= chosen, is_last) == pytest.approx(max(f1(d <= s, is_last) for s in d))


# -- training ---------------------------------------------------------------------------------------------------------------------


def test_each_best_checkpoint_is_chosen_by_its_own_held_out_loss(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    states = {}

    def keep(_: str, step: int, *__: object) -> None:
        states[step] = load_checkpoint(tmp_path / "checkpoints/state.safetensors", "sft-state")[0]

    config = SFTConfig(steps=400, validate_every=20, batch=64, hidden=(64,), learning_rate=1e-2, steps_to_go_learning_rate=3e-2)
    sft.train(demonstrations[:12], tmp_path, config, task="PointMass", report=keep)
    metrics = read_log(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(20, 401, 20))
    chosen = {}
    for name in ("policy", "steps_to_go"):
        weights, facts = load_checkpoint(tmp_path / f"checkpoints/{name}.safetensors", name)
        best = min(metrics, key=lambda row: row[f"validation/{name}"])
        assert facts["best"] == {"loss": best[f"validation/{name}"], "step": best["step"]}
        there = unpack(name, states[best["step"]])
        assert weights.keys() == there.keys() and all(torch.equal(weights[k], there[k]) for k in weights)
        chosen[name] = best["step"]
    assert len({*chosen.values(), 400}) == 3, f"this run does not tell the rules apart: {chosen}"


def test_the_threshold_of_the_checkpoint_is_that_of_its_weights_on_held_out_demonstrations(
    demonstrations: Sequence[Episode], sft_run: Path
) -> None:
    weights, facts = load_checkpoint(sft_run / "checkpoints/steps_to_go.safetensors", "steps_to_go")
    config = json.loads((sft_run / "config.json").read_text())
    network = StepsToGoNetwork.from_config(facts["model"])
    network.load_state_dict(weights)
    from efm_envs.seeding import Stream, generator

    _, held_out = sft._split(demonstrations, config["validation_fraction"], generator(Stream.TRAINING, config["seed"]))
    d = network.steps_to_go(torch.cat([network.inputs.features(e.observations) for e in held_out])).mean
    is_last = np.concatenate([np.arange(len(e) + 1) == len(e) for e in held_out])
    assert f1(d <= facts["success_threshold"], is_last) == pytest.approx(max(f1(d <= s, is_last) for s in d))


def test_stage_1_learns(demonstrations: Sequence[Episode], sft_run: Path) -> None:
    """Against what does not look: one distribution, the demonstrations' own, for all observations."""
    rows = read_log(sft_run / "metrics.jsonl")
    config = load_checkpoint(sft_run / "checkpoints/policy.safetensors", "policy")[1]["model"]
    policy = Policy.from_config(config)

    def entropy(labels: np.ndarray) -> float:
        return float(stats.entropy(np.bincount(labels)))

    bins = np.concatenate([np.minimum(np.arange(len(e) + 1) // 2.8, 49) for e in demonstrations]).astype(int)
    tokens = policy.token_of(torch.from_numpy(np.concatenate([e.actions for e in demonstrations]))).numpy()
    assert min(row["validation/steps_to_go"] for row in rows) < entropy(bins)
    assert min(row["validation/policy"] for row in rows) < entropy(tokens[:, 0]) + entropy(tokens[:, 1]) - 0.1


def test_another_seed_is_another_run(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    files = []
    for seed in (0, 0, 1):
        run = tmp_path / str(len(files))
        sft.train(demonstrations[:6], run, dataclasses.replace(TINY, seed=seed), task="PointMass")
        files.append(unpack("", {"/" + k: v for k, v in load_checkpoint(run / "checkpoints/policy.safetensors", "policy")[0].items()}))
    first, again, other = files
    assert all(torch.equal(first[k], again[k]) for k in first) and not all(torch.equal(first[k], other[k]) for k in first)


def test_training_leaves_the_global_generators_alone(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    sft.train(demonstrations[:6], tmp_path, TINY, task="PointMass")
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


# -- resuming ---------------------------------------------------------------------------------------------------------------------


def test_a_run_broken_off_at_any_validation_ends_the_same_to_the_last_bit(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=35)  # the last stretch is a short one

    def program(folder: Path, **kwargs: object) -> Path:
        return sft.train(demonstrations[:6], folder, config, task="PointMass", **kwargs)

    assert_a_break_after_any_report_changes_nothing(program, tmp_path, reports=4)


def test_a_run_that_dies_in_any_write_ends_the_same_to_the_last_bit(
    demonstrations: Sequence[Episode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(folder: Path) -> Path:
        return sft.train(demonstrations[:6], folder, TINY, task="PointMass")

    assert_a_death_at_any_system_call_changes_nothing(program, tmp_path, monkeypatch)


# -- refusals ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("learning_rate", 0.125), ("seed", 7), ("hidden", (9, 9)), ("validation_fraction", 0.25), ("steps", 30)]
)
def test_a_folder_with_other_settings_is_refused_and_the_setting_is_named(
    name: str, value: object, demonstrations: Sequence[Episode], tmp_path: Path
) -> None:
    sft.train(demonstrations[:6], tmp_path, TINY, task="PointMass")
    with pytest.raises(EFMError, match=rf"other settings \({name}: .* there, .* wanted\)\. Choose another folder"):
        sft.train(demonstrations[:6], tmp_path, dataclasses.replace(TINY, **{name: value}), task="PointMass")


def test_a_folder_that_holds_a_run_on_other_demonstrations_is_refused(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    sft.train(demonstrations[:6], tmp_path, TINY, task="PointMass")
    with pytest.raises(EFMError, match="demonstrations: "):
        sft.train(demonstrations[6:12], tmp_path, TINY, task="PointMass")


def test_one_demonstration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EFMError, match=r"at least 2 demonstrations, one of them to hold out; got 1\."):
        sft.train([episode(5)], tmp_path, TINY, task="PointMass")


def test_demonstrations_that_failed_are_refused_and_the_first_is_named(tmp_path: Path) -> None:
    failed = dataclasses.replace(episode(5, seed=77), end_reason="truncated")
    with pytest.raises(EFMError, match="1 did not, the first with seed 77"):
        sft.train([episode(5), failed, episode(5)], tmp_path, TINY, task="PointMass")


def test_pictures_are_refused(tmp_path: Path) -> None:
    picture = dataclasses.replace(episode(5), observations={"pixels/top": np.zeros((6, 8, 8, 3), np.uint8)})
    with pytest.raises(EFMError, match=r"\['pixels/top'\]\. Collect them with obs_mode='state'"):
        sft.train([picture, picture], tmp_path, TINY, task="PointMass")


def test_a_refused_call_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(EFMError):
        sft.train([episode(5)], tmp_path / "run", TINY, task="PointMass")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_and_says_what_to_do(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    with pytest.raises(EFMError, match="the loss became nan before step 10: lower learning_rate, now 1e\\+30"):
        sft.train(demonstrations[:6], tmp_path, dataclasses.replace(TINY, learning_rate=1e30), task="PointMass")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", 0, "at least 1"),
        ("batch", 0, "at least 1"),
        ("bins", 0, "at least 1"),
        ("validate_every", 0, "at least 1"),
        ("learning_rate", 0.0, "above 0"),
        ("max_steps_to_go", -1.0, "above 0"),
        ("validation_fraction", 0.0, "above 0"),
        ("validation_fraction", 0.6, "at most 0.5"),
        ("learning_rate", float("nan"), "above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, value: float, expected: str) -> None:
    with pytest.raises((EFMError, ValueError), match=rf"SFTConfig\.{name} must be {expected}.*; got {value!r}"):
        SFTConfig(**{name: value})
