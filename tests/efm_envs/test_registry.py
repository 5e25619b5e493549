"""Reward models by name: ours, a program's, and another package's."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import efm_envs
from efm_envs.errors import EFMError, RewardModelError, UnknownNameError, UnknownOptionError
from efm_envs.rewards import FunctionRewardModel, RewardModel, StepsToGo, make_reward_model, registry
from efm_envs.rewards.oracle import NoRewardModel, OracleRewardModel
from efm_envs.task import Goals
from efm_envs.testing import check_state
from tests.efm_envs import fakes
from tests.efm_envs.fakes import POINT_MASS


class Scaled(RewardModel):
    """A model with an option that it must be given, and one that it need not."""

    id = "scaled"
    needs = ("agent_pos",)

    def __init__(self, factor: float, offset: float = 0.0) -> None:
        self.factor, self.offset = factor, offset

    def steps_to_go(self, observations: Any, goals: Goals) -> StepsToGo:
        return StepsToGo(self.factor * np.abs(observations["agent_pos"][:, 0]) + self.offset)

    @property
    def spec(self) -> dict[str, Any]:
        return {"id": self.id, "factor": self.factor, "offset": self.offset}


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


def test_the_builtin_models_are_listed() -> None:
    assert {"oracle", "sparse", "none"} <= set(efm_envs.reward_models())


@pytest.mark.parametrize("entry_point", [Scaled, f"{__name__}:Scaled", lambda factor, offset=0.0: Scaled(factor, offset)])
def test_a_registered_model_is_found_by_name(entry_point: Any) -> None:
    efm_envs.register_reward_model("scaled", entry_point)
    assert "scaled" in efm_envs.reward_models()
    env = gym.make(POINT_MASS, reward_model={"id": "scaled", "factor": 10.0})
    observation, info = env.reset(seed=0)
    assert info["steps_to_go"] == pytest.approx(10.0 * abs(observation["agent_pos"][0]))


def test_a_model_is_rebuilt_from_its_spec_through_json() -> None:
    efm_envs.register_reward_model("scaled", Scaled)
    model = Scaled(3.0, 1.0)
    again = efm_envs.make_reward_model(json.loads(json.dumps(model.spec)))
    assert isinstance(again, Scaled) and (again.spec, again.fingerprint) == (model.spec, model.fingerprint)


def test_another_setting_is_another_fingerprint() -> None:
    prints = {m.fingerprint for m in (Scaled(1.0), Scaled(2.0), Scaled(1.0, 1.0), OracleRewardModel(), NoRewardModel())}
    assert len(prints) == 5


def test_an_object_is_taken_as_it_is() -> None:
    model = Scaled(1.0)
    assert efm_envs.make_reward_model(model) is model
    assert gym.make(POINT_MASS, reward_model=model).unwrapped.signal.model is model


def test_a_function_becomes_a_model_and_its_spec_names_it() -> None:
    model = efm_envs.make_reward_model(fakes.first_value)
    assert isinstance(model, FunctionRewardModel)
    assert model.spec == {"id": "function", "function": "tests.efm_envs.fakes:first_value"}


def test_privileged_models_say_so() -> None:
    privileged = {name: efm_envs.make_reward_model(name).is_privileged for name in ("oracle", "sparse", "none")}
    assert privileged == {"oracle": True, "sparse": True, "none": False}
    assert not Scaled(1.0).is_privileged


# -- errors -----------------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown reward model: 'sparce'\. Did you mean 'sparse'\? Valid: .*'none', 'oracle', .*'sparse'"
    ):
        efm_envs.make_reward_model("sparce")


def test_an_unknown_option_lists_the_valid_ones() -> None:
    efm_envs.register_reward_model("scaled", Scaled)
    with pytest.raises(
        UnknownOptionError, match=r"unknown option of reward model 'scaled': 'factr'\. Did you mean 'factor'\? Valid: 'factor', 'offset'"
    ):
        efm_envs.make_reward_model({"id": "scaled", "factr": 1.0})
    with pytest.raises(UnknownOptionError, match=r"unknown option of reward model 'oracle': 'path'\. Valid: none"):
        efm_envs.make_reward_model({"id": "oracle", "path": "x"})


def test_a_missing_option_is_shown_how_to_pass() -> None:
    efm_envs.register_reward_model("scaled", Scaled)
    with pytest.raises(RewardModelError, match=r"'scaled' needs 'factor': pass reward_model=\{\"id\": 'scaled', 'factor': …\}"):
        efm_envs.make_reward_model("scaled")


@pytest.mark.parametrize("name", ["oracle", "scaled"])
def test_a_name_is_given_once(name: str) -> None:
    efm_envs.register_reward_model("scaled", Scaled)
    with pytest.raises(EFMError, match=f"reward model '{name}' is already registered: choose another name"):
        efm_envs.register_reward_model(name, Scaled)


@pytest.mark.parametrize("spec", [{}, {"name": "oracle"}, {"id": 3}])
def test_a_dict_names_its_model(spec: dict[str, Any]) -> None:
    with pytest.raises(RewardModelError, match=r"a reward model's dict names the model under \"id\".* got "):
        efm_envs.make_reward_model(spec)


@pytest.mark.parametrize("spec", [None, 3, ["oracle"], OracleRewardModel])
def test_what_is_no_spec_is_refused(spec: Any) -> None:
    with pytest.raises(RewardModelError, match=r"reward_model is a name \(.*oracle.*\), a dict .* or a function .*; got "):
        efm_envs.make_reward_model(spec)


def test_a_factory_that_makes_no_model_is_named() -> None:
    efm_envs.register_reward_model("odd", lambda: 3)  # type: ignore[arg-type, return-value]
    with pytest.raises(RewardModelError, match=r"reward model 'odd' is made by .* which returned 3: not a RewardModel"):
        efm_envs.make_reward_model("odd")


# -- other packages ---------------------------------------------------------------------------------------------------------------

THEIR_MODEL = """
import numpy as np
from efm_envs import RewardModel, StepsToGo

