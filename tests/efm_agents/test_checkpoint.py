import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from efm_agents.checkpoint import (
    find_checkpoint,
    fingerprint,
    load_checkpoint,
    pack,
    pack_optimizer,
    save_checkpoint,
    unpack,
    unpack_optimizer,
)
from efm_envs.errors import CheckpointError
from tests.efm_agents.dying import Killed, dying_at

OLD = {"weight": torch.arange(6.0).reshape(2, 3)}
NEW = {"weight": -torch.arange(8.0)}


def bits(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    if dtype.is_floating_point:
        values = st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf"), -float("inf"), 1e-45, 1 / 3])
    else:
        values = st.integers(0, 1)
    count = int(torch.tensor(shape).prod()) if shape else 1
    tensor = torch.tensor(draw(st.lists(values, min_size=count, max_size=count)), dtype=dtype).reshape(shape)
    return tensor.mT if draw(st.booleans()) and tensor.ndim > 1 else tensor  # not contiguous


json_ = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**130), 2**130) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(saved=st.dictionaries(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), tensors(), max_size=4), config=json_)
def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path, saved: dict[str, torch.Tensor], config: Any) -> None:
    save_checkpoint(tmp_path / "c.safetensors", "thing", saved, {"config": config})
    loaded, facts = load_checkpoint(tmp_path / "c.safetensors", "thing")
    assert {name: bits(t) for name, t in loaded.items()} == {name: bits(t) for name, t in saved.items()}
    assert facts["config"] == config


def test_the_same_content_gives_the_same_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", "thing", OLD, {"x": 1, "y": 2})
    save_checkpoint(tmp_path / "b.safetensors", "thing", OLD, {"y": 2, "x": 1})
    assert fingerprint(tmp_path / "a.safetensors") == fingerprint(tmp_path / "b.safetensors")


def test_a_file_cut_at_any_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, "thing", OLD, {})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"c\.safetensors is not a complete checkpoint .* cut short or is another kind of file"):
            load_checkpoint(path, "thing")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*absent\.safetensors"):
        load_checkpoint(tmp_path / "absent.safetensors", "thing")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        load_checkpoint(tmp_path, "thing")


def test_another_kind_is_refused_and_both_are_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", "steps_to_go", OLD, {})
    with pytest.raises(CheckpointError, match=r"a checkpoint of 'steps_to_go' .* expected 'policy'"):
        load_checkpoint(tmp_path / "c.safetensors", "policy")


def test_another_format_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", "policy", OLD, {"format": "efm_agents.checkpoint/999"})
    with pytest.raises(CheckpointError, match=r"efm_agents.checkpoint/999"):
        load_checkpoint(tmp_path / "c.safetensors", "policy")


