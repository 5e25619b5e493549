"""What cameras see where a goal is reached: pictures for reward models that are shown their goal."""

from collections import OrderedDict
from collections.abc import Collection

import numpy as np

from efm_envs.errors import RewardModelError
from efm_envs.experts.base import load_expert
from efm_envs.rendering import CameraRenderer, Scene
from efm_envs.rewards.base import GOAL_PIXELS
from efm_envs.seeding import Stream, generator
from efm_envs.simulation import Simulation
from efm_envs.task import Array, Scenario, Task

MOST_KEPT = 1024  # pictures
LONGEST_S = 20.0  # of an expert's episode; twice what the longest of ours takes


class GoalPictures:
    """Pictures of how an episode ends when the clean expert acts in it from its start: one run of the expert for each scenario.

    Args:
        task: what the episodes are about.
        size: (height, width) of the pictures in pixels.
        names: of the pictures that will be asked for, "goal/pixels/<camera>".

    Raises:
        RewardModelError: pictures will be asked for, and the task has no expert who could reach a goal.
    """

    def __init__(self, task: Task, size: tuple[int, int], names: Collection[str]) -> None:
        if names and not task.experts:
            raise RewardModelError(
                f"{sorted(names)[0]!r} shows where the clean expert ends, and {task.name} has no experts: "
                "a reward model that needs a goal picture cannot be used here."
            )
        self._task, self._size = task, size
        self._kept: OrderedDict[tuple[int, str], tuple[Scenario, Array]] = OrderedDict()
        self._camera: CameraRenderer | None = None

    @property
    def renders(self) -> int:
        """Pictures drawn so far."""
        return self._camera.renders if self._camera else 0

    def of(self, scenario: Scenario, name: str) -> Array:
        """Returns (H, W, 3) uint8: what the camera in `name` sees at the end of the expert's episode from this start."""
        key = (id(scenario), name)  # the scenario is kept with the picture, so that no other gets its id
        if key not in self._kept:
            self._kept[key] = scenario, self._draw(scenario, name.removeprefix(GOAL_PIXELS))
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return self._kept[key][1].copy()

    def close(self) -> None:
        """Frees the GL context; more than once does no harm."""
        if self._camera is not None:
            self._camera.close()

    def _draw(self, scenario: Scenario, camera: str) -> Array:
        if self._camera is None:
            self._simulation = Simulation(self._task)
            self._camera = CameraRenderer(Scene(self._task, self._simulation.physics, self._simulation.data), *self._size)
        self._simulation.start(scenario)
        self._act()
        return self._camera.render(camera)

    def _act(self) -> None:
        """Lets the expert act until the goal is reached."""
        simulation, expert = self._simulation, load_expert(self._task, "clean")
        expert.reset(simulation.physics, simulation.goals, generator(Stream.EXPERT))
        for _ in range(round(LONGEST_S / self._task.control_dt_s)):
            if simulation.is_success():
                return
            simulation.step(expert.act(simulation.physics, simulation.goals).astype(np.float32))
