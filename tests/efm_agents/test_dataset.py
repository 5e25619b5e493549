import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from efm_agents.dataset import Dataset, Mixed, Rows, as_mixture, chunks, describe, split
from efm_agents.inputs import NUMBERS, WORDS, Reads
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from tests.efm_agents.small import Says, episode

DRAWS = 20_000
weights_ = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=4)


def data_of(*kinds: Mixed, chunk: int = 1) -> Dataset:
    return Dataset.of(kinds, Says(chunk))


def three_kinds() -> list[Mixed]:
    """Of lengths and numbers that differ; the observation says which kind it is of: 0 to 9, 1000 and more, 2000 and more."""
    return [
        Mixed([episode(3 + k, k) for k in range(3)], 1.0, 4.0),
        Mixed([episode(40, 10 + k) for k in range(5)], 3.0, 0.0),
        Mixed([episode(2, 20 + k) for k in range(9)], 0.0, 1.0),
    ]


def kind_of(rows: torch.Tensor, data: Dataset) -> np.ndarray:
    return (data.inputs[NUMBERS][rows, 0] // 1000).long().numpy()


# -- rows ---------------------------------------------------------------------------------------------------------------------------


def test_steps_to_go_counts_down_to_zero_at_the_last_observation() -> None:
    data = data_of(Mixed([episode(3), episode(1, 1), episode(2, 2)]))
    assert data.steps_to_go.tolist() == [3, 2, 1, 0, 1, 0, 2, 1, 0]
    assert data.inputs[NUMBERS][:, 0].tolist() == [0, 1, 2, 3, 100, 101, 200, 201, 202]


def test_an_action_is_learned_from_the_observation_before_it_and_none_from_an_end() -> None:
    data = data_of(Mixed([episode(3), episode(1, 1), episode(2, 2)]))
    assert data.acting.all().tolist() == [0, 1, 2, 4, 6, 7] and data.telling.all().tolist() == list(range(9))
    assert torch.equal(data.actions[data.acting.all(), 0], data.inputs[NUMBERS][data.acting.all()] + 0.5)


def test_the_ends_of_each_demonstration_are_its_first_and_its_last_row() -> None:
    data = data_of(Mixed([episode(3), episode(1, 1)]), Mixed([episode(2, 2), episode(4, 3)]))
    assert data.ends.tolist() == [[0, 3], [4, 5], [6, 8], [9, 13]]
    assert data.steps_to_go[data.ends[:, 0]].tolist() == [3, 1, 2, 4] and data.steps_to_go[data.ends[:, 1]].tolist() == [0] * 4


@given(st.integers(1, 12), st.integers(1, 6))
def test_a_chunk_is_the_actions_that_follow_and_beyond_the_end_the_last_one_stays(length: int, k: int) -> None:
    found = chunks(np.arange(length, dtype=float)[:, None], k)
    assert found.shape == (length + 1, k, 1) and found.dtype == np.float32
    for t in range(length):
        assert found[t, :, 0].tolist() == [min(t + i, length - 1) for i in range(k)]


def test_a_chunk_does_not_go_on_into_the_next_demonstration() -> None:
    data = data_of(Mixed([episode(2), episode(3, 1)]), chunk=3)
    assert data.actions[:3, :, 0].tolist() == [[0.5, 1.5, 1.5], [1.5, 1.5, 1.5], [1.5, 1.5, 1.5]]
    assert data.actions[3, :, 0].tolist() == [100.5, 101.5, 102.5]
    assert data.acting.all().tolist() == [0, 1, 3, 4, 5]


def test_image_state_instruction_and_action_of_a_row_belong_together() -> None:
    def seen(length: int, seed: int) -> Episode:
        t = 10 * seed + np.arange(length + 1)
        pixels = np.broadcast_to(t[:, None, None, None], (length + 1, 4, 6, 3)).astype(np.uint8)
        observations = {"pixels/top": pixels, "x": t[:, None].astype(np.float32)}
        return episode(length, seed, observations, instruction=f"go {'abcd'[seed]}", actions=t[:-1, None].astype(np.float32))

    kinds = [Mixed([seen(5, 0), seen(3, 1)], 1.0), Mixed([seen(4, 2), seen(2, 3)], 2.0)]
    reads = Reads.of([e for kind in kinds for e in kind.episodes])
    data = Dataset.of(kinds, Says(2, reads))
    state = data.inputs[NUMBERS][:, 0]
    assert torch.equal(data.inputs["pixels/top"].float().mean(dim=(1, 2, 3)), state)
    assert [reads.vocabulary[word - 2] for word in data.inputs[WORDS][:, 1]] == ["abcd"[int(x) // 10] for x in state]
    rows = data.acting.draw(200, np.random.default_rng(0))
    assert torch.equal(data.actions[rows, 0, 0], state[rows])
    ends = {0: 5, 1: 13, 2: 24, 3: 32}
    assert data.steps_to_go.tolist() == [ends[int(x) // 10] - int(x) for x in state]


# -- what is drawn ------------------------------------------------------------------------------------------------------------------


def test_kinds_are_drawn_in_the_shares_of_their_weights_and_rows_of_a_kind_alike() -> None:
    data, rng = data_of(*three_kinds()), np.random.default_rng(0)
    for rows, shares in ((data.acting, [0.25, 0.75, 0.0]), (data.telling, [0.8, 0.0, 0.2])):
        drawn = rows.draw(DRAWS, rng)
        counts = np.bincount(kind_of(drawn, data), minlength=3)
        used = np.array(shares) > 0
        assert counts[~used].sum() == 0
        assert stats.chisquare(counts[used], DRAWS * np.array(shares)[used]).pvalue > 1e-3
        for kind in np.flatnonzero(used):
            of_kind = drawn[torch.from_numpy(kind_of(drawn, data) == kind)]
            _, times = np.unique(of_kind.numpy(), return_counts=True)
            possible = rows.all()[torch.from_numpy(kind_of(rows.all(), data) == kind)]
            assert len(times) == len(possible) and stats.chisquare(times).pvalue > 1e-3


def test_one_kind_is_drawn_alike_whatever_its_weight() -> None:
    rng = np.random.default_rng
    one, other = (data_of(Mixed([episode(5), episode(7, 1)], weight, weight)) for weight in (1.0, 3.0))
    assert torch.equal(one.acting.draw(50, rng(0)), other.acting.draw(50, rng(0)))
    _, times = np.unique(one.telling.draw(DRAWS, rng(1)), return_counts=True)
    assert len(times) == 14 and stats.chisquare(times).pvalue > 1e-3


@given(weights_, st.integers(0, 50), st.integers(0, 5))
def test_a_kind_of_weight_0_is_never_drawn(weights: list[float], n: int, seed: int) -> None:
    kinds = [(np.arange(100 * i, 100 * i + 3 + i), weight) for i, weight in enumerate(weights)]
    if not any(weights):
        with pytest.raises(EFMError, match="no demonstrations of a weight above 0"):
            Rows.of(kinds)
        return
    rows = Rows.of(kinds)
    used = {row for numbers, weight in kinds if weight for row in numbers.tolist()}
    drawn = rows.draw(n, np.random.default_rng(seed))
    assert drawn.shape == (n,) and drawn.dtype == torch.int64 and set(drawn.tolist()) <= used
    assert rows.all().tolist() == sorted(used)


def test_a_kind_from_which_the_policy_does_not_learn_is_in_no_acting_row() -> None:
    data = data_of(*three_kinds())
    assert set(kind_of(data.acting.all(), data)) == {0, 1} and set(kind_of(data.telling.all(), data)) == {0, 2}


# -- held out -----------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 20), min_size=2, max_size=40), st.floats(0.01, 0.5), st.integers(0, 5))
def test_whole_episodes_are_held_out_and_none_of_them_is_trained_on(lengths: list[int], fraction: float, seed: int) -> None:
    episodes = [episode(length, k) for k, length in enumerate(lengths)]
    (training,), (held_out,) = split([Mixed(episodes)], fraction, np.random.default_rng(seed))
    assert sorted(e.seed for e in (*training.episodes, *held_out.episodes)) == list(range(len(lengths)))
    assert training.episodes and held_out.episodes and abs(len(held_out.episodes) - fraction * len(lengths)) <= 1


@given(st.lists(st.integers(2, 12), min_size=1, max_size=4), st.floats(0.01, 0.5), st.integers(0, 5))
def test_of_each_kind_some_are_held_out_and_it_counts_as_much_as_before(sizes: list[int], fraction: float, seed: int) -> None:
    kinds = [Mixed([episode(2, 100 * i + k) for k in range(n)], 1.0 + i, 2.0 * i) for i, n in enumerate(sizes)]
    parts = split(kinds, fraction, np.random.default_rng(seed))
    for kind, training, held_out in zip(kinds, *parts, strict=True):
        assert len(held_out.episodes) >= 1 and len(training.episodes) >= 1
        assert sorted(e.seed for e in (*training.episodes, *held_out.episodes)) == [e.seed for e in kind.episodes]
        for part in (training, held_out):
            assert (part.policy_weight, part.steps_to_go_weight) == (kind.policy_weight, kind.steps_to_go_weight)


# -- mixtures -----------------------------------------------------------------------------------------------------------------------


def test_demonstrations_of_one_kind_need_not_say_so() -> None:
    episodes = [episode(2), episode(3, 1)]
    assert as_mixture(episodes) == [Mixed(episodes)] == as_mixture([Mixed(episodes)])
    assert describe(as_mixture(episodes)) == describe([Mixed(episodes, 5.0, 2.0)])  # of one kind, weights make no difference


def test_the_description_of_a_mixture_changes_with_all_that_is_learned_from() -> None:
    one, two = [episode(2), episode(3, 1)], [episode(2, 5), episode(3, 6)]
    acted = [dataclasses.replace(one[0], actions=one[0].actions + 1), one[1]]
    both = [Mixed(one), Mixed(two)]
    mixtures = [[Mixed(one)], [Mixed(two)], [Mixed(acted)], both, both[::-1], [Mixed(one), Mixed(two, 0.5)]]
    told = [describe(mixture) for mixture in mixtures]
    assert len(set(told)) == 6 and told[3].startswith("4 (") and told == [describe(mixture) for mixture in mixtures]


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (1.0, -0.1), (0.0, 0.0)])
def test_weights_below_0_and_two_zeros_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(EFMError, match=rf"at least 0, one of them above; got {weights[0]} and {weights[1]}"):
        Mixed([], *weights)


def two(**facts: str) -> Sequence[Episode]:
    return [episode(2, **facts), episode(2, 1, **facts)]


def test_demonstrations_of_several_envs_or_observed_differently_are_refused() -> None:
    with pytest.raises(EFMError, match=r"of one env and observed alike; got \['EFM-InsertEE-v0', 'EFM-PointMass-v0'\]"):
        as_mixture([Mixed(two()), Mixed(two(env_id="EFM-InsertEE-v0"))])
    with pytest.raises(EFMError, match=r"observed alike; got \['EFM-PointMass-v0'\], \['x', 'x, instruction'\]"):
        as_mixture([*two(), *two(instruction="go")])


def test_of_each_kind_there_are_two_at_least() -> None:
    with pytest.raises(EFMError, match=r"at least 2 demonstrations, one of them to hold out; got 1\."):
        as_mixture([Mixed(two()), Mixed([episode(3)])])


@pytest.mark.parametrize("end_reason", ["truncated", "error"])
def test_a_demonstration_that_failed_is_refused_in_whatever_kind_it_is(end_reason: str) -> None:
    failed = dataclasses.replace(episode(5, seed=77), end_reason=end_reason)
    with pytest.raises(EFMError, match="1 did not, the first with seed 77"):
        as_mixture([Mixed(two()), Mixed([episode(1, 5), failed])])


def test_episodes_and_kinds_of_them_in_one_list_are_refused(demonstrations: Sequence[Episode]) -> None:
    """Either would have been learned from, and the other dropped."""
    with pytest.raises(EFMError, match="got both, or others"):
        as_mixture([Mixed(demonstrations[:4]), *demonstrations[4:6]])  # type: ignore[list-item]