@pytest.mark.parametrize("metadata", [None, {"other": "x"}, {"config": "not json"}])
def test_somebody_elses_safetensors_file_is_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(OLD, tmp_path / "c.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=r"c\.safetensors"):
        load_checkpoint(tmp_path / "c.safetensors", "policy")


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("dump", [lambda bomb, path: path.write_bytes(pickle.dumps(bomb)), torch.save], ids=["pickle", "torch.save"])
def test_a_pickle_is_refused_and_never_executed(dump: Any, tmp_path: Path) -> None:
    dump(Bomb(tmp_path / "exploded"), tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        load_checkpoint(tmp_path / "c.safetensors", "policy")
    assert not (tmp_path / "exploded").exists()


def test_dying_in_a_write_leaves_the_old_checkpoint_or_the_new_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.safetensors"
    found = []
    for k in range(1, 100):
        save_checkpoint(path, "thing", OLD, {"version": "old"})
        try:
            with dying_at(k, monkeypatch) as calls:
                save_checkpoint(path, "thing", NEW, {"version": "new"})
        except Killed:
            pass
        loaded, facts = load_checkpoint(path, "thing")
        expected = {"old": OLD, "new": NEW}[facts["version"]]
        assert bits(loaded["weight"]) == bits(expected["weight"]), f"died in {calls}"
        assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"], f"died in {calls}"
        found.append(facts["version"])
        if len(calls) < k:
            break
    assert found[-1] == "new" and set(found[:-1]) == {"old"} and {"open", "write", "fsync", "replace"} <= set(calls)


KILLED_WRITER = """
import os, sys
from pathlib import Path
import pytest, torch
from efm_agents.checkpoint import load_checkpoint, save_checkpoint
from tests.efm_agents.dying import dying_at

path = Path(sys.argv[1])
versions = []
for k in range(1, 100):
    save_checkpoint(path, "thing", {"w": torch.zeros(5)}, {"version": "old"})
    child = os.fork()
    if child == 0:
        with dying_at(k, pytest.MonkeyPatch(), die=lambda: os._exit(9)):
            save_checkpoint(path, "thing", {"w": torch.ones(5)}, {"version": "new"})
        os._exit(0)
    alive = os.waitpid(child, 0)[1] == 0
    versions.append(load_checkpoint(path, "thing")[1]["version"])
    if alive:
        break
save_checkpoint(path, "thing", {"w": torch.zeros(5)}, {})
print(*versions)
"""


def test_temporary_files_of_killed_writers_do_not_pile_up(tmp_path: Path) -> None:
    """A process that is killed cannot tidy up: whoever writes next does."""
    path = tmp_path / "run" / "c.safetensors"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, path], capture_output=True, text=True, check=False, cwd=root)
    versions = done.stdout.split()
    assert len(versions) > 3 and versions[-1] == "new" and set(versions[:-1]) == {"old"}, done.stderr
    assert [p.name for p in path.parent.iterdir()] == ["c.safetensors"]


def test_a_run_with_no_such_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no 'policy' checkpoint in .*: expected the folder of a run that holds checkpoints/policy"):
        find_checkpoint(tmp_path, "policy")


def test_a_checkpoint_is_found_by_its_runs_folder_and_by_its_own_path(sft_run: Path) -> None:
    file = sft_run / "checkpoints/policy.safetensors"
    assert find_checkpoint(sft_run, "policy") == find_checkpoint(str(file), "policy") == file


def test_pack_and_unpack_are_inverse_and_prefixes_do_not_mix() -> None:
    both = pack("a", OLD) | pack("a/b", NEW) | pack("ab", NEW)
    assert unpack("ab", both) == NEW and unpack("a/b", both) == NEW
    assert unpack("a", both)["weight"] is OLD["weight"]


def test_an_optimizer_that_was_saved_goes_on_bit_for_bit(tmp_path: Path) -> None:
    inputs = torch.linspace(-1, 1, 12).reshape(4, 3)

    def make() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 2)
        return network, torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.01)

    def step(network: torch.nn.Linear, optimizer: torch.optim.AdamW) -> None:
        optimizer.zero_grad()
        network(inputs).square().mean().backward()
        optimizer.step()

    network, optimizer = make()
    for _ in range(3):
        step(network, optimizer)
    save_checkpoint(tmp_path / "c.safetensors", "state", pack("n", network.state_dict()) | pack_optimizer("o", optimizer), {})

    again, fresh = make()
    loaded, _ = load_checkpoint(tmp_path / "c.safetensors", "state")
    again.load_state_dict(unpack("n", loaded))
    unpack_optimizer("o", loaded, fresh)
    for _ in range(3):
        step(network, optimizer)
        step(again, fresh)
    assert bits(network.weight.detach()) == bits(again.weight.detach())
    moments = [{f"{i}/{k}": bits(v) for i, s in o.state_dict()["state"].items() for k, v in s.items()} for o in (optimizer, fresh)]
    assert moments[0] == moments[1] and len(moments[0]) == 6  # step, and two moments, of weight and bias


def test_an_optimizer_that_never_stepped_round_trips() -> None:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    assert pack_optimizer("o", optimizer) == {}
    unpack_optimizer("o", {}, optimizer)
    assert optimizer.state_dict()["state"] == {}
