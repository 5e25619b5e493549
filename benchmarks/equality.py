"""Compares vector envs with single envs, bit for bit, and stores what came of it.

python benchmarks/equality.py [IDS ...] [--num-envs 64] [--steps 500] [--workers 0]
"""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from efm_benchmarks import equality, pages
from efm_envs.registration import ids, registration

STORED = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "equality.json"


def main(
    env_ids: Positional[tuple[str, ...]] = (),
    *,
    num_envs: Annotated[int, arg(help="Envs side by side.")] = 64,
    steps: Annotated[int, arg(help="Steps of random actions.")] = 500,
    workers: Annotated[int, arg(help="Processes; 0 is one per processor.")] = 0,
    out: Annotated[Path, arg(help="The file to write; other ids in it stay.")] = STORED,
) -> None:
    """Compare these ids, or all, in every autoreset mode, with 1 and 2 threads."""
    from efm_benchmarks.progress import progress  # not above: it brings torch, and every worker imports this file again

    if min(num_envs, steps) < 1:
        sys.exit(f"error: --num-envs and --steps must be at least 1; got {num_envs} and {steps}.")
    chosen = [registration(env_id).id for env_id in env_ids] or ids()
    with progress() as report:
        differ = equality.run(out, chosen, num_envs=num_envs, steps=steps, workers=workers, report=report)
    if differ:
        sys.exit("error: vector envs differ from single envs:\n" + "\n".join(differ))
    print(f"{len(chosen)} ids are bit-identical in every mode, with 1 and 2 threads.")


if __name__ == "__main__":
    pages.run_script(lambda: tyro.cli(main, prog="equality.py"))
