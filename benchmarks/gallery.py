"""Makes docs/gallery.md and its moving pictures: in every env an expert, then random actions from the same start.

python benchmarks/gallery.py [ID …]    # the pictures of all ids, or only of these; the page is written in any case
"""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from PIL import Image, ImageColor, ImageDraw, ImageFont
from tyro.conf import Positional

from efm_benchmarks import pages, policies, video
from efm_envs.errors import EFMError
from efm_envs.registration import Registration, ids, registration
from efm_envs.rollout import rollout
from efm_envs.seeding import EpisodeSet, episode_seeds

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "assets" / "gallery"

EXPERT, DETOURS, UNTRAINED = "expert:clean", "expert:human", "random"
FAILING = "expert:with_failures"
LABELS = {
    EXPERT: "clean expert",
    DETOURS: "expert who makes detours",
    UNTRAINED: "untrained: random actions",
    FAILING: "expert who drops the peg",
}
QUICK = ("dmc_reacher",)  # tags of ids whose clean expert is too quick to be followed
LEAST_S, MOST_S = 1.5, 4.0  # of the episode that is shown
RANDOM_S = 3.0  # of an episode where there is no expert
EPISODES_TRIED = 1000
VIEWS = {"aloha": ("angle", "top")}  # by an id's tag: cameras shown side by side; of other ids it is the first one
VIEW_SIZE = (400, 400)  # of each of them, in pixels

DROP_ID, DROP = "EFM-Insert-v0", ROOT / "docs" / "assets" / "insert_drop.gif"  # a mistake, and how it is put right
MOST_DROP_S = 8.0
LARGEST_DROP_FILE = 500_000  # in bytes

WIDTH = 400  # in pixels; two fit beside each other on GitHub
HEIGHT, BAND = 9 / 16, 3 / 16  # of the picture and of its caption, in widths
HOLD_MS = 1000  # the first and the last picture of an episode stay so long
LARGEST_FILE = 300_000  # in bytes
PICTURE_MS = 100  # from one picture to the next, at least
# (colours, every how many of these pictures): the first that makes a file small enough is taken.
QUALITIES = ((255, 1), (128, 1), (64, 1), (128, 2), (64, 2), (32, 2), (32, 4))

BACKGROUND, TEXT, FAINT = "#1f242d", "#ffffff", "#aeb6c2"
GREEN, RED = "#4cd964", "#ff6259"
CAPTION_COLORS = [
    tuple(round(share * a + (1 - share) * b) for a, b in zip(ImageColor.getrgb(ink), ImageColor.getrgb(BACKGROUND), strict=True))
    for ink in (TEXT, FAINT, GREEN, RED)
    for share in (1 / 3, 2 / 3, 1)  # of the ink: letters have smooth edges
]

COLUMNS = 2
INTRODUCTION = f"""\
# Gallery

Every env twice from the same start, in real time: first the clean expert, then an untrained policy, whose actions are random, for as many
steps. The start is the first evaluation episode on which the expert needs {LEAST_S:g} to {MOST_S:g} seconds and random actions fail; the
instruction stands under the picture. Where the clean expert is too quick to be followed, one who makes detours is shown; where there is
none, random actions in the first two evaluation episodes. `python benchmarks/gallery.py` makes the pictures and this page.

"""


class Take(NamedTuple):
    """One episode as it was seen.

    Attributes:
        label: whose it is.
        instruction: what was asked for.
        pictures: (H, W, 3) uint8, before each action and at the end.
        is_success: how it ended.
        step_ms: how long a control step takes in [ms].
    """

    label: str
    instruction: str
    pictures: Sequence[np.ndarray]
    is_success: bool
    step_ms: int


class Frame(NamedTuple):
    """A picture with its caption, and how long it stays in [ms]."""

    image: Image.Image
    shown_ms: int


def main(env_ids: Positional[tuple[str, ...]] = ()) -> None:
    """Make the pictures and the page.

    Args:
        env_ids: whose pictures to make; none is all.
    """
    for env_id in env_ids:
        registration(env_id)  # refuses an unknown one before the first is made
    for env_id in env_ids or ids():
        _say(make(env_id, PICTURES))
        if env_id == DROP_ID:
            _say(make_drop(DROP))
    PAGE.write_text(page())


def _say(path: Path) -> None:
    print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB")


