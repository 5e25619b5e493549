"""What a policy says about an episode stands in it, and stays with it on disk."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import efm_envs
from efm_envs.data import Episode, load_episodes, save_episodes
from efm_envs.rollout import rollout
from tests.efm_envs import fakes
from tests.efm_envs.fakes import POINT_MASS

human = functools.partial(efm_envs.make_expert, style="human")


class Talkative(fakes.GoStraight):
    """Says which env it is asked about, and how often it had acted."""

    def __init__(self) -> None:
        self.acts = 0

    def act(self, observations: Any) -> np.ndarray:
        self.acts += 1
        return super().act(observations)

    def notes(self, i: int) -> dict[str, Any]:
        return {"env": i, "acts": self.acts}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_episodes(tmp_path / "demos.npz", list(rollout(human, POINT_MASS, range(3))))
    return tmp_path / "demos.npz"


def rewrite_header(file: Path, change: Any) -> None:
    with np.load(file) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    change(header)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(file, **arrays)


def test_an_expert_says_its_style() -> None:
    for style in ("clean", "human"):
        policy = functools.partial(efm_envs.make_expert, style=style)
        assert [episode.notes for episode in rollout(policy, POINT_MASS, range(3), num_envs=2)] == [{"expert": style}] * 3


def test_an_expert_in_one_env_is_asked_without_a_number() -> None:
    import gymnasium as gym

    assert efm_envs.make_expert(gym.make(POINT_MASS), "human").notes() == {"expert": "human"}


def test_a_policy_without_notes_has_nothing_to_say() -> None:
    for policy in (fakes.GoStraight(), fakes.constant_policy(np.zeros(2))):
        assert [episode.notes for episode in rollout(policy, POINT_MASS, [0, 1])] == [{}, {}]


def test_a_policy_is_asked_about_the_env_whose_episode_has_just_ended() -> None:
    alone = {e.seed: len(e) for e in rollout(fakes.GoStraight(), POINT_MASS, range(4))}
    together = {e.seed: e for e in rollout(Talkative(), POINT_MASS, range(4), num_envs=4)}
    for seed, episode in together.items():
        assert episode.notes == {"env": seed, "acts": alone[seed]}


def test_an_episode_that_an_error_ended_has_notes_too(register: Any) -> None:
    (failed,) = rollout(Talkative(), register(fakes.FailingEnv), [1])
    assert failed.error is not None and failed.notes == {"env": 0, "acts": 3}


def test_notes_change_nothing_else() -> None:
    (silent,), (talking,) = (rollout(policy, POINT_MASS, [2]) for policy in (fakes.GoStraight(), Talkative()))
    np.testing.assert_array_equal(silent.actions, talking.actions)
    np.testing.assert_array_equal(silent.rewards, talking.rewards)
    assert (silent.seed, silent.end_reason, silent.error) == (talking.seed, talking.end_reason, talking.error)


def test_two_episodes_never_share_their_notes() -> None:
    a, b = rollout(fakes.GoStraight(), POINT_MASS, [0, 1])
    assert a.notes is not b.notes


def test_notes_are_loaded_as_they_were_saved(tmp_path: Path) -> None:
    (episode,) = rollout(human, POINT_MASS, [0])
    said = [{}, {"expert": "human", "mistakes": [[12, "drop"], [40, "miss"]]}, {"nested": {"n": [1, 2.5, None, True, "Größe"]}}]
    save_episodes(tmp_path / "e.npz", [Episode(**{**vars(episode), "notes": notes}) for notes in said])
    assert [e.notes for e in load_episodes(tmp_path / "e.npz")[0]] == said


def test_a_file_from_before_there_were_notes_has_none(file: Path) -> None:
    rewrite_header(file, lambda header: [facts.pop("notes") for facts in header["episodes"]])
    episodes, _ = load_episodes(file)
    assert [e.notes for e in episodes] == [{}] * 3
    assert len({id(e.notes) for e in episodes}) == 3
    save_episodes(file, episodes)
    assert [e.notes for e in load_episodes(file)[0]] == [{}] * 3


def test_notes_that_are_not_json_are_refused_and_the_old_file_stays(file: Path) -> None:
    before = file.read_bytes()
    episodes, _ = load_episodes(file)
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_episodes(file, [Episode(**{**vars(episodes[0]), "notes": {"array": np.zeros(2)}})])
    assert file.read_bytes() == before