class Ruler(RewardModel):
    id = "ruler"
    needs = ("agent_pos", "environment_state")

    def __init__(self, scale=1.0):
        self.scale = scale

    def steps_to_go(self, observations, goals):
        offset = observations["agent_pos"][:, :2] - observations["environment_state"]
        return StepsToGo(self.scale * np.linalg.norm(offset, axis=1))
"""


def install(folder: Path, name: str, module: str, entry_points: dict[str, str]) -> None:
    """Builds a package of one module and installs it into `folder`/site."""
    source = folder / name
    source.mkdir()
    (source / f"{name}.py").write_text(module)
    points = "\n".join(f"    {key} = {value}" for key, value in entry_points.items())
    (source / "setup.cfg").write_text(
        f"[metadata]\nname = {name}\nversion = 1.0\n[options]\npy_modules = {name}\n"
        f"[options.entry_points]\nefm_envs.reward_models =\n{points}\n"
    )
    (source / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n')
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "--target", str(folder / "site"), str(source)], check=True)


def python(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process that finds what is installed in `site`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plug-in")
    install(
        folder,
        "their_rewards",
        THEIR_MODEL,
        {"ruler": "their_rewards:Ruler", "broken": "their_rewards.nowhere:Ruler", "misspelt": "their_rewards:Rulr"},
    )
    return folder / "site"


def test_another_packages_model_is_found_by_name_and_listed(site: Path) -> None:
    result = python(
        site,
        """
        import sys, gymnasium as gym, efm_envs
        assert "ruler" in efm_envs.reward_models() and "their_rewards" not in sys.modules
        env = gym.make("EFM-PointMass-v0", reward_model={"id": "ruler", "scale": 2.0})
        _, info = env.reset(seed=0)
        total = sum(env.step([0.5, 0.5])[1] for _ in range(4))
        after = env.step([0.5, 0.5])
        assert abs(total + after[1] - (info["steps_to_go"] - after[4]["steps_to_go"])) < 1e-9
        assert gym.envs.registration.EnvSpec.from_json(env.spec.to_json()).make().reset(seed=0)[1] == info
        from efm_envs.testing import check_reward_model
        check_reward_model("ruler", "EFM-PointMass-v0")
        print("ok")
        """,
    )
    assert result.stdout == "ok\n", result.stderr


def test_another_packages_model_that_fails_to_import_shows_its_own_error(site: Path) -> None:
    result = python(site, "import efm_envs; efm_envs.make_reward_model('broken')")
    assert "ModuleNotFoundError: No module named 'their_rewards.nowhere'" in result.stderr
    assert "efm-envs[agents]" not in result.stderr
    assert "has no attribute 'Rulr'" in python(site, "import efm_envs; efm_envs.make_reward_model('misspelt')").stderr


def test_a_broken_plug_in_does_not_hurt_the_others(site: Path) -> None:
    result = python(site, "import efm_envs; print(efm_envs.make_reward_model('oracle').id, efm_envs.make_reward_model('ruler').id)")
    assert result.stdout == "oracle ruler\n", result.stderr


def test_two_packages_with_one_name_are_both_named(site: Path, tmp_path: Path) -> None:
    install(tmp_path, "more_rewards", THEIR_MODEL, {"ruler": "more_rewards:Ruler"})
    path = os.pathsep.join([str(site), str(tmp_path / "site")])
    result = python(Path(path), "import efm_envs; efm_envs.make_reward_model('ruler')")
    assert "two reward models are called 'ruler': " in result.stderr
    assert "their_rewards:Ruler" in result.stderr and "more_rewards:Ruler" in result.stderr


def test_needs_given_as_one_string_is_refused() -> None:
    class OneString(RewardModel):
        needs = "agent_pos"  # type: ignore[assignment]

        def steps_to_go(self, observations: Any, goals: Any) -> StepsToGo:
            return StepsToGo(np.ones(len(goals)))

    with pytest.raises(RewardModelError, match=r"needs is a tuple of names, for example \('agent_pos',\)"):
        make_reward_model(OneString())


def test_a_models_memory_is_part_of_an_envs_state() -> None:
    class Clock(RewardModel):
        """d counts down from 100, in the model's own memory."""

        def __init__(self) -> None:
            self.left = 100.0

        def reset(self, goals: Any, mask: Any) -> None:
            self.left = 100.0

        def steps_to_go(self, observations: Any, goals: Any) -> StepsToGo:
            self.left -= 1.0
            return StepsToGo(np.full(len(goals), self.left))

        def get_state(self) -> float:
            return self.left

        def set_state(self, state: float) -> None:
            self.left = state

    check_state("EFM-PointMass-v0", reward_model=Clock())
