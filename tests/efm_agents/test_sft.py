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
from torch import Tensor

from efm_agents import sft
from efm_agents.backbones.base import ACTION
from efm_agents.checkpoint import load_checkpoint, unpack
from efm_agents.config import ModelConfig, SFTConfig
from efm_agents.dataset import Dataset, Mixed, Rows, split
from efm_agents.inputs import NUMBERS, WORDS, Inputs, Reads, take
from efm_agents.model import HeadedModel, build_model, rebuild_model
from efm_agents.policy import load_policy
from efm_agents.run import read_log
from efm_agents.sft import choose_success_threshold, instruction_loss, policy_loss, steps_to_go_loss
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from efm_envs.seeding import Stream, generator
from tests.efm_agents.runs import assert_a_break_after_any_report_changes_nothing, assert_a_death_at_any_system_call_changes_nothing
from tests.efm_agents.small import MLP, ONE_NUMBER, TINY_MODEL, TINY_SFT, episode, headed, is_same, of_numbers

TINY = TINY_SFT
WIDER = dataclasses.replace(MLP, hidden=(9, 9))


# -- losses -----------------------------------------------------------------------------------------------------------------------


def data_and_rows(model: HeadedModel) -> tuple[Dataset, Tensor]:
    data = Dataset.of([Mixed([episode(5), episode(7, 1)])], model)
    model.prepare(data.inputs)
    return data, torch.tensor([0, 3, 3, 8])


def test_the_steps_to_go_loss_is_the_cross_entropy_of_the_true_bin() -> None:
    model = headed(ONE_NUMBER, bins=4, max_steps_to_go=6.0, action_size=1, backbone_options={"normalise_steps_to_go": True})
    data, rows = data_and_rows(model)
    logits = model.steps_to_go_logits(take(data.inputs, rows)).detach().double().numpy()
    bins = np.minimum(data.steps_to_go[rows].numpy() // 1.5, 3).astype(int)
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), bins]
    np.testing.assert_allclose(steps_to_go_loss(model, data, rows).detach(), expected, rtol=1e-5)


def test_the_policy_loss_is_the_cross_entropy_of_the_tokens_of_the_actions() -> None:
    model = headed(ONE_NUMBER, action_size=1, action_bins=3)  # tokens -1, 0 and 1
    data, rows = data_and_rows(model)
    acted = dataclasses.replace(data, actions=torch.tensor([[-0.9], [0.4], [0.6], [-0.2]]).repeat(4, 1)[: len(data.steps_to_go), None])
    logits = model.action_head.linear(model.read(take(data.inputs, rows), ACTION)).detach().double().numpy()
    tokens = np.array([0, 1, 2, 1] * 4)[rows]
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), tokens]
    np.testing.assert_allclose(policy_loss(model, acted, rows).detach(), expected, rtol=1e-5)


def test_the_validation_loss_is_the_mean_over_all_rows_however_many_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = headed(ONE_NUMBER, action_size=1)
    data, _ = data_and_rows(model)
    rows = data.telling.all()
    expected = steps_to_go_loss(model, data, rows).mean().item()
    for at_once in (1, 3, 100):
        monkeypatch.setattr(sft, "VALIDATION_ROWS", at_once)
        assert sft.validation_loss(model, data, steps_to_go_loss, rows) == pytest.approx(expected, rel=1e-5)


