from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from efm_agents.model import Inputs, Policy, StepsToGoNetwork

INPUTS = Inputs(("a", "b"), (2, 1))
BINS = 7
sizes = st.tuples(st.integers(1, 60), st.integers(1, 300))


def network(bins: int = 50, max_steps_to_go: float = 140.0) -> StepsToGoNetwork:
    return StepsToGoNetwork(INPUTS, (8,), bins, max_steps_to_go)


def loud_policy(seed: int, scale: float) -> Policy:
    """A policy whose last layer is as loud as wanted."""
    torch.manual_seed(seed)
    policy = Policy(INPUTS, (8,), 2, BINS)
    with torch.no_grad():
        policy.layers[-1].weight.mul_(scale)
        policy.layers[-1].bias.normal_(0, scale)
    return policy.requires_grad_(False)


def features(seed: int, batch: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, 3)).astype(np.float32))


def test_features_are_the_named_observations_in_the_order_of_the_names() -> None:
    observations = {"b": np.array([[3.0], [6.0]]), "other": np.zeros((2, 9)), "a": np.array([[1.0, 2.0], [4.0, 5.0]])}
    joined = INPUTS.features(observations)
    assert joined.dtype == torch.float32 and joined.tolist() == [[1, 2, 3], [4, 5, 6]]


@given(sizes)
def test_each_whole_number_of_steps_falls_between_the_edges_of_its_bin(size: tuple[int, int]) -> None:
    bins, limit = size
    steps = torch.arange(0, limit + 50)
    exact = [min(int(Fraction(s) * bins / limit), bins - 1) for s in range(limit + 50)]
    assert network(bins, float(limit)).bin_of(steps).tolist() == exact


def test_bins_are_those_of_numpy_digitize() -> None:
    made = network()
    steps = np.random.default_rng(0).uniform(0, 200, 10_000).astype(np.float32)
    expected = np.digitize(steps, made.edges.numpy()[1:-1])
    at_edge = np.abs(steps[:, None] - made.edges.numpy()).min(axis=1) < 1e-4
    np.testing.assert_array_equal(made.bin_of(torch.from_numpy(steps)).numpy()[~at_edge], expected[~at_edge])
    assert set(expected) == set(range(50))


@given(sizes)
def test_bins_cover_zero_to_the_limit_evenly_and_a_bin_stands_for_its_centre(size: tuple[int, int]) -> None:
    bins, limit = size
    made = network(bins, float(limit))
    np.testing.assert_allclose(made.edges, np.linspace(0, limit, bins + 1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made.centres, (np.arange(bins) + 0.5) * limit / bins, rtol=1e-5)


def test_steps_to_go_is_the_expectation_of_its_distribution() -> None:
    made, x = network(), features(0)
    output = made.steps_to_go(x)
    logits = made(x).detach().double().numpy()
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    assert output.mean.dtype == np.float64 and output.mean.shape == (16,)
    np.testing.assert_allclose(output.probs, probs, rtol=1e-4)
    np.testing.assert_allclose(output.mean, probs @ made.centres.double().numpy(), rtol=1e-5)
    np.testing.assert_allclose(output.mean, output.probs @ (output.edges[1:] + output.edges[:-1]) / 2, rtol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 10), st.sampled_from([1e-3, 1.0, 1e3]))
def test_log_prob_is_the_sum_over_components_of_the_log_probability_of_their_tokens(seed: int, scale: float) -> None:
    policy, seen = loud_policy(seed, scale), features(seed)
    logits = policy(seen).double().numpy().reshape(16, 2, BINS)
    log_probs = logits - logsumexp(logits, axis=-1, keepdims=True)
    tokens = np.random.default_rng(seed).integers(0, BINS, (16, 2))
    expected = np.take_along_axis(log_probs, tokens[..., None], axis=-1).sum(axis=(1, 2))
    np.testing.assert_allclose(policy.log_prob(seen, policy.values[torch.from_numpy(tokens)]), expected, rtol=1e-4, atol=1e-4)


def test_the_probabilities_of_all_actions_sum_to_one() -> None:
    policy, seen = loud_policy(0, 1.0), features(0)
    joint = [policy.log_prob(seen, torch.stack([x, y]).expand(16, 2)).exp() for x in policy.values for y in policy.values]
    np.testing.assert_allclose(torch.stack(joint).sum(dim=0), 1.0, rtol=1e-4)


@settings(deadline=None)
@given(st.integers(0, 10), st.sampled_from([1e-3, 1.0, 1e3, 1e9]))
def test_entropy_is_that_of_the_tokens_of_all_components(seed: int, scale: float) -> None:
    policy, seen = loud_policy(seed, scale), features(seed)
    expected = stats.entropy(policy.log_probs(seen).double().exp().numpy(), axis=-1).sum(axis=-1)
    np.testing.assert_allclose(policy.entropy(seen), expected, rtol=1e-3, atol=1e-4)


@given(st.integers(2, 300))
def test_a_token_that_was_drawn_is_recognised_again(bins: int) -> None:
    """Else the log-probability of a practised action would be that of another one."""
    policy = Policy(INPUTS, (), 1, bins)
    assert policy.token_of(policy.values[:, None])[:, 0].tolist() == list(range(bins))


@given(st.integers(2, 50), st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_an_action_counts_as_the_nearest_token_and_beyond_the_range_as_the_last(bins: int, actions: list[float]) -> None:
    policy = Policy(INPUTS, (), 1, bins)
    values = np.linspace(-1, 1, bins)
    np.testing.assert_allclose(policy.values, values, atol=1e-6)
    tokens = policy.token_of(torch.tensor(actions)[:, None])[:, 0].numpy()
    assert ((tokens >= 0) & (tokens < bins)).all()
    distance = np.abs(np.clip(actions, -1, 1)[:, None] - values)
    np.testing.assert_allclose(distance[np.arange(len(actions)), tokens], distance.min(axis=1), atol=1e-6)


def test_a_normalised_network_does_not_see_the_units_of_its_observations() -> None:
    seen, scale, shift = features(0, 200), torch.tensor([100.0, 1e-3, 7.0]), torch.tensor([5.0, -1.0, 100.0])
    torch.manual_seed(0)
    plain = StepsToGoNetwork(INPUTS, (8,), 5, 10.0)
    torch.manual_seed(0)
    scaled = StepsToGoNetwork(INPUTS, (8,), 5, 10.0)
    plain.normalise(seen)
    scaled.normalise(seen * scale + shift)
    torch.testing.assert_close(plain(seen), scaled(seen * scale + shift), rtol=1e-3, atol=1e-3)


def test_an_observation_that_never_varies_does_no_harm() -> None:
    seen = features(0)
    seen[:, 1] = 3.0
    made = network()
    made.normalise(seen)
    assert torch.isfinite(made(seen)).all()


@pytest.mark.parametrize(
    "made", [Policy(INPUTS, (8, 4), 2, BINS), StepsToGoNetwork(INPUTS, (8, 4), 5, 10.0)], ids=["policy", "steps_to_go"]
)
def test_a_network_comes_back_from_its_config_and_weights(made: Policy | StepsToGoNetwork) -> None:
    import json

    made.normalise(features(3))
    again = type(made).from_config(json.loads(json.dumps(made.config)))
    again.load_state_dict(made.state_dict())
    assert torch.equal(made(features(0)), again(features(0)))
