import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from efm_agents import demonstrations as program
from efm_agents import sft
from efm_agents.backbones.base import ACTION, STEPS_TO_GO
from efm_agents.checkpoint import find_checkpoint, load_checkpoint
from efm_agents.config import ModelConfig, SFTConfig
from efm_agents.inputs import NUMBERS, PADDING, UNKNOWN, WORDS, Inputs, Reads
from efm_agents.model import HeadedModel, build_model, rebuild_model
from efm_agents.policy import load_policy
from efm_agents.run import read_log
from efm_envs.errors import EFMError
from tests.efm_agents.small import POINT_MASS, TINY_MODEL, headed, random_numbers

WORDS_KNOWN = ("blue", "moon", "push", "red", "star")
OBJECTS = ("red moon", "blue star", "star")
SPEAKING = Reads(("agent_pos", "environment_state"), (2, 6), (), (0, 0), WORDS_KNOWN, 4, OBJECTS)
SEEING = Reads(("agent_pos",), (2,), ("pixels/top",), (32, 48))
HEARING = Reads(("agent_pos",), (2,), (), (0, 0), WORDS_KNOWN, 4)  # an instruction, and no list of objects
PUSH, RED, MOON, BLUE = (2 + WORDS_KNOWN.index(word) for word in ("push", "red", "moon", "blue"))


def speaking(**options: Any) -> HeadedModel:
    return headed(SPEAKING, backbone="tiny", backbone_options=options).requires_grad_(False)


def said(*sentences: list[int], seed: int = 0) -> Inputs:
    words = torch.tensor([sentence + [PADDING] * (4 - len(sentence)) for sentence in sentences])
    return {**random_numbers(8, seed, len(sentences)), WORDS: words}


def pictures(batch: int, seed: int = 0) -> Inputs:
    pixels = np.random.default_rng(seed).integers(0, 256, (batch, 32, 48, 3), dtype=np.uint8)
    return {**random_numbers(2, seed, batch), "pixels/top": torch.from_numpy(pixels)}


def answers(model: HeadedModel, inputs: Inputs) -> Tensor:
    """(B, 2 W): what is read for both questions."""
    return torch.cat([model.read(inputs, asked) for asked in (ACTION, STEPS_TO_GO)], dim=-1)


def longer(model: HeadedModel, by: int) -> HeadedModel:
    """The same model, with room for more words."""
    reads = dataclasses.replace(model.reads, longest=model.reads.longest + by)
    made = headed(reads, seed=9, backbone="tiny", backbone_options=model.config["backbone_options"]).requires_grad_(False)
    weights = model.state_dict()
    for name, place in made.state_dict().items():
        if name.endswith("sentence.places"):
            weights[name] = torch.cat([weights[name], place[-by:]])
    made.load_state_dict(weights)
    return made


# -- tiny: words --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_a_padding_word_changes_nothing(shared: bool) -> None:
    model = speaking(shared=shared)
    inputs = said([PUSH, RED, MOON], [BLUE], [PUSH, RED, MOON, BLUE])
    padded = {**inputs, WORDS: torch.nn.functional.pad(inputs[WORDS], (0, 3), value=PADDING)}
    torch.testing.assert_close(answers(model, inputs), answers(longer(model, 3), padded), rtol=1e-5, atol=1e-5)


def test_where_a_padding_word_stands_changes_nothing() -> None:
    model, inputs = speaking(), said([PUSH, RED])
    before = answers(model, inputs)
    with torch.no_grad():
        model.backbone.readers[ACTION].sentence.places[2:] += 100.0
    torch.testing.assert_close(answers(model, inputs), before)


@pytest.mark.parametrize("other", [[RED, PUSH, MOON], [PUSH, BLUE, MOON], [PUSH, RED], [PUSH, RED, UNKNOWN], [PUSH, RED, MOON, MOON]])
def test_other_words_and_another_order_of_them_are_heard(other: list[int]) -> None:
    model = speaking()
    assert not torch.allclose(answers(model, said([PUSH, RED, MOON])), answers(model, said(other)), atol=1e-3)


@pytest.mark.parametrize("words", [[], [UNKNOWN], [UNKNOWN] * 4])
def test_an_instruction_without_a_known_word_does_no_harm(words: list[int]) -> None:
    """Of a sentence that is empty, or in another script, no word is left."""
    assert torch.isfinite(answers(speaking(), said(words))).all()


def test_an_instruction_is_heard_where_no_objects_are_listed() -> None:
    model = headed(HEARING, backbone="tiny").requires_grad_(False)
    inputs = {**random_numbers(2, 0, 2), WORDS: torch.tensor([[PUSH, RED, PADDING, PADDING], [PUSH, BLUE, PADDING, PADDING]])}
    inputs[NUMBERS][1] = inputs[NUMBERS][0]
    first, second = answers(model, inputs)
    assert not torch.allclose(first, second, atol=1e-3)


