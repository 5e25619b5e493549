"""The model `hf`, on tiny random models of the real classes, saved and loaded as real ones are."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from efm_agents.checkpoint import load_checkpoint, save_checkpoint
from efm_agents.devices import ADVICE, explain_out_of_memory, pick_device
from efm_agents.inputs import Inputs, Reads, join, size_of, take
from efm_agents.tokens import PRESETS, Spelling
from efm_envs.errors import CheckpointError, EFMError
from efm_envs.observations import encode_instruction

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

from efm_agents.backbones.hf import HFModel, build_hf  # noqa: E402
from efm_agents.backbones.hf_loading import vision_tower  # noqa: E402
from efm_agents.backbones.hf_prompts import QUESTIONS  # noqa: E402

SENTENCES = ("push the red moon", "push the blue cube to the red moon now", "push", "")
WORDS = sorted({word for text in (*QUESTIONS.values(), *SENTENCES) for word in re.findall(r"\w+|\?", text)})
READS = Reads(("agent_pos",), (3,), ("pixels/top", "pixels/wrist"), (12, 20), ("push",), 1)
BLUNT = Reads((), (), READS.cameras, READS.image_size, READS.vocabulary, 1)  # its prompts end with words, not numbers
SIZES = {"chunk": 2, "action_size": 2, "action_bins": 5, "bins": 6, "max_steps_to_go": 30.0}
TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
FAMILIES = ("paligemma", "smolvlm")
ALL_WEIGHTS = {"lora_rank": 0}
KINDS = (ALL_WEIGHTS, {"lora_rank": 4}, {"lora_rank": 4, "action_tokens": "least-used"}, {"lora_rank": 0, "action_tokens": "least-used"})


def tokenizer(*special: str) -> Any:
    """Words as tokens, the commonest first, and then 600 that nobody says."""
    known = ["<pad>", "<bos>", "<eos>", "<unk>", *special, *WORDS, *(f"rare{i}" for i in range(600))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "bos", "eos", "unk")}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=list(special), **names)


def paligemma() -> tuple[Any, Any]:
    pixels = transformers.SiglipImageProcessorPil(size={"height": 16, "width": 16})
    pixels.image_seq_length = 4
    processor = transformers.PaliGemmaProcessor(pixels, tokenizer("<image>"))
    tokens = {"vocab_size": len(processor.tokenizer), "pad_token_id": 0}
    config = transformers.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **TOWER, "patch_size": 8, "vision_use_head": False},
        text_config={"model_type": "gemma", **TEXT, "head_dim": 8, **tokens},
        projection_dim=16,
        hidden_size=16,
        vocab_size=len(processor.tokenizer),
        image_token_index=processor.image_token_id,
    )
    return config, processor


def smolvlm() -> tuple[Any, Any]:
    pixels = transformers.SmolVLMImageProcessorPil(size={"longest_edge": 16}, max_image_size={"longest_edge": 16})
    words = tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    template = "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}"
    template += "{% endfor %}<end_of_utterance>{% endfor %}"
    processor = transformers.Idefics3Processor(pixels, words, image_seq_len=4, chat_template=template)
    config = transformers.SmolVLMConfig(
        vision_config={**TOWER, "patch_size": 4},
        text_config={"model_type": "llama", **TEXT, "vocab_size": len(words), "pad_token_id": 0},
        scale_factor=2,
        image_token_id=processor.image_token_id,
    )
    return config, processor


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, quiet: None) -> str:
    """A model as it comes from the hub, with weights that are loud enough for everything to matter."""
    path = tmp_path_factory.mktemp(request.param)
    config, processor = {"paligemma": paligemma, "smolvlm": smolvlm}[request.param]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForImageTextToText.from_config(config)
        for parameter in model.parameters():
            parameter.data.normal_(0.0, 0.3)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    if request.param == "smolvlm":  # as the hub's says
        written = path / "processor_config.json"
        written.write_text(written.read_text().replace("Idefics3Processor", "SmolVLMProcessor"))
    return str(path)


def make(folder: str, **options: Any) -> HFModel:
    """A model whose adapters, if it has any, say something."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = HFModel(**{"reads": READS, "path": folder, **SIZES, **ALL_WEIGHTS, **options})
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0.0, 0.1)
    return model


