"""What a learner meets under an id never changes."""

import json
from typing import Any

import numpy as np

import efm_envs
from tests.golden import make

WHAT_TO_DO = (
    "Whatever changes this needs a new version of the id, and a line in its Version History. "
    "Only if this version was never released: python -m tests.golden.make {}"
)


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Returns the places where two JSON values differ by more than 1e-6 of a number."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i in range(len(a)) for d in differences(a[i], b[i], f"{where}/{i}")]
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    same = np.allclose(a, b, rtol=1e-6, atol=1e-9) if numbers else type(a) is type(b) and a == b
    return [] if same else [f"{where}: {a!r}, was {b!r}"]


def test_what_an_id_means_has_not_changed(env_id: str) -> None:
    golden = json.loads(make.path(env_id).read_text())
    changed = differences(make.fingerprint(env_id), golden)
    assert not changed, "\n".join([f"{env_id} is not what it was. {WHAT_TO_DO.format(env_id)}", *changed[:10]])


def test_every_id_has_a_fingerprint_and_every_fingerprint_an_id() -> None:
    assert sorted(p.stem for p in make.FOLDER.glob("*.json")) == sorted(efm_envs.ids())


def test_a_changed_fingerprint_is_noticed(env_id: str) -> None:
    golden = json.loads(make.path(env_id).read_text())
    for change in (
        {"step_limit": golden["step_limit"] + 1},
        {"scenarios": golden["scenarios"][::-1]},
        {"episode": {**golden["episode"], "rewards": [r + 1e-3 for r in golden["episode"]["rewards"]]}},
        {"action_space": {**golden["action_space"], "dtype": "float64"}},
    ):
        assert differences({**golden, **change}, golden)
    nearly = {**golden, "control_dt_s": golden["control_dt_s"] * (1 + 1e-9)}
    assert differences(nearly, golden) == []
