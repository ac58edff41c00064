"""Folders of edits as real pyreft writes them, and what these edits do; AdapterHub's layouts, built from torch's own parts.

pyreft and pyvene must be importable (PYTHONPATH). Reads the checkpoint families/llama beside OUTDIR.
"""

import json
from pathlib import Path

import pyreft
import pyvene
import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from common import normal, output_folder, save_json, save_tensors

D, ROWS = 32, 5
# class → options; bf16 is pyreft's own default for linear parts.
CASES = {
    "loreft": ("LoreftIntervention", {}, torch.bfloat16),
    "noreft": ("NoreftIntervention", {"add_bias": True}, torch.float32),
    "noreft-no-bias": ("NoreftIntervention", {"add_bias": False}, torch.float32),
    "consreft": ("ConsreftIntervention", {}, torch.float32),
    "lobireft": ("LobireftIntervention", {}, torch.float32),
    "direft": ("DireftIntervention", {}, torch.float32),
    "nodireft": ("NodireftIntervention", {"add_bias": False}, torch.float32),
}


def make(kind: str, options: dict, dtype, rank: int):
    return getattr(pyreft, kind)(embed_dim=D, low_rank_dimension=rank, dtype=dtype, **options)


def train(edit, seed: int, steps: int = 8) -> None:
    """Moves every weight far from its start, so that R is no longer the first columns of its base."""
    optimiser = torch.optim.AdamW(edit.parameters(), lr=3e-2, weight_decay=0.0)
    for step in range(steps):
        h = normal((ROWS, D), seed + step)
        optimiser.zero_grad()
        dtype = next(p.dtype for name, p in edit.named_parameters() if "rotate" not in name)
        base = h.to(dtype) if dtype == torch.bfloat16 else h
        loss = (edit(base).float() - normal((ROWS, D), 1000 + seed)).square().sum()
        loss.backward()
        optimiser.step()


def effect(edit, seed: int) -> dict[str, torch.Tensor]:
    """h → h′ in float32 with the weights as they are stored; of a bfloat16 edit also `native`, of h in bfloat16."""
    h = normal((ROWS, D), seed)
    narrow = any(p.dtype == torch.bfloat16 for p in edit.parameters())
    native = {"native": edit(h.to(torch.bfloat16)).float()} if narrow else {}
    return {"h": h, "output": edit.float()(h)} | native


def wrapped(model, edits: list, layers: list[int], links: list | None = None):
    config = pyreft.ReftConfig(representations=[
        {"layer": layer, "component": "block_output", "low_rank_dimension": 2, "intervention": edit}
        | ({} if links is None else {"intervention_link_key": links[i]})
        for i, (edit, layer) in enumerate(zip(edits, layers))])
    return pyreft.get_reft_model(model, config, set_device=False, disable_model_grads=True)


def base_model(out: Path):
    return LlamaForCausalLM.from_pretrained(out.parent / "families" / "llama", dtype=torch.float32)


def record_classes(out: Path) -> None:
    for i, (name, (kind, options, dtype)) in enumerate(CASES.items()):
        torch.manual_seed(100 + i)
        edit = make(kind, options, dtype, 2)
        train(edit, 200 + 10 * i)
        reft = wrapped(base_model(out), [edit], [1])
        reft.save(str(out / name))
        save_tensors(out / f"{name}.safetensors", effect(edit, 300 + i))
        print(name, sorted(p.name for p in (out / name).iterdir()))


def record_untied(out: Path) -> None:
    """Two edits a layer (first and last token), two layers; and what the model answers with them."""
    torch.manual_seed(7)
    model = base_model(out)
    edits = [make("LoreftIntervention", {}, torch.float32, 2) for _ in range(4)]
    reft = wrapped(model, edits, [0, 1, 0, 1])
    reft.save(str(out / "untied"))
    ids = torch.tensor([[5, 17, 3, 42, 29, 11]])
    _, answer = reft({"input_ids": ids}, unit_locations={"sources->base": (None, [[[0]], [[0]], [[5]], [[5]]])})
    save_tensors(out / "untied.safetensors", {"input_ids": ids, "logits": answer.logits})


def record_linked(out: Path) -> None:
    torch.manual_seed(8)
    edit = make("LoreftIntervention", {}, torch.float32, 2)
    reft = wrapped(base_model(out), [edit, make("LoreftIntervention", {}, torch.float32, 2)], [0, 1], ["a", "a"])
    reft.save(str(out / "linked"))


