"""Each head is held against the table of all its actions: 9 of them where k = 1, 729 where k = 3."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from efm_agents.heads import ACTION_HEADS, ActionDistribution
from efm_agents.model import fresh_generator

WIDTH, A, LEVELS = 16, 2, 3
DRAWS = 40_000
HEADS, SPEAKING, CHUNKS = ("bins", "autoregressive", "gaussian"), ("bins", "autoregressive"), (1, 3)

heads = pytest.mark.parametrize("head", HEADS)
speaking = pytest.mark.parametrize("head", SPEAKING)
chunks = pytest.mark.parametrize("chunk", CHUNKS)


def made(head: str, chunk: int, levels: int = LEVELS) -> Any:
    """A head with weights that are loud enough that its probabilities differ."""
    with fresh_generator():
        torch.manual_seed(3)
        module = ACTION_HEADS[head](WIDTH, chunk, A, levels).requires_grad_(False)
        for weight in module.parameters():
            weight.mul_(1.5)
    return module


def read(rows: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(7).normal(size=(rows, WIDTH)).astype(np.float32))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_actions(chunk: int) -> Tensor:
    """(K^(k · A), k, A), the last component changing fastest."""
    values = torch.linspace(-1, 1, LEVELS)
    return torch.stack([torch.stack(row) for row in itertools.product(values, repeat=chunk * A)]).view(-1, chunk, A)


def table(head: str, chunk: int) -> np.ndarray:
    """The probability of every action for one observation, an axis for each component."""
    actions = all_actions(chunk)
    log_prob = made(head, chunk)(read(1).expand(len(actions), -1)).log_prob(actions)
    return log_prob.double().exp().numpy().reshape((LEVELS,) * (chunk * A))


def likeliest_one_after_another(joint: np.ndarray) -> tuple[list[int], float]:
    """The tokens of which each is the likeliest after those before it, and the entropy of the choices on the way."""
    tokens: list[int] = []
    entropy = 0.0
    while joint.ndim:
        chances = joint.reshape(LEVELS, -1).sum(axis=1)
        chances /= chances.sum()
        entropy += float(stats.entropy(chances))
        tokens.append(int(chances.argmax()))
        joint = joint[tokens[-1]]
    return tokens, entropy


def spread(distribution: ActionDistribution) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each component of a Gaussian, (k, A), from nothing but its log-probabilities."""
    top = distribution.sample(None).double()
    deviation = np.zeros(top.shape[1:])
    for place in np.ndindex(*deviation.shape):
        aside = top.clone()
        aside[(0, *place)] += 0.5
        deviation[place] = math.sqrt(0.125 / (distribution.log_prob(top) - distribution.log_prob(aside)).item())
    return top[0].numpy(), deviation


# -- sampling and scoring say the same -----------------------------------------------------------------------------------------------


@speaking
@chunks
def test_the_probabilities_of_all_actions_sum_to_one(head: str, chunk: int) -> None:
    assert table(head, chunk).sum() == pytest.approx(1.0, rel=1e-4)


@speaking
@chunks
def test_actions_are_drawn_as_often_as_their_log_probability_says(head: str, chunk: int) -> None:
    expected = DRAWS * table(head, chunk).ravel()
    drawn = made(head, chunk)(read(1).expand(DRAWS, -1)).sample(generator())
    assert drawn.shape == (DRAWS, chunk, A) and drawn.dtype == torch.float32
    places = ((drawn.flatten(1) + 1) / 2 * (LEVELS - 1)).round().long().numpy()
    counts = np.bincount(np.ravel_multi_index(places.T, (LEVELS,) * (chunk * A)), minlength=len(expected)).astype(float)
    rare = expected < 5
    both = [np.append(x[~rare], x[rare].sum()) for x in (counts, expected)]
    counts, expected = both if rare.any() else (counts, expected)
    assert (~rare).sum() > 8, "this head is too sure of itself to be tested"
    assert stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-3


@chunks
def test_a_gaussian_draws_each_component_as_its_log_probability_says(chunk: int) -> None:
    head = made("gaussian", chunk)
    mean, deviation = spread(head(read(1)))
    drawn = head(read(1).expand(DRAWS, -1)).sample(generator()).double().numpy()
    for place in np.ndindex(chunk, A):
        assert stats.kstest(drawn[(slice(None), *place)], stats.norm(mean[place], deviation[place]).cdf).pvalue > 1e-3
    between = np.corrcoef(drawn.reshape(DRAWS, -1).T)[np.triu_indices(chunk * A, 1)]
    assert np.abs(between).max() < 4 / math.sqrt(DRAWS), "components were not drawn apart"