def observations(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    said = np.stack([encode_instruction(SENTENCES[i % len(SENTENCES)]) for i in range(rows)])
    pixels = {camera: rng.integers(0, 256, (rows, 12, 20, 3), dtype=np.uint8) for camera in READS.cameras}
    return {**pixels, "agent_pos": rng.normal(size=(rows, 3)), "instruction": said}


def some_actions(rows: int, model: HFModel) -> torch.Tensor:
    return torch.rand(rows, model.chunk, model.action_size, generator=torch.Generator().manual_seed(3)) * 2 - 1


def answers(model: HFModel, inputs: Inputs) -> torch.Tensor:
    """Both of the model's answers, (B, 1 + K)."""
    with torch.no_grad():
        log_prob = model.log_prob(inputs, some_actions(100, model)[: size_of(inputs)])
        return torch.cat([log_prob.unsqueeze(1), model.steps_to_go_logits(inputs)], dim=1)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [ALL_WEIGHTS, {"reads": BLUNT}, {"lora_rank": 4, "sign_magnitude": True}])
def test_a_batch_of_one_is_a_row_of_a_batch_whatever_the_others_are_told(folder: str, options: dict[str, Any]) -> None:
    model = make(folder, **options)
    inputs, actions = model.inputs(observations(8)), some_actions(8, model)
    with torch.no_grad():
        log_prob, logits = model.log_prob(inputs, actions), model.steps_to_go_logits(inputs)
        for i in range(8):
            row = take(inputs, slice(i, i + 1))
            close(model.log_prob(row, actions[i : i + 1])[0], log_prob[i])
            close(model.steps_to_go_logits(row)[0], logits[i])
            assert torch.equal(model.actions(row).sample(None)[0], model.actions(inputs).sample(None)[i])


@pytest.mark.parametrize("name", [*READS.observations, "question"])
def test_everything_that_is_read_matters(folder: str, name: str) -> None:
    model = make(folder)
    seen, other = observations(4), observations(4, seed=1)
    other["instruction"] = np.roll(seen["instruction"], 1, axis=0)
    before = model.inputs(seen)
    if name == "question":
        asked = [model.network.prompts.batch(question, ["push"])["input_ids"] for question in ("action", "steps_to_go")]
        assert asked[0].tolist() != asked[1].tolist()
    else:
        after = model.inputs({**seen, name: other[name]})
        assert ((answers(model, before) - answers(model, after)).abs() > 1e-3).any(dim=1).all()


@pytest.mark.parametrize("options", [{"action_bins": 3}, {"action_bins": 3, "sign_magnitude": True, "lora_rank": 4}])
def test_actions_are_drawn_as_often_as_their_probability_says(folder: str, options: dict[str, Any]) -> None:
    model, draws = make(folder, chunk=1, **options), 1500
    one = model.inputs(observations(1))
    possible = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=2))).view(9, 1, 2)
    with torch.no_grad():
        probability = model.log_prob(join([one] * 9), possible).exp().double()
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-4) and probability.std() > 0.02  # else this shows little
    drawn = model.act(join([one] * draws), torch.Generator().manual_seed(0))
    counts = [(drawn == action).flatten(1).all(dim=1).sum().item() for action in possible]
    expected = draws * probability / probability.sum()
    assert sum(counts) == draws
    assert stats.chisquare(counts, expected.numpy()).pvalue > 1e-3
    later = model.act(join([one] * draws), torch.Generator().manual_seed(0))
    assert torch.equal(drawn, later)


@pytest.mark.parametrize("options", [ALL_WEIGHTS, {"lora_rank": 4}])
def test_what_is_said_step_by_step_is_what_one_pass_scores(folder: str, options: dict[str, Any]) -> None:
    """Keys and values that are kept while speaking have the positions and the mask of one pass over all of it."""
    model = make(folder, **options)
    inputs = model.inputs(observations(5))
    said = model.speak(inputs, None)
    with torch.no_grad():
        log_probs = model.spoken_log_probs(inputs, said)
    assert torch.equal(log_probs.argmax(dim=-1), said)
    close(model.actions(inputs).entropy().detach(), torch.distributions.Categorical(logits=log_probs).entropy().sum(dim=1))


