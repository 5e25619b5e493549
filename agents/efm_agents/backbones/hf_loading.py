"""Loads a model of transformers, gives it tokens for numbers, and puts adapters in it. Imported on demand: transformers takes seconds."""

from typing import Any

import torch
from torch import nn

from efm_envs.errors import EFMError, missing_extra, one_of

try:
    import peft
    import transformers
except ImportError as error:
    raise missing_extra("the model 'hf'", "hf") from error

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def dtype_of(name: str) -> torch.dtype:
    """Returns the type that activations are computed in; "auto" is bfloat16 where there is a GPU, else float32."""
    one_of("dtype", name, ("auto", *DTYPES))
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return DTYPES[name]


def load(path: str, init: str, dtype: torch.dtype, attn: str) -> tuple[nn.Module, Any]:
    """Returns model and processor.

    Args:
        path: name on the model hub, or a folder that `save_pretrained` made.
        init: "pretrained", or "scratch" for random weights: then the folder need hold no weights, only the configuration and the processor.
        dtype: of the weights.
        attn: implementation of attention: "sdpa", "eager", "flash_attention_2" or another that transformers knows.

    Raises:
        EFMError: there is no such model, or it is none that reads images and speaks.
    """
    one_of("init", init, ("pretrained", "scratch"))
    if not path:
        raise EFMError("the model 'hf' needs `path`: the name of a model on the hub, such as google/paligemma-3b-pt-224, or a folder.")
    auto: Any = transformers.AutoModelForImageTextToText
    try:
        config = transformers.AutoConfig.from_pretrained(path)
        processor = _processor(path, config)
        if init == "scratch":
            model = auto.from_config(config, dtype=dtype, attn_implementation=attn)
        else:
            model = auto.from_pretrained(path, dtype=dtype, attn_implementation=attn)
    except (OSError, ValueError) as error:
        raise EFMError(
            f"path={path!r} is no model for images and text that can be loaded. Expected a name on the hub (with a connection to it, and "
            "access where the model asks for it) or a folder with config.json, weights, tokenizer and processor. "
            f"transformers says: {error}"
        ) from error
    _without_dropout(model)
    return model, processor


def _processor(path: str, config: Any) -> Any:
    """Returns what makes ids of words and pixels of images.

    SmolVLM is read by Idefics3's processor, which treats images alike: its own handles videos too, for which it needs two more packages.
    """
    kind: Any = transformers.Idefics3Processor if config.model_type == "smolvlm" else transformers.AutoProcessor
    processor = kind.from_pretrained(path)
    if hasattr(processor.image_processor, "do_image_splitting"):
        processor.image_processor.do_image_splitting = False  # one view of each camera; crops of it would be 4 to 16 times the tokens
    return processor


def _without_dropout(model: nn.Module) -> None:
    """Turns dropout off: with it, what is drawn and what is scored would come from different distributions."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def add_adapters(model: nn.Module, rank: int) -> None:
    """Freezes all weights and puts an adapter of LoRA (arXiv 2106.09685) beside each linear layer, of the vision tower too.

    Adapters are float32, and change nothing as long as they are not trained.
    """
    model.requires_grad_(False)
    spoken: Any = model.get_output_embeddings()  # type: ignore[operator]
    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear and module is not spoken]
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=linear), model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def vision_tower(model: Any) -> nn.Module | None:
    """Returns the part that reads pixels, without the projector behind it; None if it has no name that transformers knows."""
    tower: nn.Module = model.get_encoder(modality="image")
    return None if tower is model else tower