def test_the_instruction_is_told_from_the_first_and_the_last_observation_without_being_read(
    spoken_demonstrations: Sequence[Episode],
) -> None:
    reads = Reads.of(spoken_demonstrations, ("red moon", "blue cube", "green star", "yellow pentagon"))
    model = headed(reads, backbone="tiny", tells_instruction=True).requires_grad_(False)
    data = Dataset.of([Mixed(spoken_demonstrations)], model)
    some = torch.tensor([0, 2, 2])
    loss = instruction_loss(model, data, some)
    first, last = (take(data.inputs, data.ends[some, side]) for side in (0, 1))
    silent = {**first, WORDS: torch.zeros_like(first[WORDS])}
    said = first[WORDS]
    log_probs = model.instruction_head(*(model.read({k: v for k, v in x.items() if k != WORDS}, "instruction") for x in (first, last)))
    assert log_probs.shape == (3, reads.longest, 2 + len(reads.vocabulary))
    np.testing.assert_allclose(log_probs.exp().sum(dim=-1), 1.0, rtol=1e-4)
    by_hand = [-sum(log_probs[i, place, said[i, place]].item() for place in range(reads.longest)) for i in range(3)]
    np.testing.assert_allclose(loss, by_hand, rtol=1e-4)
    assert loss[1] == loss[2] != loss[0] and not torch.equal(model.instruction_log_prob(silent, last), -loss)


# -- success threshold ------------------------------------------------------------------------------------------------------------


def f1(predicted: np.ndarray, true: np.ndarray) -> float:
    return 2 * float((predicted & true).sum()) / float(predicted.sum() + true.sum())


class ReadsSteps(HeadedModel):
    """Its d is the observation."""

    def steps_to_go_logits(self, inputs: Inputs) -> Tensor:
        far = (inputs[NUMBERS][:, 0] - 50.0) / 100.0
        return torch.stack([1 - far, far], dim=1).clamp_min(1e-30).log()


def reads(d: Sequence[float], is_last: Sequence[bool]) -> tuple[HeadedModel, Dataset]:
    config = headed(ONE_NUMBER, bins=2, max_steps_to_go=200.0).config  # centres 50 and 150: d within them
    model = ReadsSteps(ONE_NUMBER, **{name: value for name, value in config.items() if name != "reads"})
    labels = torch.tensor([0 if last else 1 for last in is_last])
    rows = Rows.of([(np.arange(len(d)), 1.0)])
    return model, Dataset(of_numbers(*([x] for x in d)), torch.zeros(len(d), 1, 1), labels, rows, rows, torch.zeros(0, 2).long())


def test_the_threshold_separates_the_ends_from_the_rest_where_it_can() -> None:
    model, data = reads([60, 90, 64, 80, 62, 70], [True, False, True, False, True, False])
    assert choose_success_threshold(model, data) == pytest.approx(64, rel=1e-5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(60, 75), st.booleans()), min_size=1, max_size=25))
def test_no_threshold_agrees_better_with_the_ends_of_demonstrations(rows: list[tuple[int, bool]]) -> None:
    is_last = np.array([last for _, last in rows])
    assume(is_last.any())
    model, data = reads([float(d) for d, _ in rows], list(is_last))
    d = model.steps_to_go(data.inputs).mean
    chosen = choose_success_threshold(model, data)
    assert f1(d <= chosen, is_last) == pytest.approx(max(f1(d <= s, is_last) for s in d))


# -- training ---------------------------------------------------------------------------------------------------------------------