@chunks
def test_a_gaussians_density_integrates_to_one_and_its_mean_and_deviation_keep_their_bounds(chunk: int) -> None:
    head = made("gaussian", chunk)
    for row in 100 * read(8):
        mean, deviation = spread(distribution := head(row[None]))
        at_the_top = distribution.log_prob(distribution.sample(None)).item()
        assert at_the_top == pytest.approx(-np.log(deviation * math.sqrt(2 * math.pi)).sum(), rel=1e-3)
        assert (np.abs(mean) <= 1).all() and (deviation > 0.0499).all() and (deviation < 1.001).all()


# -- the most likely action ---------------------------------------------------------------------------------------------------------


@speaking
@chunks
def test_without_a_generator_each_token_is_the_likeliest_after_those_before_it(head: str, chunk: int) -> None:
    joint = table(head, chunk)
    greedy = made(head, chunk)(read(1)).sample(None)
    tokens = ((greedy.flatten() + 1) / 2 * (LEVELS - 1)).round().long().tolist()
    assert tokens == likeliest_one_after_another(joint)[0]
    if head == "bins":
        assert joint[tuple(tokens)] == joint.max()


@chunks
def test_without_a_generator_a_gaussian_takes_the_top_of_its_density(chunk: int) -> None:
    distribution = made("gaussian", chunk)(read(64))
    top = distribution.log_prob(distribution.sample(None))
    assert all((distribution.log_prob(distribution.sample(generator(seed))) < top).all() for seed in range(20))


# -- entropy ------------------------------------------------------------------------------------------------------------------------


@chunks
def test_the_entropy_of_bins_is_the_sum_over_all_actions(chunk: int) -> None:
    entropy = made("bins", chunk)(read(1)).entropy()
    assert entropy.shape == (1,) and entropy.item() == pytest.approx(stats.entropy(table("bins", chunk).ravel()), rel=1e-4)


@chunks
def test_the_entropy_of_tokens_one_after_another_is_exact_along_the_likeliest_ones(chunk: int) -> None:
    _, expected = likeliest_one_after_another(table("autoregressive", chunk))
    assert made("autoregressive", chunk)(read(1)).entropy().item() == pytest.approx(expected, rel=1e-4)


@chunks
def test_the_entropy_of_a_gaussian_is_that_of_its_components(chunk: int) -> None:
    distribution = made("gaussian", chunk)(read(1))
    assert distribution.entropy().item() == pytest.approx(stats.norm(*spread(distribution)).entropy().sum(), rel=1e-3)


# -- batches and generators -----------------------------------------------------------------------------------------------------------


@heads
@chunks
def test_a_batch_of_one_is_a_row_of_a_batch_of_64(head: str, chunk: int) -> None:
    module, rows = made(head, chunk), read(64)
    together = module(rows)
    actions = together.sample(generator(5))
    for i in (0, 17, 63):
        alone = module(rows[i : i + 1])
        torch.testing.assert_close(alone.log_prob(actions[i : i + 1])[0], together.log_prob(actions)[i], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.entropy()[0], together.entropy()[i], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.sample(None)[0], together.sample(None)[i], rtol=1e-5, atol=1e-5)


@heads
@chunks
def test_what_is_drawn_depends_on_the_generator_alone_and_moves_no_other(head: str, chunk: int) -> None:
    module, rows = made(head, chunk), read(64)
    torch.manual_seed(1)
    first = module(rows).sample(generator(5))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    shared = generator(5)
    again, next_one = module(rows).sample(shared), module(rows).sample(shared)
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(first, again)
    assert not torch.equal(again, next_one) and not torch.equal(first, module(rows).sample(generator(6)))


@heads
@chunks
def test_an_action_with_a_return_above_0_becomes_likelier(head: str, chunk: int) -> None:
    """The gradient reaches every weight of the head."""
    module, rows = made(head, chunk).requires_grad_(True), read(64)
    actions = module(rows).sample(generator()).detach()
    before = module(rows).log_prob(actions)
    before.mean().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in module.parameters())
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(1e-3 * weight.grad)
    assert module(rows).log_prob(actions).mean() > before.mean()


@speaking
def test_an_action_between_two_tokens_is_scored_as_the_nearest_and_beyond_the_range_as_the_last(head: str) -> None:
    distribution = made(head, 1)(read(1))
    near, exact = torch.tensor([[[0.45, -1.7]]]), torch.tensor([[[0.0, -1.0]]])
    assert torch.equal(distribution.log_prob(near), distribution.log_prob(exact))
