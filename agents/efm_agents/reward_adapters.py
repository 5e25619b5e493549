"""Reward models in PyTorch, of others: any module, and those that have LeRobot's interface."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from efm_envs.errors import RewardModelError
from efm_envs.rewards.adapters import CallableRewardModel, given
from efm_envs.rewards.base import Kind
from efm_envs.rewards.content import content_hash
from efm_envs.rewards.kinds import Unit
from efm_envs.task import Array, Goals

IMAGE = "observation.image"  # how LeRobot's names of pictures begin

Batch = dict[str, Any]
Module = nn.Module | Callable[[], nn.Module] | str


class ModuleRewardModel(CallableRewardModel):
    """Around a module, in evaluation mode; its subclasses are the calling conventions.

    A module says the same of an observation in any batch up to rounding, not to the last bit.

    Args:
        module: the module, a function that returns one, or where either is: "module:attribute".
        device: where it is moved to, such as "cuda"; None leaves it where it is.
        others: as for `CallableRewardModel`.

    Attributes:
        module: the module itself, not a copy.
    """

    argument = "module"

    def __init__(self, module: Module, unit: Unit, device: str | None, options: Mapping[str, Any], **others: Any) -> None:
        super().__init__(module, unit, options={**options, **given(device=device)}, **others)
        found = self.function if isinstance(self.function, nn.Module) else self.function()
        if not isinstance(found, nn.Module):
            raise RewardModelError(f"reward model {self.id!r} is around a torch.nn.Module, or what returns one; got {found!r}.")
        self.module = found.eval() if device is None else found.eval().to(device)
        self._like = next((p for p in self.module.parameters() if p.is_floating_point()), torch.zeros(()))

    def content(self) -> str:
        """Returns a hash of the weights and of the names of the module's parts; code that changes under the same name needs a `version`."""
        return module_hash(self.module)

    def tensor(self, array: Array) -> Tensor:
        """Returns a copy of an array on the module's device; of the weights' precision, if it is of floating-point numbers."""
        tensor = torch.tensor(np.ascontiguousarray(array))
        return tensor.to(self._like.device, self._like.dtype if tensor.is_floating_point() else None)


class TorchRewardModel(ModuleRewardModel):
    """`torch`: a module that takes observations as tensors.

    Args:
        module: as for `ModuleRewardModel`. It gets the observations named in `inputs`, each (B, …), as arguments in that order: numbers in
            the precision of its weights, pictures (B, H, W, 3) uint8 as they are. It returns (B,) or, with edges, (B, K).
        inputs: names of observations.
        history: how many of the last observations it reads, by name: (B, k, …).
        kind, scale, offset, logits, edges, horizon_steps: what it returns; see `Unit`.
        device: as for `ModuleRewardModel`.
        success_threshold: s in success 1[d ≤ s], in [control steps].
        version: stands for weights and code in the fingerprint.
    """

    id = "torch"

    def __init__(
        self,
        module: Module,
        inputs: Sequence[str],
        *,
        history: Mapping[str, int] | None = None,
        kind: Kind = "steps",
        scale: float = 1.0,
        offset: float = 0.0,
        logits: bool = False,
        edges: Sequence[float] | None = None,
        horizon_steps: float | None = None,
        device: str | None = None,
        success_threshold: float = 0.5,
        version: str | None = None,
    ) -> None:
        unit = Unit(kind, scale, offset, logits, edges, horizon_steps)
        options = {"kind": kind, **unit.options(), **given(inputs=inputs, history=history)}
        others = {"needs": inputs, "history": history, "success_threshold": success_threshold, "version": version}
        super().__init__(module, unit, device, options, **others)
        self.inputs = tuple(inputs)

    def ask(self, observations: Mapping[str, Array], goals: Goals) -> Any:
        """Shows the module its inputs."""
        with torch.inference_mode():
            return numbers(self.module(*(self.tensor(observations[name]) for name in self.inputs)))


