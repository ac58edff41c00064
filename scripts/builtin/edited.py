"""A change of hidden states while a model runs."""

from collections.abc import Callable

import torch


class Edited:
    """While open, `edit` acts on the output of one layer at the given token of each row, in prefill only."""

    def __init__(self, model, layer: int, edit: Callable[[torch.Tensor], torch.Tensor], positions: torch.Tensor) -> None:
        self.block, self.edit, self.positions = model.model.layers[layer], edit, positions

    def __enter__(self) -> None:
        self.hook = self.block.register_forward_hook(self.act)

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def act(self, _module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.shape[1] == 1:
            return output
        at = torch.arange(hidden.shape[0]), self.positions
        changed = hidden.index_put(at, self.edit(hidden[at]))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed
