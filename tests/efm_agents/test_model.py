import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp
from torch import Tensor

from efm_agents.backbones.base import ACTION
from efm_agents.heads import Tokens
from efm_agents.inputs import NUMBERS, Inputs, Reads
from efm_agents.model import HeadedModel, build_model, fresh_generator, rebuild_model
from efm_envs.errors import CheckpointError, EFMError
from tests.efm_agents.small import headed, of_numbers, random_numbers

READS = Reads(("a", "b"), (2, 1))
BINS = 7
sizes = st.tuples(st.integers(1, 60), st.integers(1, 300))


def telling(bins: int = 50, max_steps_to_go: float = 140.0) -> HeadedModel:
    return headed(READS, bins=bins, max_steps_to_go=max_steps_to_go)


class Told(HeadedModel):
    """Its logits are the observation."""

    def steps_to_go_logits(self, inputs: Inputs) -> Tensor:
        return inputs[NUMBERS]


def loud(seed: int, scale: float) -> HeadedModel:
    """A model whose action head is as loud as wanted."""
    model = headed(READS, seed, action_bins=BINS)
    with torch.no_grad(), fresh_generator():
        torch.manual_seed(seed)
        model.action_head.linear.weight.mul_(scale)
        model.action_head.linear.bias.normal_(0, scale)
    return model.requires_grad_(False)


# -- steps-to-go ------------------------------------------------------------------------------------------------------------------


@given(sizes)
def test_each_whole_number_of_steps_falls_between_the_edges_of_its_bin(size: tuple[int, int]) -> None:
    bins, limit = size
    steps = torch.arange(0, limit + 50)
    exact = [min(int(Fraction(s) * bins / limit), bins - 1) for s in range(limit + 50)]
    assert telling(bins, float(limit)).bin_of(steps).tolist() == exact


def test_bins_are_those_of_numpy_digitize() -> None:
    made = telling()
    steps = np.random.default_rng(0).uniform(0, 200, 10_000).astype(np.float32)
    expected = np.digitize(steps, made.edges.numpy()[1:-1])
    at_edge = np.abs(steps[:, None] - made.edges.numpy()).min(axis=1) < 1e-4
    np.testing.assert_array_equal(made.bin_of(torch.from_numpy(steps)).numpy()[~at_edge], expected[~at_edge])
    assert set(expected) == set(range(50))


@given(sizes)
def test_bins_cover_zero_to_the_limit_evenly_and_a_bin_stands_for_its_centre(size: tuple[int, int]) -> None:
    bins, limit = size
    config = telling(bins, float(limit)).config
    made = Told(Reads.from_config(config["reads"]), **{k: v for k, v in config.items() if k != "reads"})
    np.testing.assert_allclose(made.edges, np.linspace(0, limit, bins + 1), rtol=1e-5, atol=1e-5)
    certain = made.steps_to_go({NUMBERS: 1e4 * torch.eye(bins)})
    np.testing.assert_allclose(certain.mean, (np.arange(bins) + 0.5) * limit / bins, rtol=1e-5)


def test_steps_to_go_is_the_expectation_of_its_distribution() -> None:
    made, x = telling(), random_numbers(3)
    output = made.steps_to_go(x)
    logits = made.steps_to_go_logits(x).detach().double().numpy()
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    assert output.mean.dtype == np.float64 and output.mean.shape == (16,)
    np.testing.assert_allclose(output.probs, probs, rtol=1e-4)
    np.testing.assert_allclose(output.mean, probs @ (np.arange(50) + 0.5) * 2.8, rtol=1e-5)
    np.testing.assert_allclose(output.mean, output.probs @ (output.edges[1:] + output.edges[:-1]) / 2, rtol=1e-6)


# -- actions ----------------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 10), st.sampled_from([1e-3, 1.0, 1e3]))
def test_log_prob_is_the_sum_over_components_of_the_log_probability_of_their_tokens(seed: int, scale: float) -> None:
    model, seen = loud(seed, scale), random_numbers(3, seed)
    logits = model.action_head.linear(model.read(seen, ACTION)).double().numpy().reshape(16, 2, BINS)
    log_probs = logits - logsumexp(logits, axis=-1, keepdims=True)
    tokens = np.random.default_rng(seed).integers(0, BINS, (16, 2))
    expected = np.take_along_axis(log_probs, tokens[..., None], axis=-1).sum(axis=(1, 2))
    actions = model.action_head.tokens.values[torch.from_numpy(tokens)].unsqueeze(1)
    np.testing.assert_allclose(model.log_prob(seen, actions), expected, rtol=1e-4, atol=1e-4)


def test_the_probabilities_of_all_actions_sum_to_one() -> None:
    model, seen = loud(0, 1.0), random_numbers(3)
    values = model.action_head.tokens.values
    joint = [model.log_prob(seen, torch.stack([x, y]).expand(16, 1, 2)).exp() for x in values for y in values]
    np.testing.assert_allclose(torch.stack(joint).sum(dim=0), 1.0, rtol=1e-4)


@settings(deadline=None)
@given(st.integers(0, 10), st.sampled_from([1e-3, 1.0, 1e3, 1e9]))
def test_entropy_is_that_of_the_tokens_of_all_components(seed: int, scale: float) -> None:
    distribution = loud(seed, scale).actions(random_numbers(3, seed))
    expected = stats.entropy(distribution.log_probs.double().exp().numpy(), axis=-1).sum(axis=(-1, -2))
    np.testing.assert_allclose(distribution.entropy(), expected, rtol=1e-3, atol=1e-4)


@given(st.integers(2, 300))
def test_a_token_that_was_drawn_is_recognised_again(bins: int) -> None:
    """Else the log-probability of a practised action would be that of another one."""
    tokens = Tokens(bins)
    assert tokens.of(tokens.values[:, None])[:, 0].tolist() == list(range(bins))


@given(st.integers(2, 50), st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_an_action_counts_as_the_nearest_token_and_beyond_the_range_as_the_last(bins: int, actions: list[float]) -> None:
    made = Tokens(bins)
    values = np.linspace(-1, 1, bins)
    np.testing.assert_allclose(made.values, values, atol=1e-6)
    tokens = made.of(torch.tensor(actions)[:, None])[:, 0].numpy()
    assert ((tokens >= 0) & (tokens < bins)).all()
    distance = np.abs(np.clip(actions, -1, 1)[:, None] - values)
    np.testing.assert_allclose(distance[np.arange(len(actions)), tokens], distance.min(axis=1), atol=1e-6)


# -- what is read -----------------------------------------------------------------------------------------------------------------


def test_a_normalised_model_does_not_see_the_units_of_its_observations() -> None:
    seen, scale, shift = random_numbers(3, 0, 200), torch.tensor([100.0, 1e-3, 7.0]), torch.tensor([5.0, -1.0, 100.0])
    plain, scaled = (headed(READS, backbone_options={"normalise_steps_to_go": True}) for _ in range(2))
    in_other_units = {NUMBERS: seen[NUMBERS] * scale + shift}
    plain.prepare(seen)
    scaled.prepare(in_other_units)
    torch.testing.assert_close(plain.steps_to_go_logits(seen), scaled.steps_to_go_logits(in_other_units), rtol=1e-3, atol=1e-3)
    logits = [model.actions(x).log_probs for model, x in ((plain, seen), (scaled, in_other_units))]
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)


def test_the_notebooks_steps_to_go_model_reads_numbers_as_they_are() -> None:
    model, seen = headed(READS), random_numbers(3, 0, 200)
    before = model.steps_to_go_logits(seen), model.actions(seen).log_probs
    model.prepare({NUMBERS: seen[NUMBERS] * 9 + 5})
    after = model.steps_to_go_logits(seen), model.actions(seen).log_probs
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("backbone", ["mlp", "tiny"])
def test_an_observation_that_never_varies_does_no_harm(backbone: str) -> None:
    seen = random_numbers(3)
    seen[NUMBERS][:, 1] = 3.0
    made = headed(READS, backbone=backbone)
    made.prepare(seen)
    assert torch.isfinite(made.steps_to_go_logits(seen)).all() and torch.isfinite(made.log_prob(seen, torch.zeros(16, 1, 2))).all()


# -- config -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["bins", "autoregressive", "gaussian"])
def test_a_model_comes_back_from_its_config_and_weights(head: str) -> None:
    made = headed(READS, action_head=head, chunk=2)
    made.prepare(random_numbers(3, 3))
    again = rebuild_model(json.loads(json.dumps(made.config)), made.state_dict())
    seen, actions = random_numbers(3), torch.linspace(-1, 1, 64).view(16, 2, 2)
    assert json.dumps(again.config) == json.dumps(made.config) and again.reads == made.reads
    assert torch.equal(made.log_prob(seen, actions), again.log_prob(seen, actions))
    assert torch.equal(made.steps_to_go_logits(seen), again.steps_to_go_logits(seen))


def test_rebuilding_a_model_leaves_the_global_generator_alone() -> None:
    made, before = headed(READS), torch.get_rng_state()
    rebuild_model(made.config, made.state_dict())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_config_that_describes_no_model_is_refused() -> None:
    config = headed(READS).config
    with pytest.raises(CheckpointError, match=r"describes no model .* made by another version"):
        build_model({name: value for name, value in config.items() if name != "backbone"})
    with pytest.raises(CheckpointError, match=r"describes no model .* made by another version"):
        build_model({**config, "wings": 2})
    with pytest.raises(CheckpointError, match=r"describes no model .* made by another version"):
        build_model({"inputs": {"names": ["a"], "sizes": [2]}, "hidden": [8], "bins": 5, "max_steps_to_go": 9.0})


def test_an_instruction_that_never_changes_is_not_told() -> None:
    with pytest.raises(EFMError, match=r"there is no instruction to tell.* Set instruction_weight to 0"):
        headed(READS, backbone="tiny", tells_instruction=True)
    with pytest.raises(EFMError, match="does not tell instructions: leave instruction_weight at 0"):
        headed(READS).instruction_log_prob(of_numbers([0, 0, 0]), of_numbers([0, 0, 0]))