class LeRobotRewardModel(ModuleRewardModel):
    """`lerobot`: a model with the interface of LeRobot's `PreTrainedRewardModel`, `compute_reward(batch) -> (B,)`.

    LeRobot says neither kind nor unit of what is returned, so that you do: its HIL-SERL classifier is a "success" (0 or 1), Robometer
    and SARM are "progress"; TOPReward is of no kind, because only the order of its scores means something.

    Args:
        model: the model, a function that returns one (`lambda: Classifier.from_pretrained(…)`), or where that is: "module:attribute".
        inputs: from our names to LeRobot's: {"pixels/top": "observation.images.top", "agent_pos": "observation.state"}. Pictures become
            (B, 3, H, W), 0..1; all is float32. The instructions are in `batch["task"]`.
        kind, scale, offset, logits, horizon_steps: what it returns; see `Unit`.
        history: how many of the last observations it reads, by our names: (B, k, 3, H, W).
        preprocessor: makes its batch of this one: the first of LeRobot's `make_reward_pre_post_processors(model.config)`. It is in no
            spec and no fingerprint, so that it needs a `version`.
        device: as for `ModuleRewardModel`.
        success_threshold: s in success 1[d ≤ s], in [control steps].
        version: stands for weights, code and preprocessor in the fingerprint.
    """

    id = "lerobot"
    argument: ClassVar[str] = "model"

    def __init__(
        self,
        model: Module,
        inputs: Mapping[str, str],
        kind: Kind,
        *,
        scale: float = 1.0,
        offset: float = 0.0,
        logits: bool = False,
        horizon_steps: float | None = None,
        history: Mapping[str, int] | None = None,
        preprocessor: Callable[[Batch], Batch] | None = None,
        device: str | None = None,
        success_threshold: float = 0.5,
        version: str | None = None,
    ) -> None:
        unit = Unit(kind, scale, offset, logits, horizon_steps=horizon_steps)
        options = {"kind": kind, **unit.options(), **given(inputs=dict(inputs), history=history)}
        others = {"needs": tuple(inputs), "history": history, "success_threshold": success_threshold, "version": version}
        super().__init__(model, unit, device, options, **others)
        if not callable(getattr(self.module, "compute_reward", None)):
            raise RewardModelError(
                f"reward model 'lerobot' is around what has compute_reward(batch); {type(self.module).__name__} has not."
            )
        if preprocessor is not None and version is None:
            raise RewardModelError(
                "reward model 'lerobot': no fingerprint covers a preprocessor. Pass version=, a name for the two together."
            )
        self.inputs, self._preprocessor = dict(inputs), preprocessor

    def ask(self, observations: Mapping[str, Array], goals: Goals) -> Any:
        """Shows the model a batch in LeRobot's names and forms."""
        batch: Batch = {"task": list(goals.instructions)}
        for ours, theirs in self.inputs.items():
            values = torch.tensor(np.ascontiguousarray(observations[ours]), dtype=torch.float32, device=self._like.device)
            batch[theirs] = values.movedim(-1, -3) / 255.0 if theirs.startswith(IMAGE) else values
        with torch.inference_mode():
            return numbers(self.module.compute_reward(batch if self._preprocessor is None else self._preprocessor(batch)))  # type: ignore[operator]


def numbers(output: Any) -> Any:
    """Returns a tensor's values as float64; what is no tensor is returned as it is."""
    return output.detach().cpu().double().numpy() if isinstance(output, Tensor) else output


def module_hash(module: nn.Module) -> str:
    """Returns 16 hex digits that the weights, the structure and the names of the parts' classes decide."""
    digest = hashlib.sha256(repr(module).encode())
    for name, part in module.named_modules():
        digest.update(f"{name} {type(part).__module__}:{type(part).__qualname__}\n".encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {getattr(value, 'dtype', '')} {tuple(getattr(value, 'shape', ()))}\n".encode())
        digest.update(_bytes(value) if isinstance(value, Tensor) else content_hash(value).encode())
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return np.asarray(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)).tobytes()  # numpy has no bfloat16
