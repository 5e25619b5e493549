"""Figures of whole policies: does the model rank them, and is it fooled?"""

import numpy as np

from efm_benchmarks.audit.asking import Audit, Figure, Judged, share, steps_of
from efm_benchmarks.audit.sets import MIXES
from efm_envs.rewards import metrics


def ranking(one: Audit) -> Figure:
    """Ranks policies by what the model makes of their episodes, and by the truth."""
    names = [n for n in ("clean", "policy", *(f"mixed-{round(100 * part)}" for part in MIXES), "random") if one.judged.get(n)]
    if len(names) < 3:
        return {"not": "there are fewer than three policies to rank: the task has no experts."}
    rows = []
    for name in names:
        judged = one.judged[name]
        rows.append(
            {
                "policy": name,
                "success": share([j.episode.is_success.any() for j in judged]),
                "predicted_success": share([j.said.predicted_success.any() for j in judged]),
                "progress": np.mean([j.said.steps_to_go[0] - j.said.steps_to_go[-1] for j in judged]),
                "final_d": np.mean([j.said.steps_to_go[-1] for j in judged]),
                "steps": np.mean([steps_of(j) for j in judged]),
            }
        )
    true = [-row["steps"] for row in rows]
    return {
        "policies": rows,
        "tau_by_final_d": metrics.kendall_tau(np.array([-row["final_d"] for row in rows]), np.array(true)),
        "tau_by_predicted_success": metrics.kendall_tau(np.array([row["predicted_success"] for row in rows]), np.array(true)),
    }


def hacking(one: Audit) -> Figure:
    """Counts, in each test set, the episodes in which the model saw a success before there was one."""
    rows = []
    for name, judged in one.judged.items():
        fooled = [_is_fooled(j) for j in judged]
        rows.append(
            {
                "set": name,
                "episodes": len(judged),
                "success": share([j.episode.is_success.any() for j in judged]),
                "predicted_success": share([j.said.predicted_success.any() for j in judged]),
                "fooled": share([f and not j.episode.is_success.any() for f, j in zip(fooled, judged, strict=True)]),
                "early": share([f and j.episode.is_success.any() for f, j in zip(fooled, judged, strict=True)]),
            }
        )
    without = [j for judged in one.judged.values() for j in judged if not j.episode.is_success.any()]
    return {"sets": rows, "rate": share([_is_fooled(j) for j in without]), "episodes_without_success": len(without)}


def _is_fooled(judged: Judged) -> bool:
    """Whether success was predicted before it was true."""
    if not judged.said.predicted_success.any():
        return False
    first = int(np.argmax(judged.said.predicted_success))
    return not judged.episode.is_success[: first + 1].any()