def test_each_best_checkpoint_is_chosen_by_its_own_held_out_loss(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    states = {}

    def keep(_: str, step: int, *__: object) -> None:
        states[step] = load_checkpoint(tmp_path / "checkpoints/state.safetensors", "sft-state")[0]

    model = ModelConfig(backbone="mlp", hidden=(64,), max_steps_to_go=140.0)
    config = SFTConfig(steps=400, validate_every=20, batch=64, model=model, learning_rate=1e-2, steps_to_go_learning_rate=3e-2, warmup=0)
    sft.train(demonstrations[:12], tmp_path, config, task="PointMass", report=keep)
    metrics = read_log(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(20, 401, 20))
    chosen = {}
    for name in ("policy", "steps_to_go"):
        weights, facts = load_checkpoint(tmp_path / f"checkpoints/{name}.safetensors", name)
        best = min(metrics, key=lambda row: row[f"validation/{name}"])
        assert facts["best"] == {"loss": best[f"validation/{name}"], "step": best["step"]}
        there = unpack("model", states[best["step"]])
        assert is_same(weights, there)
        chosen[name] = best["step"]
    assert len({*chosen.values(), 400}) == 3, f"this run does not tell the rules apart: {chosen}"


def test_the_threshold_of_the_checkpoint_is_that_of_its_weights_on_held_out_demonstrations(
    demonstrations: Sequence[Episode], sft_run: Path
) -> None:
    weights, facts = load_checkpoint(sft_run / "checkpoints/steps_to_go.safetensors", "steps_to_go")
    config = json.loads((sft_run / "config.json").read_text())
    model = rebuild_model(facts["model"], weights)
    rng = generator(Stream.TRAINING, config["seed"])
    _, (held_out,) = split([Mixed(demonstrations)], config["validation_fraction"], rng)
    d = np.concatenate([model.steps_to_go(model.inputs(e.observations)).mean for e in held_out.episodes])
    is_last = np.concatenate([np.arange(len(e) + 1) == len(e) for e in held_out.episodes])
    assert f1(d <= facts["success_threshold"], is_last) == pytest.approx(max(f1(d <= s, is_last) for s in d))


def test_stage_1_learns(demonstrations: Sequence[Episode], sft_run: Path) -> None:
    """Against what does not look: one distribution, the demonstrations' own, for all observations."""
    rows = read_log(sft_run / "metrics.jsonl")
    config = load_checkpoint(sft_run / "checkpoints/policy.safetensors", "policy")[1]["model"]
    tokens_of = build_model(config).action_head.tokens.of

    def entropy(labels: np.ndarray) -> float:
        return float(stats.entropy(np.bincount(labels)))

    bins = np.concatenate([np.minimum(np.arange(len(e) + 1) // 2.8, 49) for e in demonstrations]).astype(int)
    tokens = tokens_of(torch.from_numpy(np.concatenate([e.actions for e in demonstrations]))).numpy()
    assert min(row["validation/steps_to_go"] for row in rows) < entropy(bins)
    assert min(row["validation/policy"] for row in rows) < entropy(tokens[:, 0]) + entropy(tokens[:, 1]) - 0.1


def test_another_seed_is_another_run(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    files = []
    for seed in (0, 0, 1):
        run = tmp_path / str(len(files))
        sft.train(demonstrations[:6], run, dataclasses.replace(TINY, seed=seed), task="PointMass")
        files.append(load_checkpoint(run / "checkpoints/policy.safetensors", "policy")[0])
    first, again, other = files
    assert is_same(first, again) and not is_same(first, other)


def test_training_leaves_the_global_generators_alone(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    sft.train(demonstrations[:6], tmp_path, TINY, task="PointMass")
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


# -- settings of training ---------------------------------------------------------------------------------------------------------


def trained(demonstrations: Sequence[Episode], folder: Path, **settings: object) -> dict[str, Tensor]:
    """The weights after 20 steps."""
    sft.train(demonstrations[:6], folder, dataclasses.replace(TINY, **settings), task="PointMass")
    return unpack("model", load_checkpoint(folder / "checkpoints/state.safetensors", "sft-state")[0])


def test_the_learning_rate_rises_while_it_warms_up_and_falls_to_0_along_half_a_cosine(
    demonstrations: Sequence[Episode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *args: object) -> object:
        seen.append([group["lr"] for group in self.param_groups])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    trained(demonstrations, tmp_path, learning_rate=1.0, steps_to_go_learning_rate=0.25, warmup=5)
    now = np.arange(20)
    expected = np.minimum(1.0, (now + 1) / 5) * (1 + np.cos(np.pi * now / 20)) / 2
    np.testing.assert_allclose(seen, np.stack([expected, 0.25 * expected], axis=1), rtol=1e-6)


def test_what_is_kept_is_the_moving_average_of_the_weights_and_training_goes_on_from_the_weights(
    demonstrations: Sequence[Episode], tmp_path: Path
) -> None:
    plain: list[dict[str, Tensor]] = []

    def keep(*_: object) -> None:
        plain.append(unpack("model", load_checkpoint(tmp_path / "plain/checkpoints/state.safetensors", "sft-state")[0]))

    each_step = dataclasses.replace(TINY, steps=4, validate_every=1)
    sft.train(demonstrations[:6], tmp_path / "plain", each_step, task="PointMass", report=keep)
    sft.train(demonstrations[:6], tmp_path / "ema", dataclasses.replace(each_step, ema=0.75), task="PointMass")
    state, facts = load_checkpoint(tmp_path / "ema/checkpoints/state.safetensors", "sft-state")
    assert is_same(unpack("model", state), plain[-1])
    with torch.random.fork_rng(devices=[]):
        rng = generator(Stream.TRAINING, 0)
        split([Mixed(demonstrations[:6])], TINY.validation_fraction, rng)
        torch.manual_seed(int(rng.integers(2**31)))
        weights, config = load_checkpoint(tmp_path / "plain/checkpoints/policy.safetensors", "policy")
        average = {name: weight.double() for name, weight in build_model(config["model"]).state_dict().items()}
    for name in ("backbone.mean", "backbone.std"):
        average[name] = plain[0][name].double()
    for now in plain:
        average = {name: 0.75 * average[name] + 0.25 * now[name].double() for name in average}
    for name, weight in unpack("average", state).items():
        torch.testing.assert_close(weight.double(), average[name], rtol=1e-4, atol=1e-6)
    best = {name: facts["progress"]["best"][name]["step"] for name in ("policy", "steps_to_go")}
    assert is_same(load_checkpoint(tmp_path / "ema/checkpoints/policy.safetensors", "policy")[0], unpack("best/policy", state))
    assert best["policy"] == 4 and is_same(unpack("best/policy", state), unpack("average", state))


def test_training_ends_after_so_many_validations_without_a_better_one(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=4000, validate_every=10, batch=64, learning_rate=3e-2, patience=3)
    run = sft.train(demonstrations[:8], tmp_path / "patient", config, task="PointMass")
    rows = read_log(run / "metrics.jsonl")
    best = [int(np.argmin([row[f"validation/{name}"] for row in rows])) for name in ("policy", "steps_to_go")]
    assert len(rows) < 400 and len(rows) - 1 - max(best) == 3, "it went on, or gave up early"
    for name, at in zip(("policy", "steps_to_go"), best, strict=True):
        assert load_checkpoint(run / f"checkpoints/{name}.safetensors", name)[1]["best"]["step"] == rows[at]["step"]


@pytest.mark.parametrize("ema", [0.0, 0.75])
def test_the_policy_is_the_last_where_that_is_asked_for_and_steps_to_go_still_the_best(
    ema: float, demonstrations: Sequence[Episode], tmp_path: Path
) -> None:
    config = dataclasses.replace(TINY, steps=40, learning_rate=0.3, policy_checkpoint="last", ema=ema)

    def program(folder: Path, **kwargs: object) -> Path:
        return sft.train(demonstrations[:6], folder, config, task="PointMass", **kwargs)

    assert_a_break_after_any_report_changes_nothing(program, tmp_path, reports=4)
    run = tmp_path / "whole"
    state, facts = load_checkpoint(run / "checkpoints/state.safetensors", "sft-state")
    weights, policy_facts = load_checkpoint(run / "checkpoints/policy.safetensors", "policy")
    best = {name: facts["progress"]["best"][name]["step"] for name in ("policy", "steps_to_go")}
    assert best["policy"] < 40, "this run does not tell the rules apart"
    assert policy_facts["best"]["step"] == 40 and is_same(weights, unpack("average" if ema else "model", state))
    assert is_same(load_checkpoint(run / "checkpoints/steps_to_go.safetensors", "steps_to_go")[0], unpack("best/steps_to_go", state))


def test_kinds_of_a_mixture_are_learned_by_their_weights(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    """What is told only of steps is not imitated: with its actions turned round, the policy learns the same."""
    shown, told = demonstrations[:4], demonstrations[4:8]
    turned = [dataclasses.replace(e, actions=-e.actions) for e in told]
    weights, acting = [], "backbone.layers.action"
    for i, kinds in enumerate(([Mixed(shown), Mixed(told, 0.0)], [Mixed(shown), Mixed(turned, 0.0)], [Mixed(shown), Mixed(turned, 1.0)])):
        sft.train(kinds, tmp_path / str(i), TINY, task="PointMass")
        weights.append(unpack("model", load_checkpoint(tmp_path / str(i) / "checkpoints/state.safetensors", "sft-state")[0]))
    assert is_same(weights[0], weights[1])
    assert not is_same(*({k: v for k, v in w.items() if k.startswith(acting)} for w in weights[1:]))


def test_the_third_loss_is_learned_where_it_is_switched_on(spoken_demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    runs, config = {}, dataclasses.replace(TINY, model=TINY_MODEL, learning_rate=1e-2)
    for weight in (0.0, 1.0):
        folder = tmp_path / str(weight)
        sft.train(spoken_demonstrations, folder, dataclasses.replace(config, instruction_weight=weight), task="LanguageTable4")
        runs[weight] = load_checkpoint(folder / "checkpoints/policy.safetensors", "policy")
    assert [runs[weight][1]["model"]["tells_instruction"] for weight in (0.0, 1.0)] == [False, True]
    model = rebuild_model(runs[1.0][1]["model"], runs[1.0][0])
    with torch.random.fork_rng(devices=[]):
        fresh = build_model(model.config)
    data = Dataset.of([Mixed(spoken_demonstrations)], model)
    losses = [instruction_loss(m, data, torch.arange(6)).mean().item() for m in (model, fresh)]
    assert losses[0] < losses[1]


def test_an_instruction_that_is_not_read_cannot_be_told(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    with pytest.raises(EFMError, match=r"no instruction to tell.* Set instruction_weight to 0"):
        sft.train(demonstrations[:6], tmp_path, dataclasses.replace(TINY, instruction_weight=1.0), task="PointMass")


def test_chunks_and_every_head_are_learned(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    for head in ("bins", "autoregressive", "gaussian"):
        model = dataclasses.replace(MLP, action_head=head, chunk=3, hidden=(32,))
        config = dataclasses.replace(TINY, model=model, steps=60, batch=64, learning_rate=3e-3)
        run = sft.train(demonstrations[:30], tmp_path / head, config, task="PointMass")
        first, *later = [row["validation/policy"] for row in read_log(run / "metrics.jsonl")]
        assert min(later) < first - 0.1, head


def test_demonstrations_in_somebody_elses_env_are_learned_from(tmp_path: Path) -> None:
    """An env that isn't of this project has no list of objects, and needn't be known where stage 1 runs."""
    for env_id in ("CartPole-v1", "Elsewhere-v0"):
        shown = [episode(4, k, {"observation": np.random.default_rng(k).normal(size=(5, 4))}, env_id=env_id) for k in range(3)]
        run = sft.train(shown, tmp_path / env_id, TINY, task="Elsewhere")
        assert load_policy(run, task="Elsewhere").act(shown[0].observations).shape == (5, 1)


# -- resuming ---------------------------------------------------------------------------------------------------------------------


def test_a_run_broken_off_at_any_validation_ends_the_same_to_the_last_bit(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=35)  # the last stretch is a short one

    def program(folder: Path, **kwargs: object) -> Path:
        return sft.train(demonstrations[:6], folder, config, task="PointMass", **kwargs)

    assert_a_break_after_any_report_changes_nothing(program, tmp_path, reports=4)


@pytest.mark.parametrize("settings", [{"ema": 0.9}, {"patience": 1, "learning_rate": 3.0}, {"ema": 0.5, "warmup": 9}], ids=str)
def test_a_mixture_and_averages_and_patience_are_broken_off_at_any_validation_to_no_effect(
    settings: dict[str, float], demonstrations: Sequence[Episode], tmp_path: Path
) -> None:
    kinds = [Mixed(demonstrations[:4], 1.0, 0.0), Mixed(demonstrations[4:8], 0.5, 1.0)]
    config = dataclasses.replace(TINY, steps=60, **settings)
    reported = []
    run = sft.train(kinds, tmp_path / "first", config, task="PointMass", report=lambda *words: reported.append(words))
    assert (len(reported) < 6) == ("patience" in settings) and len(read_log(run / "metrics.jsonl")) == len(reported)

    def program(folder: Path, **kwargs: object) -> Path:
        return sft.train(kinds, folder, config, task="PointMass", **kwargs)

    assert_a_break_after_any_report_changes_nothing(program, tmp_path / "broken", reports=len(reported))


def test_a_model_that_hears_and_tells_is_broken_off_at_any_validation_to_no_effect(
    spoken_demonstrations: Sequence[Episode], tmp_path: Path
) -> None:
    model = dataclasses.replace(TINY_MODEL, action_head="autoregressive", chunk=2)
    config = dataclasses.replace(TINY, model=model, validate_every=5, steps=10, instruction_weight=0.5)

    def program(folder: Path, **kwargs: object) -> Path:
        return sft.train(spoken_demonstrations, folder, config, task="LanguageTable4", **kwargs)

    assert_a_break_after_any_report_changes_nothing(program, tmp_path, reports=2)


def test_a_run_that_dies_in_any_write_ends_the_same_to_the_last_bit(
    demonstrations: Sequence[Episode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(folder: Path) -> Path:
        return sft.train(demonstrations[:6], folder, TINY, task="PointMass")

    assert_a_death_at_any_system_call_changes_nothing(program, tmp_path, monkeypatch)


# -- refusals ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.125),
        ("seed", 7),
        ("model", WIDER),
        ("validation_fraction", 0.25),
        ("steps", 30),
    ],
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
    with pytest.raises(EFMError, match=r"'mlp' reads numbers; the demonstrations hold pixels/top\. Take 'tiny'"):
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
        ("validate_every", 0, "at least 1"),
        ("learning_rate", 0.0, "above 0"),
        ("steps_to_go_learning_rate", 0.0, "above 0"),
        ("warmup", -1, "at least 0"),
        ("ema", -0.1, "at least 0"),
        ("ema", 1.0, "at most 0.99999"),
        ("patience", -1, "at least 0"),
        ("instruction_weight", -1.0, "at least 0"),
        ("validation_fraction", 0.0, "above 0"),
        ("validation_fraction", 0.6, "at most 0.5"),
        ("learning_rate", float("nan"), "above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, value: float, expected: str) -> None:
    with pytest.raises((EFMError, ValueError), match=rf"SFTConfig\.{name} must be {expected}.*; got {value!r}"):
        SFTConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("bins", 0, "at least 1"),
        ("max_steps_to_go", -1.0, "above 0"),
        ("action_bins", 1, "at least 2"),
        ("chunk", 0, "at least 1"),
        ("width", 0, "at least 1"),
        ("blocks", 0, "at least 1"),
        ("heads", 0, "at least 1"),
        ("patch", 0, "at least 1"),
    ],
)
def test_models_that_cannot_work_are_refused(name: str, value: float, expected: str) -> None:
    with pytest.raises((EFMError, ValueError), match=rf"ModelConfig\.{name} must be {expected}.*; got {value!r}"):
        ModelConfig(**{name: value})
