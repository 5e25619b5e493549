"""How the episode of an address (s, k) starts, for every env that ever asks.

Where a task counts only starts that its clean expert solves, that is tried out here, once for each address in a process.
"""

import numpy as np

from efm_envs.errors import EFMError
from efm_envs.experts.base import load_expert
from efm_envs.seeding import Stream, generator
from efm_envs.simulation import Simulation
from efm_envs.task import Scenario, Task

MAX_DRAWS = 1000  # a task whose expert solves one start in so many is broken
MOST_KEPT = 100_000  # addresses whose draw is remembered

Address = tuple[int, int]

_solved_draw: dict[tuple[str, Address], int] = {}  # (fingerprint of the task, address): number of the first draw that was solved


def scenario_at(task: Task, address: Address) -> Scenario:
    """Returns how the episode of an address starts: a function of the task and the address alone.

    Raises:
        EFMError: the expert solved none of 1000 draws.
    """
    if task.solvable_within is None:
        return task.sample(generator(Stream.SCENARIO, *address))
    return _draw(task, address, draws_at(task, address) - 1)


def draws_at(task: Task, address: Address) -> int:
    """Returns how many starts were drawn for the episode of an address until one counted; 1 where every start counts.

    Raises:
        EFMError: the expert solved none of 1000 draws.
    """
    if task.solvable_within is None:
        return 1
    key = (task.fingerprint, address)
    if key not in _solved_draw:
        if len(_solved_draw) >= MOST_KEPT:
            del _solved_draw[next(iter(_solved_draw))]  # the oldest
        _solved_draw[key] = _first_solved_draw(task, address)
    return _solved_draw[key] + 1


def is_solvable(task: Task, scenario: Scenario) -> bool:
    """Whether the clean expert, from this start, succeeds within `task.solvable_within` control steps."""
    simulation = _started(task, scenario)
    return not simulation.is_success() and _expert_solves(simulation)


def check_solvable(task: Task, scenario: Scenario) -> None:
    """Raises EFMError for a start, set by hand, that is no start: already a success, or one that the expert cannot solve."""
    instruction, simulation = scenario.goal.instruction, _started(task, scenario)
    if simulation.is_success():
        raise EFMError(f"the scenario is already a success: {instruction!r}. Move something away from the goal.")
    if not _expert_solves(simulation):
        raise EFMError(
            f"the clean expert does not get to {instruction!r} from this scenario within {task.solvable_within} steps, "
            "so it does not count as a start. Give what it must move more room."
        )


def _started(task: Task, scenario: Scenario) -> Simulation:
    simulation = Simulation(task)
    simulation.start(scenario)
    return simulation


def _expert_solves(simulation: Simulation) -> bool:
    task, physics, goals = simulation.task, simulation.physics, simulation.goals
    expert = load_expert(task, "clean")
    expert.reset(physics, goals, generator(Stream.EXPERT))
    for _ in range(task.solvable_within or 0):
        simulation.step(expert.act(physics, goals).astype(np.float32))  # float32, as policies act
        if simulation.is_success():
            return True
    return False


def _first_solved_draw(task: Task, address: Address) -> int:
    for draw in range(MAX_DRAWS):
        if is_solvable(task, _draw(task, address, draw)):
            return draw
    raise EFMError(f"the clean expert of {task.name} solved none of {MAX_DRAWS} starts drawn for episode {address}.")


def _draw(task: Task, address: Address, number: int) -> Scenario:
    return task.sample(generator(Stream.SCENARIO, *address, number))