def make(env_id: str, folder: Path, width: int = WIDTH) -> Path:
    """Makes the moving picture of an id, `width` pixels wide; returns the file.

    Raises:
        EFMError: there is no episode to show, or no quality makes the file small enough.
    """
    encoded = encode([frames(take, width) for take in takes(env_id)], env_id)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{env_id}.gif"
    path.write_bytes(encoded)
    return path


def make_drop(path: Path, width: int = WIDTH) -> Path:
    """Makes the moving picture of an expert who drops the peg, picks it up again and succeeds; returns the file."""
    path.write_bytes(encode([frames(drop_take(), width)], path.name, LARGEST_DROP_FILE))
    return path


# -- episodes ----------------------------------------------------------------------------------------------------------------------


def takes(env_id: str) -> tuple[Take, Take]:
    """Returns a success of the expert, then as many random steps from the same start that come to nothing.

    Where there is no expert, these are two starts with random actions.
    """
    seeds = itertools.islice(episode_seeds(EpisodeSet.EVALUATION, 0), EPISODES_TRIED)
    task = policies.task_of(env_id)
    if not task.experts:
        first, second = (record(UNTRAINED, env_id, next(seeds), round(RANDOM_S / task.control_dt_s)) for _ in range(2))
        return first, second
    shown = DETOURS if set(QUICK) & set(registration(env_id).tags) else EXPERT
    for episode in rollout(policies.make_policy(shown, env_id), env_id, seeds, terminate_on="true"):
        if LEAST_S <= len(episode) * task.control_dt_s <= MOST_S:
            expert = record(shown, env_id, episode.seed, len(episode), policy_seed=0)
            untrained = record(UNTRAINED, env_id, episode.seed, len(episode))
            if expert.is_success and not untrained.is_success:
                return expert, untrained
    raise EFMError(f"none of {EPISODES_TRIED} evaluation episodes of {env_id} can be shown: see LEAST_S and MOST_S.")


def drop_take() -> Take:
    """Returns an episode in which the expert drops the peg, makes no other mistake, and succeeds."""
    seeds = itertools.islice(episode_seeds(EpisodeSet.EVALUATION, 0), EPISODES_TRIED)
    step_s = policies.task_of(DROP_ID).control_dt_s
    for episode in rollout(policies.make_policy(FAILING, DROP_ID, seed=0), DROP_ID, seeds, terminate_on="true"):
        mistakes = [mistake for _, mistake in episode.notes["mistakes"]]
        if mistakes == ["drop"] and episode.is_success.any() and len(episode) * step_s <= MOST_DROP_S:
            return record(FAILING, DROP_ID, episode.seed, len(episode), policy_seed=0)
    raise EFMError(f"in none of {EPISODES_TRIED} evaluation episodes of {DROP_ID} something is dropped and put right: see MOST_DROP_S.")


def record(policy: str, env_id: str, seed: int, steps: int, policy_seed: int | None = None) -> Take:
    """Runs an episode of at most so many steps, once for each camera. A policy makes its own choices by the episode's seed or another."""
    views = next((cameras for tag, cameras in VIEWS.items() if tag in registration(env_id).tags), ())
    shown = [{"render_camera": camera, "render_size": VIEW_SIZE} for camera in views] or [{}]
    seen = []
    for how in shown:
        acting = policies.make_policy(policy, env_id, seed=seed if policy_seed is None else policy_seed)
        pictures, (info,) = video.record(acting, env_id, [seed], terminate_on="true", step_limit=steps, **how)
        seen.append(pictures[: steps + 1])  # without the pause that follows
    side_by_side = [np.concatenate(pictures, axis=1) for pictures in zip(*seen, strict=True)]
    return Take(LABELS[policy], info["instruction"], side_by_side, info["is_success"], round(1000 * policies.task_of(env_id).control_dt_s))


# -- pictures ----------------------------------------------------------------------------------------------------------------------


