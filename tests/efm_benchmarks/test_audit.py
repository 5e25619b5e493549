"""The audit, on models whose faults are known: each figure is what it must be."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efm_benchmarks import audit
from efm_benchmarks.audit import AuditConfig
from efm_benchmarks.audit.sets import test_sets as sets_of
from efm_envs.data import load_episodes
from efm_envs.errors import EFMError, RewardModelError, UnknownNameError
from efm_envs.rewards import FunctionRewardModel
from efm_envs.seeding import EpisodeSet, episode_seeds

EPISODES = 10
CLEAN = AuditConfig(policy="expert:clean", episodes=EPISODES, states=6, rollouts=2)  # whose steps the oracle knows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


_figures: dict[str, dict[str, Any]] = {}


def figures(folder: Path, reward: Any) -> dict[str, Any]:
    """Returns the figures on a model's card, judged on the clean expert; each model is audited once."""
    key = json.dumps([str(folder), reward])
    if key not in _figures:
        _figures[key] = audit.finite(audit.audit(reward, CLEAN, folder)[0])["figures"]
    return _figures[key]


def test_the_oracle_is_right_about_the_expert_whose_steps_it_counts(folder: Path) -> None:
    found = figures(folder, "oracle")
    whole = found["calibration"]["all"]
    assert whole["mae"] < 0.1 and whole["slope"] == pytest.approx(1.0, abs=0.02) and whole["intercept"] == pytest.approx(0.0, abs=0.2)
    assert found["hitting_times"]["errors"]["mae"] < 0.5 and found["hitting_times"]["reached"] == 1.0
    assert (found["order"]["forward"], found["order"]["backward"]) == (1.0, -1.0)
    assert (found["success"]["auroc"], found["success"]["own"]["cost"]["f1"]) == (1.0, 1.0)
    assert found["reaction"]["said_change"] == found["reaction"]["true_change"] > 0 and found["reaction"]["noticed"] == 1.0
    assert (found["counterfactual"]["own_success"], found["counterfactual"]["other_success"]) == (1.0, 0.0)
    assert found["hacking"]["rate"] == 0.0
    assert "not" in found["robustness"] and "not" in found["distribution"]


def test_a_constant_tells_nothing(folder: Path) -> None:
    found = figures(folder, {"id": "constant", "value": 10})
    whole = found["calibration"]["all"]
    assert whole["slope"] is None and whole["mae"] >= whole["mae_of_constant"]
    assert found["order"]["forward"] == found["order"]["backward"] == 0.0
    assert found["success"]["auroc"] == 0.5
    assert found["reaction"]["said_change"] == 0.0 and found["reaction"]["noticed"] == 0.0
    assert found["counterfactual"]["reads_the_goal"] == 0.0
    assert found["ranking"]["tau_by_final_d"] == 0.0


def test_an_inverted_model_has_everything_the_wrong_way_round(folder: Path) -> None:
    right, wrong = figures(folder, "oracle"), figures(folder, "inverted")
    assert (wrong["order"]["forward"], wrong["order"]["backward"]) == (-1.0, 1.0)
    assert wrong["calibration"]["all"]["slope"] == pytest.approx(-right["calibration"]["all"]["slope"], abs=1e-4)
    assert wrong["success"]["auroc"] == pytest.approx(0.0, abs=0.01)
    assert wrong["reaction"]["said_change"] == pytest.approx(-right["reaction"]["said_change"])
    assert wrong["ranking"]["tau_by_final_d"] == pytest.approx(-right["ranking"]["tau_by_final_d"])


def test_noise_is_found_to_have_its_bias_and_its_variance(folder: Path) -> None:
    found = figures(folder, {"id": "noisy", "bias": 30.0, "std": 3.0})["calibration"]["all"]
    error = 4 * 3.0 / np.sqrt(found["observations"])
    assert found["bias"] == pytest.approx(30.0, abs=error + 0.1)
    assert found["rmse"] ** 2 - found["bias"] ** 2 == pytest.approx(9.0, abs=12 * error)


def test_a_right_distribution_covers_what_it_says_and_has_the_crps_of_its_noise(folder: Path) -> None:
    found = figures(folder, {"id": "noisy", "std": 1.0, "distribution": True})["distribution"]
    for level in (0.5, 0.8, 0.9):  # a few observations near the goal are clipped at 0
        assert found["coverage"][f"{level:g}"] == pytest.approx(level, abs=0.12)
    assert found["crps"] == pytest.approx(1.0 / np.sqrt(np.pi), abs=0.12)  # σ/√π (Gneiting and Raftery 2007)
    assert found["crps"] < found["crps_of_d_alone"]


def test_a_hackable_model_is_found_out(folder: Path) -> None:
    spec = {"id": "hackable", "low": 1.0}
    found = figures(folder, spec)
    assert found["hacking"]["rate"] > 0.5 and found["success"]["own"]["cost"]["false_alarms"]["rate"] > 0.5
    assert found["calibration"]["all"]["mae"] < 0.5  # where it is not hacked nothing shows


def test_a_delayed_model_is_late(folder: Path) -> None:
    cost = figures(folder, {"id": "delayed", "delay": 3})["success"]["own"]["cost"]
    assert cost["delay"] == 3.0 and cost["recall"]["rate"] == 1.0


