"""Modules in PyTorch become reward models, LeRobot's among them; the real classes of LeRobot and imitation where they are installed."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efm_agents.reward_adapters import LeRobotRewardModel, ModuleRewardModel, TorchRewardModel, module_hash
from efm_envs.errors import RewardModelError
from efm_envs.rewards.adapters import TransitionRewardModel
from efm_envs.task import Goal, Goals
from efm_envs.testing import check_reward_model

POINT_MASS = "EFM-PointMass-v0"
HERE = f"{__name__}:"
TOP = {"pixels/top": "observation.images.top"}


class Distance(nn.Module):
    """Steps left, from where it is and where it should be."""

    def __init__(self, gain: float = 25.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.dropout = nn.Dropout(0.5)

    def forward(self, position: Tensor, goal: Tensor) -> Tensor:
        return self.gain * self.dropout(torch.ones_like(goal)).mean() * (position[:, :2] - goal).abs().sum(dim=1)


class Bins(nn.Module):
    """Logits of 4 bins, from pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, pictures: Tensor) -> Tensor:
        assert pictures.dtype == torch.uint8 and pictures.shape[-1] == 3
        out: Tensor = self.layer(pictures.to(self.layer.weight.dtype).mean(dim=(1, 2)) / 255)
        return out


class Brightness(nn.Module):
    """The interface of LeRobot's reward models: a progress, which is how bright the last picture is, where the sentence is short."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: dict[str, Any] = {}

    def compute_reward(self, batch: dict[str, Any]) -> Tensor:
        self.seen = batch
        pictures = batch["observation.images.top"]
        brightness = pictures.flatten(0, -4)[-len(batch["task"]) :].mean(dim=(1, 2, 3))
        return self.scale * brightness * torch.tensor([float(len(task) < 1000) for task in batch["task"]])


def make_distance() -> Distance:
    return Distance(3.0)


def make_brightness() -> Brightness:
    return Brightness()


def fixed(number: int = 2) -> tuple[dict[str, np.ndarray], Goals]:
    rng = np.random.default_rng(0)
    observations = {
        "agent_pos": rng.normal(size=(number, 4)).astype(np.float32),
        "environment_state": rng.normal(size=(number, 2)).astype(np.float32),
        "pixels/top": rng.integers(0, 256, (number, 5, 6, 3), np.uint8),
    }
    return observations, Goals([Goal(f"go to {i}") for i in range(number)])


# -- any module -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        TorchRewardModel(Distance(), ("agent_pos", "environment_state")),
        TorchRewardModel(Bins(), ("pixels/top",), kind="seconds", edges=[0, 1, 2, 4, 8], logits=True),
        LeRobotRewardModel(Brightness(), TOP, "progress", horizon_steps=50, history={"pixels/top": 2}),
        LeRobotRewardModel(Brightness(), TOP, "change", horizon_steps=50, offset=-0.3),
    ],
    ids=["steps", "bins", "progress", "change"],
)
def test_a_module_keeps_the_laws(model: ModuleRewardModel) -> None:
    check_reward_model(model, POINT_MASS)


def test_a_module_gets_its_inputs_in_order_and_is_in_evaluation_mode() -> None:
    observations, goals = fixed()
    model = TorchRewardModel(Distance(2.0), ["agent_pos", "environment_state"])
    expected = 2.0 * np.abs(observations["agent_pos"][:, :2] - observations["environment_state"]).sum(axis=1)
    said = model.steps_to_go(observations, goals).mean
    np.testing.assert_allclose(said, expected, rtol=1e-6)  # without dropout
    assert said.dtype == np.float64 and not model.module.training


def test_a_module_is_asked_in_the_precision_of_its_weights() -> None:
    observations, goals = fixed()
    for dtype, digits in ((torch.float64, 12), (torch.bfloat16, 1)):
        seen: list[torch.dtype] = []
        module = nn.Sequential(nn.Linear(4, 1), nn.Softplus(), nn.Flatten(0)).to(dtype)
        module.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].dtype))
        said = TorchRewardModel(module, ("agent_pos",)).steps_to_go(observations, goals).mean
        with torch.no_grad():
            expected = module(torch.tensor(observations["agent_pos"]).to(dtype)).double().numpy()
        np.testing.assert_allclose(said, expected, rtol=10.0**-digits)
        assert set(seen) == {dtype}


def test_a_module_may_say_a_distribution() -> None:
    observations, goals = fixed()
    module = Bins()
    model = TorchRewardModel(module, ("pixels/top",), kind="progress", horizon_steps=40, edges=[0, 0.25, 0.5, 0.75, 1], logits=True)
    said = model.steps_to_go(observations, goals)
    with torch.no_grad():
        probs = module(torch.tensor(observations["pixels/top"])).softmax(dim=1).numpy()[:, ::-1]
    assert said.edges is not None and said.edges.tolist() == [0, 10, 20, 30, 40]
    np.testing.assert_allclose(said.probs, probs, rtol=1e-5)
    np.testing.assert_allclose(said.mean, probs @ [5, 15, 25, 35], rtol=1e-5)


def test_a_module_that_returns_something_else_is_refused() -> None:
    observations, goals = fixed()
    for module, message in (
        (nn.Linear(4, 1), r"'torch' \(TorchRewardModel\) returned steps-to-go of shape \(2, 1\) for a batch of 2; expected \(2,\)"),
        (nn.LSTM(4, 1), r"'torch' .* returned steps-to-go of type tuple; expected an array of \(2,\)"),
    ):
        with pytest.raises(RewardModelError, match=message):
            TorchRewardModel(module, ("agent_pos",)).steps_to_go(observations, goals)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(RewardModelError, match=r"'torch' is around a torch.nn.Module, or what returns one; got 3"):
        TorchRewardModel(lambda: 3, ("agent_pos",))  # type: ignore[arg-type,return-value]
    with pytest.raises(RewardModelError, match=r"compute_reward\(batch\); Distance has not"):
        LeRobotRewardModel(Distance(), TOP, "success")


@pytest.mark.parametrize("where", ["make_distance", "Distance"])
def test_a_spec_comes_back_from_json(where: str) -> None:
    options: dict[str, Any] = {"inputs": ["agent_pos", "environment_state"], "kind": "seconds", "device": "cpu", "success_threshold": 2.0}
    model = TorchRewardModel(HERE + where, **options)
    assert model.spec == {"id": "torch", "module": HERE + where, **options}
    again = TorchRewardModel(**{name: value for name, value in json.loads(json.dumps(model.spec)).items() if name != "id"})
    assert (again.spec, again.fingerprint, again.needs) == (model.spec, model.fingerprint, model.needs)
    assert again.needs == ("agent_pos", "environment_state", "control_dt_s")


def test_a_function_that_makes_the_module_is_as_good_as_the_module() -> None:
    inputs = ("agent_pos", "environment_state")
    prints = {TorchRewardModel(module, inputs).fingerprint for module in (Distance(3.0), make_distance, HERE + "make_distance")}
    assert len(prints) == 1


def test_envs_share_a_module_and_not_its_memory() -> None:
    model = LeRobotRewardModel(Brightness(), TOP, "change", horizon_steps=50)
    envs = [gym.make(POINT_MASS, reward_model=model).unwrapped for _ in range(2)]
    assert envs[0].signal.model is not envs[1].signal.model
    assert envs[0].signal.model.module is envs[1].signal.model.module is model.module


# -- fingerprints -----------------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_weights_structure_and_options() -> None:
    inputs = ("agent_pos", "environment_state")
    models = [
        TorchRewardModel(Distance(1.0), inputs),
        TorchRewardModel(Distance(1.0 + 1e-7), inputs),
        TorchRewardModel(Distance(1.0), inputs, kind="seconds"),
        TorchRewardModel(Distance(1.0), inputs, version="a"),
        TorchRewardModel(Distance(1.0).to(torch.bfloat16), inputs),
    ]
    assert len({model.fingerprint for model in models}) == len(models)
    assert TorchRewardModel(Distance(1.0), inputs).fingerprint == models[0].fingerprint
    assert models[3].fingerprint == TorchRewardModel(Distance(2.0), inputs, version="a").fingerprint


def test_the_hash_of_a_module_sees_what_has_no_weights() -> None:
    modules = [nn.Sequential(part) for part in (nn.ReLU(), nn.Tanh(), nn.Dropout(0.1), nn.Dropout(0.2), nn.BatchNorm1d(3))]
    assert len({module_hash(module) for module in modules}) == len(modules)
    module = nn.Sequential(nn.BatchNorm1d(3))
    assert module_hash(module) == module_hash(modules[-1])
    module(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))  # moves its statistics
    assert module_hash(module) != module_hash(modules[-1])


# -- LeRobot's interface ----------------------------------------------------------------------------------------------------------


def test_a_batch_has_lerobots_names_and_forms() -> None:
    observations, goals = fixed()
    module = Brightness()
    model = LeRobotRewardModel(module, {**TOP, "agent_pos": "observation.state"}, "progress", horizon_steps=10)
    said = model.steps_to_go(observations, goals).mean
    pictures = module.seen["observation.images.top"]
    assert (pictures.shape, pictures.dtype) == ((2, 3, 5, 6), torch.float32)
    np.testing.assert_allclose(pictures.numpy(), observations["pixels/top"].transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    np.testing.assert_array_equal(module.seen["observation.state"].numpy(), observations["agent_pos"])
    assert module.seen["task"] == ["go to 0", "go to 1"] and model.needs == ("pixels/top", "agent_pos")
    np.testing.assert_allclose(said, 10 * (1 - observations["pixels/top"].mean(axis=(1, 2, 3)) / 255), rtol=1e-5)


def test_a_history_is_a_clip() -> None:
    module = Brightness()
    env = gym.make(POINT_MASS, reward_model=LeRobotRewardModel(module, TOP, "progress", horizon_steps=10, history={"pixels/top": 4}))
    env.reset(seed=0)
    assert module.seen["observation.images.top"].shape[:3] == (1, 4, 3)


def test_a_preprocessor_makes_the_batch_and_needs_a_version() -> None:
    observations, goals = fixed()

    def halved(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "observation.images.top": batch["observation.images.top"] / 2}

    with pytest.raises(RewardModelError, match=r"no fingerprint covers a preprocessor\. Pass version="):
        LeRobotRewardModel(Brightness(), TOP, "success", preprocessor=halved)
    with_it = LeRobotRewardModel(Brightness(), TOP, "success", preprocessor=halved, version="halved")
    without = LeRobotRewardModel(Brightness(), TOP, "success")
    half, whole = (1 - model.steps_to_go(observations, goals).mean for model in (with_it, without))
    np.testing.assert_allclose(half, whole / 2, rtol=1e-5)


def test_a_lerobot_model_by_name_comes_back_from_json() -> None:
    model = LeRobotRewardModel(HERE + "make_brightness", TOP, "progress", horizon_steps=10, history={"pixels/top": 2}, scale=0.5)
    spec = json.loads(json.dumps(model.spec))
    assert spec.pop("id") == "lerobot"
    again = LeRobotRewardModel(**spec)
    assert (again.spec, again.fingerprint, again.history) == (model.spec, model.fingerprint, model.history)


def test_scores_of_which_only_the_order_means_something_are_refused() -> None:
    with pytest.raises(RewardModelError, match="is no distance"):
        LeRobotRewardModel(Brightness(), TOP, "rank")  # type: ignore[arg-type]


# -- the real classes -------------------------------------------------------------------------------------------------------------


def test_a_subclass_of_lerobots_base_class_is_a_reward_model() -> None:
    pretrained = pytest.importorskip("lerobot.rewards.pretrained")
    from lerobot.configs.rewards import RewardModelConfig

    class Bright(pretrained.PreTrainedRewardModel):
        config_class, name = RewardModelConfig, "bright"
        compute_reward = Brightness.compute_reward

        def __init__(self) -> None:
            super().__init__(RewardModelConfig(device="cpu"))
            self.scale = nn.Parameter(torch.ones(()))

    check_reward_model(LeRobotRewardModel(Bright(), TOP, "progress", horizon_steps=50), POINT_MASS)


def test_lerobots_classifier_is_a_reward_model(tmp_path: Path) -> None:
    modeling = pytest.importorskip("lerobot.rewards.classifier.modeling_classifier")
    transformers = pytest.importorskip("transformers")
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.rewards import RewardClassifierConfig, make_reward_pre_post_processors

    torch.manual_seed(0)
    vision = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "image_size": 64,
        "patch_size": 16,
    }
    transformers.ViTModel(transformers.ViTConfig(**vision)).save_pretrained(tmp_path)
    features = {TOP["pixels/top"]: PolicyFeature(FeatureType.VISUAL, (3, 64, 64))}
    config = RewardClassifierConfig(
        input_features=features, model_name=str(tmp_path), model_type="transformer", num_cameras=1, device="cpu", hidden_dim=8
    )
    statistics = {name: {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.3)} for name in features}
    classifier = modeling.Classifier(config)
    preprocessor = make_reward_pre_post_processors(config, dataset_stats=statistics)[0]
    model = LeRobotRewardModel(classifier, TOP, "success", preprocessor=preprocessor, version="untrained")
    env = gym.make(POINT_MASS, reward_model=model, image_size=(64, 64), terminate_on="never")
    assert {env.reset(seed=seed)[1]["steps_to_go"] for seed in range(3)} <= {0.0, 1.0}
    check_reward_model(model, POINT_MASS, image_size=(64, 64))


def test_imitations_reward_nets_are_reward_models() -> None:
    reward_nets = pytest.importorskip("imitation.rewards.reward_nets")
    env = gym.make(POINT_MASS, obs_mode="flat")
    torch.manual_seed(0)
    net = reward_nets.BasicRewardNet(env.observation_space, env.action_space)
    model = TransitionRewardModel(net.predict, "flat", horizon_steps=60, version="untrained")
    check_reward_model(model, POINT_MASS)