@pytest.mark.parametrize("options", KINDS)
def test_a_step_of_supervised_learning_lowers_both_losses_and_trains_all_that_it_should(folder: str, options: dict[str, Any]) -> None:
    model = make(folder, **options)
    inputs, actions, steps = model.inputs(observations(8)), some_actions(8, model), torch.arange(8) * 3

    def losses() -> torch.Tensor:
        told = torch.nn.functional.cross_entropy(model.steps_to_go_logits(inputs), model.bin_of(steps))
        return torch.stack([-model.log_prob(inputs, actions).mean(), told])

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3)
    before = losses()
    before.sum().backward()  # type: ignore[no-untyped-call]
    if options["lora_rank"]:
        assert all(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if "lora" in name or ".tokens." in name)
        assert not any(p.requires_grad for name, p in model.named_parameters() if "lora" not in name and "tokens." not in name)
    optimizer.step()
    assert (losses() < before).all()


@pytest.mark.parametrize("options", [ALL_WEIGHTS, {"lora_rank": 4}])
def test_a_step_of_practice_makes_good_actions_likelier_and_leaves_the_vision_tower(folder: str, options: dict[str, Any]) -> None:
    model = make(folder, **options)
    inputs = model.inputs(observations(6))
    actions = model.act(inputs, torch.Generator().manual_seed(0))
    returns = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    tower, projector = vision_tower(model.network.model), model.network.model.model
    assert tower is not None
    projector = getattr(projector, "multi_modal_projector", None) or projector.connector
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    projected = [value.clone() for value in projector.state_dict().values()]
    log_prob = model.log_prob(inputs, actions)
    (-(returns * log_prob).mean()).backward()  # type: ignore[no-untyped-call]
    torch.optim.AdamW(model.practising_parameters(), lr=1e-4, weight_decay=0.1).step()
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())
    assert not all(torch.equal(*pair) for pair in zip(projected, projector.state_dict().values(), strict=True))
    with torch.no_grad():
        assert (returns * (model.log_prob(inputs, actions) - log_prob)).sum() > 0


@pytest.mark.parametrize("options", KINDS)
def test_a_checkpoint_brings_the_same_model_back(folder: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = make(folder, **options)
    inputs = model.inputs(observations(4))
    model.prepare(model.inputs(observations(50, seed=2)))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    (model.steps_to_go_logits(inputs).square().mean() - model.log_prob(inputs, some_actions(4, model)).mean()).backward()
    optimizer.step()
    save_checkpoint(tmp_path / "model.safetensors", "policy", model.checkpoint_tensors(), {"model": model.config})
    tensors, header = load_checkpoint(tmp_path / "model.safetensors", "policy")
    again = build_hf(header["model"])
    assert json.dumps(again.config) == json.dumps(model.config)
    assert not torch.allclose(answers(again, inputs), answers(model, inputs), atol=1e-2)
    again.load_checkpoint_tensors(tensors)
    assert torch.equal(answers(again, inputs), answers(model, inputs))
    if options["lora_rank"]:
        assert not any("base_layer" in name or "embed" in name for name in tensors)


def test_a_checkpoint_of_another_model_is_refused(folder: str) -> None:
    model, other = make(folder, lora_rank=4), make(folder, lora_rank=2)
    with pytest.raises(CheckpointError, match=r"do not match, the first is .*lora_A"):
        model.load_checkpoint_tensors(other.checkpoint_tensors())
    with pytest.raises(CheckpointError, match="another version"):
        build_hf({**model.config, "backbone_options": {"width": 3}})


def test_a_copy_of_the_state_is_what_a_checkpoint_holds(folder: str) -> None:
    model, other = make(folder, lora_rank=4), make(folder, lora_rank=4)
    assert model.state_dict().keys() == model.checkpoint_tensors().keys()
    model.network.mean.add_(1.0)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.network.mean, model.network.mean)


def test_scratch_needs_no_weights_and_keeps_all_of_its_own(folder: str, tmp_path: Path) -> None:
    for file in Path(folder).iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(EFMError, match="no model for images and text"):
        make(str(tmp_path))
    model, again = (make(str(tmp_path), init="scratch", lora_rank=rank) for rank in (2, 2))
    inputs = model.inputs(observations(3))
    torch.nn.init.normal_(model.network.model.get_input_embeddings().weight)
    again.load_checkpoint_tensors(model.checkpoint_tensors())
    assert torch.equal(answers(again, inputs), answers(model, inputs))