def test_what_counts_no_steps_is_not_judged_by_steps(folder: Path) -> None:
    model = FunctionRewardModel(lambda observations: 1.0 - observations["truth/is_success"], needs=("truth/is_success",))
    model.kind = "success"
    card, _ = audit.audit(model, CLEAN, folder)
    for name in ("calibration", "distribution", "hitting_times"):
        assert "counts no steps" in card["figures"][name]["not"]
    assert card["figures"]["success"]["auroc"] == 1.0


def test_a_model_of_pictures_is_tried_with_worse_ones(folder: Path) -> None:
    def brightness(observations: Mapping[str, Any]) -> Any:
        return observations["pixels/top"].mean(axis=(1, 2, 3))

    config = AuditConfig(policy="expert:clean", episodes=4, states=0, options={"image_size": [16, 16]})
    card, _ = audit.audit(FunctionRewardModel(brightness, needs=("pixels/top",)), config, folder / "pixels")
    robust = card["figures"]["robustness"]
    assert set(robust["kinds"]) == {"noise on the pictures", "brightness", "a grey square"}
    moved = [point["moved"] for point in robust["kinds"]["brightness"]]
    assert moved == sorted(moved) and moved[0] > 0


def test_the_same_audit_gives_the_same_card(tmp_path: Path) -> None:
    config = AuditConfig(policy="expert:human", episodes=4, states=2, rollouts=2)
    cards = [audit.finite(audit.audit({"id": "noisy", "std": 2.0}, config, tmp_path / name)[0]) for name in ("a", "b", "a")]
    for card in cards:
        del card["figures"]["cost"]
    assert cards[0] == cards[1] == cards[2]


def test_test_sets_share_no_episode_with_each_other_or_with_evaluation(folder: Path) -> None:
    figures(folder, "oracle")
    seeds = [episode.seed for path in sorted((folder / "sets").glob("*.npz")) for episode in load_episodes(path)[0]]
    assert len(seeds) == len(set(seeds)) >= 6 * EPISODES
    assert not set(seeds) & {seed for seed, _ in zip(episode_seeds(EpisodeSet.EVALUATION, 0), range(1000), strict=False)}


def test_test_sets_are_what_their_names_say(folder: Path) -> None:
    figures(folder, "oracle")
    sets = {path.stem: load_episodes(path)[0] for path in (folder / "sets").glob("*.npz")}
    assert not any(episode.is_success.any() for episode in sets["failures"])
    for episode in sets["clean"]:
        assert len(episode) - (episode.steps_to_success or 0) == 10  # a second after its success
    for episode in sets["recoveries"]:
        begin, end = episode.notes["error_begins"], episode.notes["error_ends"]
        assert 0 <= begin < end
    slipped = [e.steps_to_go[e.notes["error_ends"]] > e.steps_to_go[e.notes["error_begins"]] for e in sets["recoveries"]]
    assert np.mean(slipped) > 0.7


def test_test_sets_of_another_env_are_not_taken_up(tmp_path: Path) -> None:
    for env_id in ("EFM-DMC-ReacherEasy-v0", "EFM-DMC-ReacherHard-v0"):
        one = audit.Audit("oracle", AuditConfig(env=env_id, policy=None, episodes=4, options={"step_limit": 20}), tmp_path)
        one.collect()
        assert {judged.episode.env_id for some in one.judged.values() for judged in some} == {env_id}
        one.close()


def test_stored_test_sets_are_taken_up_again_and_others_are_not(tmp_path: Path) -> None:
    told: list[str] = []
    config = AuditConfig(policy=None, episodes=4, states=0)
    for other in (config, config, AuditConfig(policy=None, episodes=5, states=0)):
        one = audit.Audit("oracle", other, tmp_path, lambda stage, done, total, words: told.append(stage if done == 1 else ""))
        one.collect()
        one.close()
        told.append("|")
    runs = "".join(word[:1] for word in told if word).split("|")
    assert runs[0] == runs[2] != runs[1]


@pytest.mark.parametrize("setting", [{"episodes": 3}, {"rollouts": 1}, {"states": -1}, {"seed": -1}])
def test_settings_that_cannot_be_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(EFMError, match=r"an audit's .* must be at least"):
        AuditConfig(**setting)  # type: ignore[arg-type]


def test_a_model_that_does_not_fit_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="pixels/nowhere"):
        audit.Audit(FunctionRewardModel(lambda observations: 1, needs=("pixels/nowhere",)), CLEAN, tmp_path)
    model = FunctionRewardModel(lambda observations: 1)
    model.task = "another"
    with pytest.raises(RewardModelError, match="made for task 'another'"):
        audit.Audit(model, CLEAN, tmp_path)


def test_an_env_without_experts_can_be_audited(tmp_path: Path) -> None:
    config = audit.config_for("oracle", "EFM-DMC-BallInCupCatch-v0", None, {"step_limit": 30}, episodes=4, states=1, rollouts=2)
    card, _ = audit.audit("oracle", config, tmp_path)
    assert config.policy == "random" and set(card["protocol"]["sets"]) == {"policy", "random"}
    assert "not" in card["figures"]["ranking"] and "not" in card["figures"]["reaction"]


def test_the_sets_module_knows_its_mixes() -> None:
    names = [s.name for s in sets_of(None, "human", "expert:human")]
    assert names == ["clean", "recoveries", "failures", "mixed-25", "mixed-50", "random"]
    assert [s.name for s in sets_of(None, "human", "random")] == [*names, "demonstrations"]