class ReftUnit(torch.nn.Module):
    """The parameters of one unit of AdapterHub's adapters (methods/reft.py): the same modules under the same names."""

    def __init__(self, rank: int, orthogonal: bool):
        super().__init__()
        self.learned_source = torch.nn.Linear(D, rank)
        projection = torch.nn.Linear(D, rank, bias=False)
        self.projection = torch.nn.utils.parametrizations.orthogonal(projection) if orthogonal else projection

    def forward(self, x, subtract: bool):
        source = self.learned_source(x)
        if subtract:
            source = source - self.projection(x)
        return x + source @ self.projection.weight


def hub_config(**config) -> dict:
    """adapter_config.json as adapters 1.x writes it; subtract_projection is no field of theirs and is not saved."""
    return {
        "config": {"architecture": "reft", "dropout": 0.05, "dtype": None, "init_weights_seed": None, "layers": "all",
                   "non_linearity": None, "orthogonality": True, "output_reft": True, "prefix_positions": 3, "r": 2,
                   "suffix_positions": 0, "tied_weights": False} | config,
        "hidden_size": D, "model_class": "LlamaForCausalLM", "model_name": "llama", "model_type": "llama",
        "name": "my_reft", "version": "adapters.1.2.0",
    }


def record_adapterhub(out: Path) -> None:
    cases = {"adapterhub-loreft": (True, True, {"suffix_positions": 2}), "adapterhub-noreft": (False, True, {"orthogonality": False}),
             "adapterhub-direft": (False, False, {"orthogonality": False, "tied_weights": True, "suffix_positions": 3})}
    for i, (name, (orthogonal, subtract, config)) in enumerate(cases.items()):
        torch.manual_seed(50 + i)
        state, effects = {}, {}
        for layer in range(2):
            for unit in range(1 if config.get("tied_weights") else 2):
                module = ReftUnit(2, orthogonal)
                optimiser = torch.optim.AdamW(module.parameters(), lr=3e-2, weight_decay=0.0)
                for step in range(6):
                    optimiser.zero_grad()
                    (module(normal((ROWS, D), step), subtract) - normal((ROWS, D), 99)).square().sum().backward()
                    optimiser.step()
                prefix = f"model.layers.{layer}.reft_layer.refts.my_reft.units.{unit}."
                state |= {prefix + key: t.contiguous() for key, t in module.state_dict().items()}
                h = normal((ROWS, D), 400 + layer)
                effects |= {f"{layer}.{unit}.h": h, f"{layer}.{unit}.output": module(h, subtract)}
        folder = out / name
        folder.mkdir(exist_ok=True)
        save_json(folder / "adapter_config.json", hub_config(**config), indent=2)
        if name == "adapterhub-noreft":
            torch.save(state, folder / "pytorch_adapter.bin")
        else:
            save_file(state, str(folder / "adapter.safetensors"))
        save_tensors(out / f"{name}.safetensors", effects)


def record_torch(out: Path) -> None:
    """Every stored type, views of all kinds, and files that must be refused."""
    folder = out / "torch"
    folder.mkdir(exist_ok=True)
    x = normal((6, 4), 1)
    shared = normal((12,), 2)
    tensors = {
        "float": x, "double": x.double(), "half": x.half(), "bfloat16": x.bfloat16(), "transposed": x.T, "columns": x[:, 1:3],
        "every_other": x[::2, ::3], "scalar": torch.tensor(3.5), "long": torch.tensor([1, -2, 2**40]), "long_scalar": torch.tensor(7),
        "first_half": shared[:6], "second_half": shared[6:].reshape(2, 3), "empty": torch.zeros(0, 3),
    }
    torch.save(tensors, folder / "types.bin")
    save_tensors(folder / "types.safetensors", {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()})
    torch.save(tensors, folder / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), folder / "module.bin")
    torch.save({"numbers": [1, 2]}, folder / "list.bin")
    torch.save({"expanded": torch.zeros(1).expand(1000)}, folder / "expanded.bin")


def main() -> None:
    out = output_folder()
    record_classes(out)
    record_untied(out)
    record_linked(out)
    record_adapterhub(out)
    record_torch(out)
    types = json.loads((out / "loreft" / "config.json").read_text())["intervention_types"]
    print(types, pyvene.__name__)


if __name__ == "__main__":
    main()