@pytest.mark.parametrize("how", ["micro_batch", "gradient_checkpointing", "both"])
@pytest.mark.parametrize("rank", [0, 4])
def test_settings_that_save_memory_change_neither_answers_nor_gradients(folder: str, how: str, rank: int) -> None:
    options = {"micro_batch": {"micro_batch": 3}, "gradient_checkpointing": {"gradient_checkpointing": True}}
    options["both"] = options["micro_batch"] | options["gradient_checkpointing"]
    found = []
    for model in (make(folder, lora_rank=rank), make(folder, lora_rank=rank, **options[how])):
        inputs = model.inputs(observations(8))
        log_prob = model.log_prob(inputs, some_actions(8, model))
        (log_prob * torch.arange(8.0)).sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append((log_prob.detach(), model.act(inputs, None), gradients))
    close(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1]) and found[0][2].keys() == found[1][2].keys()
    for name, gradient in found[0][2].items():
        torch.testing.assert_close(gradient, found[1][2][name], rtol=1e-3, atol=1e-3, msg=name)


def test_adapters_change_nothing_until_they_are_trained(folder: str) -> None:
    whole, adapted = (HFModel(READS, path=folder, **SIZES, lora_rank=rank, action_tokens="least-used") for rank in (0, 4))
    inputs = whole.inputs(observations(4))
    close(answers(adapted, inputs), answers(whole, inputs))


def test_numbers_take_new_ids_or_those_of_the_rarest_words(folder: str) -> None:
    plain = transformers.AutoTokenizer.from_pretrained(folder)
    longer, same = make(folder), make(folder, action_tokens="least-used")
    rows = [len(model.network.model.get_input_embeddings().weight) for model in (longer, same)]
    assert longer.network.tokens.ids.tolist() == list(range(rows[1], rows[0])) and rows[0] - rows[1] == 256
    assert len(longer.network.model.get_output_embeddings().weight) == rows[0]
    assert plain.convert_ids_to_tokens(same.network.tokens.ids.tolist()) == [f"rare{i}" for i in range(600 - 256, 600)]


def test_a_vocabulary_that_is_too_small_is_named(folder: str) -> None:
    with pytest.raises(EFMError, match=r"700 tokens .* vocabulary has 6\d\d.*action_tokens='extend'"):
        make(folder, action_tokens="least-used", bins=700)
    with pytest.raises(EFMError, match="unknown action_tokens: 'last'"):
        make(folder, action_tokens="last")


def test_numbers_are_tokens_of_their_distance_from_the_mean(folder: str) -> None:
    model = make(folder)
    model.network.mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    model.network.std.fill_(2.0)
    assert model.network.levels(torch.tensor([[1.0 - 6.0, 2.0, 3.0 + 6.0], [-99.0, 4.0, 99.0]])).tolist() == [[0, 128, 255], [0, 170, 255]]
    prompt = model.network.prompt(model.inputs(observations(2)), "action")
    assert torch.isin(prompt["input_ids"][:, -3:], model.network.tokens.ids[:256]).all()


def test_a_constant_instruction_and_no_numbers_need_not_be_read(folder: str) -> None:
    model = HFModel(Reads((), (), READS.cameras, (12, 20)), path=folder, **SIZES, **ALL_WEIGHTS)
    inputs = model.inputs({camera: observations(3)[camera] for camera in READS.cameras})
    model.prepare(inputs)
    assert list(inputs) == list(READS.cameras)
    assert answers(model, inputs).shape == (3, 7) and model.features(inputs).shape == (3, 16)


def test_observations_that_do_not_fit_are_refused(folder: str) -> None:
    model = make(folder)
    blind = {name: value for name, value in observations(2).items() if name != "pixels/wrist"}
    with pytest.raises(EFMError, match="lacks pixels/wrist"):
        model.inputs(blind)
    with pytest.raises(EFMError, match=r"pixels/top of shape \(12, 20, 3\)"):
        model.inputs({**observations(2), "pixels/top": np.zeros((2, 8, 8, 3), np.uint8)})
    with pytest.raises(EFMError, match="reads images; the demonstrations hold agent_pos"):
        HFModel(Reads(("agent_pos",), (3,)), path=folder, **SIZES)


