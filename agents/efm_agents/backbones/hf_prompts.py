"""What a language model is asked: the text and the pixels of a prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efm_agents.backbones.base import ACTION, STEPS_TO_GO

QUESTIONS = {ACTION: "Which action comes next?", STEPS_TO_GO: "How many steps are left?"}
REMEMBERED = 8192  # prompts; the paper's data has 78,623 sentences, of a few kilobytes each

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


class Prompts:
    """Texts as ids, each made once; images as pixels.

    A text is the cameras' images, the question and the instruction, in the form of the model's chat template if it has one. The processor
    puts as many ids in place of an image as the model will read there.

    Args:
        processor: of the model.
        cameras: number of images.
        image_size: (height, width) of the images.
    """

    def __init__(self, processor: Any, cameras: int, image_size: tuple[int, int]) -> None:
        self.processor, self.cameras = processor, cameras
        self.blank = [np.zeros((*image_size, 3), np.uint8)] * cameras
        self.padding = processor.tokenizer.pad_token_id or 0
        self._made: dict[tuple[str, str], dict[str, np.ndarray]] = {}  # arrays, since tensors of inference mode cannot be trained on

    def text(self, asked: str, sentence: str) -> str:
        """Returns the text, with a placeholder for each image."""
        said = f"{QUESTIONS[asked]} {sentence}".strip()
        if getattr(self.processor, "chat_template", None) is None:
            return self.processor.image_token * self.cameras + said
        content = [*({"type": "image"} for _ in range(self.cameras)), {"type": "text", "text": said}]
        filled: str = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return filled

    def batch(self, asked: str, sentences: Sequence[str]) -> dict[str, Tensor]:
        """Returns (B, n) int64 by name, filled up on the left: `input_ids`, `attention_mask`, and what else is read of each token."""
        rows = [self._tokens(asked, sentence) for sentence in sentences]
        longest = max(len(row[IDS]) for row in rows)
        batch = {}
        for name in rows[0]:
            filler = self.padding if name == IDS else 0
            padded = np.full((len(rows), longest), filler, np.int64)
            for place, row in zip(padded, rows, strict=True):
                place[longest - len(row[name]) :] = row[name]
            batch[name] = torch.from_numpy(padded)
        return batch

    def _tokens(self, asked: str, sentence: str) -> dict[str, np.ndarray]:
        key = (asked, sentence)
        if key not in self._made:
            if len(self._made) >= REMEMBERED:
                self._made.clear()
            read = self.processor(text=[self.text(asked, sentence)], images=[self.blank])
            ids = np.asarray(read[IDS])
            per_token = {name: np.asarray(value) for name, value in read.items() if name.endswith(("input_ids", "token_type_ids"))}
            self._made[key] = {name: value[0].astype(np.int32) for name, value in per_token.items()}
            self._made[key][MASK] = np.ones(ids.shape[1], np.int32)
        return self._made[key]

    def pixels(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns what the model reads of images, in the processor's own form.

        Args:
            images: for each camera (B, H, W, 3) uint8.
        """
        rows = [list(row) for row in zip(*(camera.cpu().numpy() for camera in images), strict=True)]
        read = self.processor.image_processor(images=rows, return_tensors="pt")
        return {name: value for name, value in read.items() if isinstance(value, Tensor)}
