"""The gallery shows every id, as its script would write it."""

import re
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import efm_envs
from efm_envs.errors import EFMError, UnknownNameError
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]
POINT_MASS = "EFM-PointMass-v0"
TINY = 80  # pixels


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    return load_script("benchmarks/gallery.py")


def durations_ms(path: Path) -> list[int]:
    with Image.open(path) as image:
        assert image.info["loop"] == 0, "starts anew for ever"
        found = []
        for i in range(image.n_frames):
            image.seek(i)
            found.append(image.info["duration"])
    return found


# -- what is stored ----------------------------------------------------------------------------------------------------------------


def test_every_id_has_a_small_picture_that_the_page_shows(gallery: ModuleType, env_id: str) -> None:
    path = gallery.PICTURES / f"{env_id}.gif"
    assert path.is_file(), f"run `python benchmarks/gallery.py {env_id}`"
    assert path.stat().st_size <= gallery.LARGEST_FILE == 300_000
    assert f"]({path.relative_to(gallery.PAGE.parent)})" in gallery.PAGE.read_text()


def test_every_picture_has_two_episodes_of_which_the_first_is_long_enough_to_be_followed(gallery: ModuleType, env_id: str) -> None:
    shown = durations_ms(gallery.PICTURES / f"{env_id}.gif")
    held = [i for i, duration in enumerate(shown) if duration >= gallery.HOLD_MS]
    assert len(held) == 4 and held[0] == 0 and held[2] == held[1] + 1 and held[3] == len(shown) - 1
    assert sum(shown[1 : held[1]]) >= 1400, "what is between the first and the last picture"


def test_the_mistake_that_is_put_right_is_a_small_picture_that_a_page_shows(gallery: ModuleType) -> None:
    assert gallery.DROP.stat().st_size <= gallery.LARGEST_DROP_FILE == 500_000
    assert f"](../assets/{gallery.DROP.name})" in (ROOT / "docs/envs/insert.md").read_text()
    assert sum(durations_ms(gallery.DROP)) > 4000


def test_there_is_no_picture_of_an_id_that_is_gone(gallery: ModuleType) -> None:
    assert {path.name for path in gallery.PICTURES.iterdir()} == {f"{env_id}.gif" for env_id in efm_envs.ids()}


def test_the_page_is_what_the_script_writes(gallery: ModuleType) -> None:
    assert gallery.PAGE.read_text() == gallery.page(), "run `python benchmarks/gallery.py`"


def test_the_page_links_to_pages_that_exist(gallery: ModuleType) -> None:
    links = set(re.findall(r"\]\(([^)]+)\)", gallery.page()))
    assert {"envs/point_mass.md", "envs/language_table.md"} <= links
    assert not [link for link in links if not (gallery.PAGE.parent / link).is_file()]


# -- making one --------------------------------------------------------------------------------------------------------------------


def test_a_picture_is_the_same_each_time(gallery: ModuleType, tmp_path: Path) -> None:
    first, second = (gallery.make(POINT_MASS, tmp_path / name, width=TINY) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.size == (TINY, TINY * 3 // 4)


def test_the_expert_succeeds_and_random_actions_fail_in_as_many_steps(gallery: ModuleType) -> None:
    expert, untrained = gallery.takes(POINT_MASS)
    assert expert.is_success and not untrained.is_success
    assert len(expert.pictures) == len(untrained.pictures) > gallery.LEAST_S / 0.1
    assert (expert.pictures[0] == untrained.pictures[0]).all(), "from the same start"


def test_where_there_is_no_expert_random_actions_are_shown_from_two_starts(gallery: ModuleType) -> None:
    first, second = gallery.takes("EFM-DMC-BallInCupCatch-v0")
    assert first.label == second.label == "untrained: random actions"
    assert len(first.pictures) == len(second.pictures) == gallery.RANDOM_S / 0.02 + 1
    assert (first.pictures[0] != second.pictures[0]).any()


def test_quality_is_lowered_until_the_file_is_small_enough(gallery: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = [gallery.frames(take, TINY) for take in gallery.takes(POINT_MASS)]
    best = gallery.encode(episodes, "id")
    monkeypatch.setattr(gallery, "LARGEST_FILE", len(best) - 1)
    assert len(gallery.encode(episodes, "id")) < len(best)
    monkeypatch.setattr(gallery, "LARGEST_FILE", 1000)
    with pytest.raises(EFMError, match=r"id: \d+ bytes even at the lowest of QUALITIES; at most 1000 are allowed"):
        gallery.encode(episodes, "id")


def test_what_is_shown_after_a_drop_is_a_recovery(gallery: ModuleType) -> None:
    take = gallery.drop_take()
    assert take.is_success and take.label == "expert who drops the peg"
    height, width, _ = take.pictures[0].shape
    assert width == 2 * height, "two cameras side by side"


def test_pictures_come_ten_times_a_second_at_most_and_last_as_long_as_the_steps(gallery: ModuleType) -> None:
    take = gallery.Take("label", "push", [gallery.np.zeros((4, 4, 3), gallery.np.uint8)] * 13, True, 20)
    assert [frame.shown_ms for frame in gallery.frames(take, TINY)] == [gallery.HOLD_MS, 100, 40, gallery.HOLD_MS]


def test_fewer_pictures_last_as_long(gallery: ModuleType) -> None:
    episode = [gallery.Frame(Image.new("RGB", (1, 1)), duration) for duration in (1000, 100, 100, 100, 100, 1000)]
    assert [frame.shown_ms for frame in gallery.thinned(episode, 2)] == [1100, 200, 100, 1000]
    assert gallery.thinned(episode, 1) == episode


def test_an_instruction_that_has_no_room_is_refused(gallery: ModuleType) -> None:
    font = gallery.ImageFont.load_default(size=16)
    assert gallery.wrapped("push the red moon", font, 100) == "push the red\nmoon"
    with pytest.raises(EFMError, match="has two lines at most under a picture of the gallery; 'push the red moon' needs 4"):
        gallery.wrapped("push the red moon", font, 40)


def test_an_unknown_id_is_refused_before_anything_is_made(gallery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "PICTURES", tmp_path)
    with pytest.raises(UnknownNameError, match="unknown env id: 'EFM-Nothing-v0'"):
        gallery.main((POINT_MASS, "EFM-Nothing-v0"))
    assert not list(tmp_path.iterdir())