def test_images_and_no_numbers_of_objects_are_read_where_the_task_has_objects() -> None:
    """As in obs_mode="pixels", where `environment_state` isn't observed."""
    model = headed(dataclasses.replace(SEEING, objects=("goal",)), backbone="tiny").requires_grad_(False)
    assert torch.isfinite(answers(model, pictures(2))).all()


# -- tiny: objects ------------------------------------------------------------------------------------------------------------------


def test_objects_are_a_set() -> None:
    """Listed in another order, with what belongs to each, they mean the same."""
    model, order = speaking(), [2, 0, 1]
    reads = dataclasses.replace(SPEAKING, objects=tuple(OBJECTS[i] for i in order))
    other = headed(reads, seed=9, backbone="tiny").requires_grad_(False)
    weights = model.state_dict()
    for name in weights:
        if "things.1." in name and name.rpartition(".")[2] in ("keys", "values"):
            weights[name] = weights[name][order]
    other.load_state_dict(weights)
    inputs = said([PUSH, RED, MOON], [BLUE])
    agent, things = inputs[NUMBERS].split([2, 6], dim=1)
    in_other_order = {**inputs, NUMBERS: torch.cat([agent, things.view(2, 3, 2)[:, order].flatten(1)], dim=1)}
    assert not torch.equal(in_other_order[NUMBERS], inputs[NUMBERS])
    torch.testing.assert_close(answers(model, inputs), answers(other, in_other_order), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("words", "named"), [([RED, MOON], 0), ([BLUE, 2 + WORDS_KNOWN.index("star")], 1)])
def test_a_word_names_the_object_that_is_called_so_before_anything_was_learned(words: list[int], named: int) -> None:
    for seed in range(5):
        model = headed(SPEAKING, seed, backbone="tiny", backbone_options={"width": 64, "heads": 4}).requires_grad_(False)
        reader = model.backbone.readers[ACTION]
        heard, names = (
            torch.nn.functional.normalize(x, dim=-1)
            for x in (reader.words(torch.tensor([words])), reader.words(reader.sentence.names).sum(dim=1))
        )
        weights = reader.sentence.named(heard, names)[0, -1]
        assert weights.argmax().item() == named and weights[named] > 0.8, weights


@pytest.mark.parametrize("size", [5, 7])
def test_numbers_that_are_not_equally_many_for_each_object_are_refused(size: int) -> None:
    with pytest.raises(EFMError, match=rf"environment_state has {size} numbers, .* equally many for each of red moon, blue star, star"):
        headed(dataclasses.replace(SPEAKING, sizes=(2, size)), backbone="tiny")


def test_a_width_that_is_no_multiple_of_the_heads_is_refused() -> None:
    with pytest.raises(EFMError, match="a multiple of its heads; got width 16 and 3 heads"):
        headed(SPEAKING, backbone="tiny", backbone_options={"heads": 3})


# -- all: batches, questions, configs -------------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[Reads, dict[str, Any]]] = {
    "mlp": (Reads(("agent_pos", "environment_state"), (2, 6)), {"backbone": "mlp"}),
    "tiny": (SPEAKING, {"backbone": "tiny"}),
    "tiny, apart": (SPEAKING, {"backbone": "tiny", "backbone_options": {"shared": False}}),
    "tiny, images": (SEEING, {"backbone": "tiny", "action_head": "autoregressive", "chunk": 3}),
    "tiny, instruction told": (SPEAKING, {"backbone": "tiny", "tells_instruction": True}),
}


def batch_for(reads: Reads, batch: int) -> Inputs:
    if reads.cameras:
        return pictures(batch)
    words = torch.from_numpy(np.random.default_rng(1).integers(PADDING + 1, 2 + len(WORDS_KNOWN), (batch, 4)))
    return {**random_numbers(8, 0, batch), **({WORDS: words} if reads.vocabulary else {})}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> tuple[HeadedModel, Inputs]:
    reads, settings = KINDS[request.param]
    model, inputs = headed(reads, **settings), batch_for(reads, 64)
    model.prepare(inputs)
    return model, inputs


def test_a_batch_of_one_is_a_row_of_a_batch_of_64(kind: tuple[HeadedModel, Inputs]) -> None:
    model, inputs = kind
    together = answers(model, inputs)
    for i in (0, 31, 63):
        alone = answers(model, {name: value[i : i + 1] for name, value in inputs.items()})
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)