def test_inputs_are_rows(folder: str) -> None:
    model = make(folder)
    inputs = model.inputs(observations(5))
    assert size_of(inputs) == 5 and {value.dtype for value in inputs.values()} == {torch.uint8, torch.float32}
    parts = join([take(inputs, [3]), take(inputs, torch.tensor([1, 2]))])
    close(answers(model, parts)[:, 1:], answers(model, inputs)[[3, 1, 2], 1:])


def test_a_path_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(EFMError, match=r"nowhere.*Expected a name on the hub"):
        make(str(tmp_path / "nowhere"))
    with pytest.raises(EFMError, match="needs `path`"):
        make("")


def test_bfloat16_is_close_and_what_is_trained_stays_float32(folder: str) -> None:
    for rank in (0, 4):
        exact, short = (make(folder, lora_rank=rank, dtype=dtype) for dtype in ("float32", "bfloat16"))
        assert {p.dtype for p in short.parameters() if p.requires_grad} == {torch.float32}
        inputs = exact.inputs(observations(4))
        difference = (answers(exact, inputs) - answers(short, inputs)).abs()
        assert difference.max() > 0 and difference.mean() < 0.1


@pytest.mark.parametrize("preset", PRESETS)
def test_the_papers_spellings_have_its_numbers_of_tokens(preset: str) -> None:
    size = {"language-table": 2, "aloha": 14}[preset]
    settings = PRESETS[preset]
    spelling = Spelling(settings["chunk"], size, settings["action_bins"], settings["sign_magnitude"])
    assert spelling.length == {"language-table": 4, "aloha": 70}[preset]
    assert spelling.numbers == {"language-table": 11, "aloha": 256}[preset]


@pytest.mark.parametrize("sign_magnitude", [False, True])
def test_spelt_actions_are_read_as_they_were_meant(sign_magnitude: bool) -> None:
    spelling, levels = Spelling(2, 3, 7, sign_magnitude), torch.linspace(-1, 1, 7)
    actions = levels[torch.randint(0, 7, (50, 2, 3), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(spelling.actions(spelling.of(actions)), actions)
    nearby = actions + 0.3 * (levels[1] - levels[0])
    close(spelling.actions(spelling.of(nearby)), actions)
    if sign_magnitude:
        with pytest.raises(EFMError, match="must be odd; got 8"):
            Spelling(1, 1, 8, sign_magnitude=True)


def test_there_is_one_zero() -> None:
    spelling = Spelling(1, 1, 5, sign_magnitude=True)
    minus = torch.tensor([[spelling.minus, 0]])
    probs = spelling.log_probs(torch.zeros(1, 2, spelling.choices), minus).exp()[0]
    torch.testing.assert_close(probs, torch.tensor([[0, 0, 0, 0.5, 0.5], [0, 0.5, 0.5, 0, 0]]))


def test_a_full_gpu_says_what_to_change() -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.6 GiB.")
    advice = r"CUDA out of memory[\s\S]*micro_batch \(now 8\): lower it[\s\S]*batch \(now 64\)"
    with pytest.raises(EFMError, match=advice) as error, explain_out_of_memory(batch=64, micro_batch=8):
        raise full
    assert error.value.__cause__ is full and "lora_rank" not in str(error.value)
    with pytest.raises(EFMError) as error, explain_out_of_memory():
        raise full
    assert all(name in str(error.value) for name in ADVICE)
    with pytest.raises(ValueError, match="other"), explain_out_of_memory():
        raise ValueError("other")


def test_a_gpu_that_is_not_there_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(EFMError, match=r"needs a GPU.*Take device='cpu'"):
        pick_device("cuda")
    with pytest.raises(EFMError, match="unknown device: 'gpu'"):
        pick_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda" and pick_device("cpu").type == "cpu"


def test_other_models_do_not_wait_for_transformers() -> None:
    script = "import sys, efm_agents.model, efm_agents.tokens, efm_agents.devices; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