def frames(take: Take, width: int) -> list[Frame]:
    """Returns the episode in real time, with captions, a picture every PICTURE_MS or every step, whichever is longer."""
    every, last = max(1, PICTURE_MS // take.step_ms), len(take.pictures) - 1
    steps = sorted({*range(0, last, every), last})
    shown_ms = {0: HOLD_MS, last: HOLD_MS}
    return [
        Frame(captioned(take, step, width), shown_ms.get(step, take.step_ms * (after - step)))
        for step, after in itertools.pairwise([*steps, last + 1])
    ]


def captioned(take: Take, step: int, width: int) -> Image.Image:
    """Returns the picture after `step` control steps above what there is to say about it."""
    height, band = round(width * HEIGHT), round(width * BAND)
    image = Image.new("RGB", (width, height + band), BACKGROUND)
    picture = Image.fromarray(take.pictures[step])
    picture = picture.resize(fitting(picture.size, (width, height)), Image.Resampling.LANCZOS)
    image.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))

    draw = ImageDraw.Draw(image)
    large, small = (ImageFont.load_default(size=width * share) for share in (0.042, 0.036))
    left, middle, right = width * 0.025, width * 0.8, width * 0.975
    draw.text((left, height + band * 0.35), wrapped(take.instruction, large, right - left), TEXT, large, anchor="lm", spacing=width * 0.005)
    bottom = height + band * 0.9
    draw.text((left, bottom), take.label, FAINT, small, anchor="ls")
    draw.text((right, bottom), f"step {step}", FAINT, small, anchor="rs")
    if step == len(take.pictures) - 1:
        outcome, color = ("success", GREEN) if take.is_success else ("no success", RED)
        draw.text((middle, bottom), outcome, color, large, anchor="rs")
    return image


def fitting(size: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """Returns the largest (width, height) of the same shape that has room."""
    share = min(room[0] / size[0], room[1] / size[1])
    return round(size[0] * share), round(size[1] * share)


def wrapped(text: str, font: Any, width: float) -> str:
    """Returns a text with a line feed where a line would be longer than `width` in [pixels].

    Raises:
        EFMError: that makes more than two lines, for which there is no room.
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > 2:
        raise EFMError(f"an instruction has two lines at most under a picture of the gallery; {text!r} needs {len(lines)}.")
    return "\n".join(lines)


# -- files -------------------------------------------------------------------------------------------------------------------------


def encode(episodes: Sequence[Sequence[Frame]], name: str, largest: int | None = None) -> bytes:
    """Returns the episodes as one GIF that starts anew for ever, in the best quality that makes at most `largest` bytes (LARGEST_FILE).

    Raises:
        EFMError: there is none.
    """
    largest = largest or LARGEST_FILE
    for colors, every in QUALITIES:
        encoded = as_gif([frame for episode in episodes for frame in thinned(episode, every)], colors)
        if len(encoded) <= largest:
            return encoded
    raise EFMError(f"{name}: {len(encoded)} bytes even at the lowest of QUALITIES; at most {largest} are allowed. Show less.")


def thinned(episode: Sequence[Frame], every: int) -> list[Frame]:
    """Returns each `every`-th frame and the last, each for as long as those that it stands for."""
    kept = sorted({*range(0, len(episode), every), len(episode) - 1})
    return [
        Frame(episode[first].image, sum(frame.shown_ms for frame in episode[first:end]))
        for first, end in itertools.pairwise([*kept, len(episode)])
    ]


def as_gif(shown: Sequence[Frame], colors: int) -> bytes:
    """Returns a GIF with one palette for all frames, undithered: what stays the same from frame to frame then costs nothing."""
    palette = palette_of([frame.image for frame in shown], colors)
    images = [frame.image.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown]
    file = io.BytesIO()
    durations = [frame.shown_ms for frame in shown]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return file.getvalue()


def palette_of(images: Sequence[Image.Image], colors: int) -> Image.Image:
    """Returns an image with so many colours: those of the captions, and the others chosen for a sample of the images."""
    sample = [np.asarray(images[i]) for i in np.linspace(0, len(images) - 1, 8).round().astype(int)]
    chosen = Image.fromarray(np.concatenate(sample)).quantize(colors - len(CAPTION_COLORS)).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(chosen or ()), *itertools.chain.from_iterable(CAPTION_COLORS)])
    return palette


# -- page --------------------------------------------------------------------------------------------------------------------------


def page() -> str:
    """Returns the text of docs/gallery.md."""
    cells = [cell(registration(env_id)) for env_id in ids()]
    rows = ["| " + " | ".join(cells[i : i + COLUMNS]) + " |" for i in range(0, len(cells), COLUMNS)]
    return INTRODUCTION + "\n".join(["| " * COLUMNS + "|", "|---" * COLUMNS + "|", *rows]) + "\n"


def cell(row: Registration) -> str:
    """Returns what the page shows of an id; its env's page is named after its first tag."""
    return f"![{row.id}](assets/gallery/{row.id}.gif)<br>[**{row.id}**](envs/{row.tags[0]}.md)<br>{row.summary}"


if __name__ == "__main__":
    pages.run_script(lambda: tyro.cli(main, prog="gallery.py", description="Make docs/gallery.md and its pictures."))