def test_a_model_comes_back_from_its_config_and_weights(kind: tuple[HeadedModel, Inputs]) -> None:
    model, inputs = kind
    config = json.loads(json.dumps(model.config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        fresh = build_model(config)
    again = rebuild_model(config, model.state_dict())
    actions = torch.linspace(-1, 1, 64 * model.chunk * 2).view(64, model.chunk, 2)
    for method in (lambda m: m.log_prob(inputs, actions), lambda m: m.steps_to_go_logits(inputs), lambda m: m.features(inputs)):
        assert torch.equal(method(model), method(again)) and not torch.equal(method(model), method(fresh))


def moved_by(model: HeadedModel, loss: Tensor) -> set[str]:
    """The names of the weights that a loss would change."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.abs().sum() > 0}


def test_telling_parameters_are_those_that_steps_to_go_prediction_alone_moves(kind: tuple[HeadedModel, Inputs]) -> None:
    model, inputs = kind
    telling = moved_by(model, model.steps_to_go_logits(inputs)[:, 0].sum())
    acting = moved_by(model, model.log_prob(inputs, torch.full((64, model.chunk, 2), 0.9)).sum())
    names = {id(weight): name for name, weight in model.named_parameters()}
    own = {names[id(weight)] for weight in model.telling_parameters()}
    assert own >= telling - acting and not own & acting and telling and acting


@pytest.mark.parametrize(("kind_", "apart"), [("mlp", True), ("tiny", False), ("tiny, apart", True)])
def test_where_both_are_apart_the_steps_to_go_loss_does_not_touch_what_acts(kind_: str, apart: bool) -> None:
    reads, settings = KINDS[kind_]
    model, inputs = headed(reads, **settings), batch_for(reads, 64)
    telling = moved_by(model, torch.nn.functional.cross_entropy(model.steps_to_go_logits(inputs), torch.arange(64) % 5))
    acting = moved_by(model, -model.log_prob(inputs, torch.full((64, 1, 2), 0.9)).mean())
    assert not telling & acting if apart else telling & acting


# -- pixels -------------------------------------------------------------------------------------------------------------------------


def test_every_part_of_an_image_is_looked_at() -> None:
    model, inputs = headed(SEEING, backbone="tiny").requires_grad_(False), pictures(1)
    before = answers(model, inputs)
    for row, column in ((0, 0), (0, 40), (24, 0), (24, 40), (12, 20)):
        other = {**inputs, "pixels/top": inputs["pixels/top"].clone()}
        other["pixels/top"][:, row : row + 8, column : column + 8] = 0
        assert not torch.equal(answers(model, other), before), f"nothing was seen at {row}, {column}"


@pytest.mark.parametrize("patch", [8, 16, 40])
def test_any_size_of_patches_will_do(patch: int) -> None:
    model = headed(SEEING, backbone="tiny", backbone_options={"patch": patch})
    assert torch.isfinite(answers(model, pictures(2))).all()


@pytest.mark.parametrize("mode", ["pixels_state", "pixels"])
def test_a_model_that_sees_learns_and_acts(mode: str, tmp_path: Path) -> None:
    options = {"obs_mode": mode, "cameras": ["top"], "image_size": (32, 32)}
    shown = program.collect(POINT_MASS, 4, style="clean", min_length=1, options=options)
    assert shown[0].observations["pixels/top"].shape[1:] == (32, 32, 3)
    config = SFTConfig(steps=2, validate_every=1, batch=8, model=TINY_MODEL)
    run = sft.train(shown, tmp_path / "run", config, task="PointMass", options=options)
    rows = read_log(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2] and all(np.isfinite(list(row.values())).all() for row in rows)
    weights, facts = load_checkpoint(find_checkpoint(run, "policy"), "policy")
    assert facts["model"]["reads"]["cameras"] == ["pixels/top"] and facts["model"]["reads"]["image_size"] == [32, 32]
    actions = load_policy(run, task="PointMass", greedy=True).act({name: value[:5] for name, value in shown[0].observations.items()})
    assert actions.shape == (5, 2) and np.isfinite(actions).all()


def test_flat_observations_are_read(tmp_path: Path) -> None:
    shown = program.collect(POINT_MASS, 4, style="clean", min_length=1, options={"obs_mode": "flat"})
    config = SFTConfig(steps=1, validate_every=1, batch=8, model=TINY_MODEL)
    run = sft.train(shown, tmp_path / "run", config, task="PointMass", options={"obs_mode": "flat"})
    assert load_policy(run, task="PointMass").act({"observation": shown[0].observations["observation"]}).shape == (len(shown[0]) + 1, 2)


def test_an_mlp_refuses_images() -> None:
    with pytest.raises(EFMError, match=r"'mlp' reads numbers; the demonstrations hold agent_pos, pixels/top\. Take 'tiny'"):
        headed(SEEING)


def test_an_mlp_does_not_hear_the_instruction() -> None:
    model = headed(SPEAKING)
    assert torch.equal(answers(model, said([PUSH])), answers(model, said([MOON])))


def test_the_options_of_a_backbone_are_its_own() -> None:
    assert ModelConfig(backbone="mlp", hidden=(4,)).backbone_options() == {"hidden": (4,), "normalise_steps_to_go": False}
    tiny = ModelConfig(width=32).backbone_options()
    assert tiny == {"width": 32, "blocks": 3, "heads": 4, "patch": 16, "shared": True}
