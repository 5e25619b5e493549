"""Work in several processes, whose result is that of one. Only light imports here: every worker makes them, too."""

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from efm_envs.data.episode import Episode
from efm_envs.errors import EFMError
from efm_envs.rollout import PolicyOrFactory, rollout

AHEAD = 2  # items under way for each worker: the one it works on, and its next
BATCH = 16  # episodes that a worker runs at a time

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result, None, None]:
    """Yields `function(item)` for each item, in their order, computed in so many processes; no farther ahead than they need for it.

    Whoever stops asking (`close()`, Ctrl-C, an error) stops the workers at once, in the middle of an item.

    Args:
        function: other processes must be able to import it; so no lambda.
        items: read one at a time.
        workers: how many processes; 1 starts none.

    Raises:
        EFMError: a worker was killed. Whatever `function` raises is raised here.
    """
    if workers == 1:
        yield from map(function, items)
        return
    # Not forked: a process that holds threads of torch, or a GL context, cannot be.
    context = multiprocessing.get_context("spawn")
    workers_end, own_end = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, _obey_parent, (workers_end,))
    todo = iter(items)
    try:
        pending = deque(executor.submit(function, item) for item in itertools.islice(todo, AHEAD * workers))
        while pending:
            result = pending.popleft().result()
            pending.extend(executor.submit(function, item) for item in itertools.islice(todo, 1))
            yield result
    except BrokenProcessPool as error:
        raise EFMError(
            "a worker process ended before its work did. It was killed (is there enough memory?), or it could not begin: a script that "
            "uses several workers does its work under `if __name__ == '__main__':`. One worker (workers=1) needs no other process."
        ) from error
    finally:
        own_end.close()
        executor.shutdown(cancel_futures=True)
        workers_end.close()


def rollout_in_order(
    policy: PolicyOrFactory, env_id: str, seeds: Iterable[int], *, workers: int = 1, **make_kwargs: Any
) -> Generator[Episode, None, None]:
    """As `rollout`, in several processes: the episodes come in the order of their seeds, and are the same for any number of workers.

    Args:
        policy: other processes must be able to unpickle it; for example `functools.partial(efm_envs.make_expert, style="human")`.
        env_id: a registered id.
        seeds: reset seeds, read a few batches ahead.
        workers: how many processes; 1 starts none.
        **make_kwargs: for `gym.make`.
    """
    if workers == 1:
        yield from rollout(policy, env_id, seeds, **make_kwargs)
        return
    run = functools.partial(_run_batch, policy, env_id, make_kwargs)
    with contextlib.closing(in_order(run, batches(seeds), workers)) as done:
        for episodes in done:
            yield from episodes


def batches(seeds: Iterable[int], size: int = BATCH) -> Iterator[list[int]]:
    """Yields the seeds, so many at a time."""
    remaining = iter(seeds)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def number_of_workers(workers: int, episodes: int) -> int:
    """Returns how many processes are worth starting for so many episodes; `workers` is the most, 0 one for each processor."""
    if workers < 0:
        raise EFMError(f"workers is a whole number, 0 for one per processor; got {workers!r}.")
    return max(1, min(workers or os.cpu_count() or 1, -(-episodes // BATCH)))


def _run_batch(policy: PolicyOrFactory, env_id: str, make_kwargs: dict[str, Any], seeds: Sequence[int]) -> list[Episode]:
    return list(rollout(policy, env_id, seeds, **make_kwargs))


def _obey_parent(parent: Connection) -> None:
    """Leaves Ctrl-C to the parent; and ends when the parent closes its end of the pipe, or dies, which closes it too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        parent.recv()  # nothing is ever sent
    os._exit(1)
