"""Real pyreft on the tiny checkpoints: edited logits, twenty training steps and greedy answers.

Reads the sibling folder that families.py wrote (OUTDIR/../families); pyreft and pyvene must be importable
(PYTHONPATH).
"""

import contextlib
import io
from pathlib import Path

import torch

import pyreft
from pyreft.dataset import get_intervention_locations

from common import generator, normal, output_folder, save_json, save_tensors
from families import VOCAB, blocks, load
from loreft import householder_base, set_base

D = 32
STEPS = 20
NEW_TOKENS = 8
LR = 4e-3
# (tokens, of which prompt)
EXAMPLES = [(12, 7), (9, 5), (11, 6), (7, 4)]

# share: one edit for the first and the last positions. Otherwise pyreft has two edits a layer, and its location
# lists are all prefix edits first, then all suffix edits; so are the representations here.
# link: one set of weights for all sites (pyvene's intervention_link_key).
SITES = {
    "last": {"layers": [1], "positions": "l1", "share": True},
    "tied": {"layers": [0, 2], "positions": "f2+l2", "share": True},
    "untied": {"layers": [0, 2], "positions": "f2+l2", "share": False},
    "linked": {"layers": [0, 2], "positions": "f1+l1", "share": True, "link": 0},
}
# Batches in turn, by numbers of EXAMPLES; otherwise every step sees all.
TURNS = {"batches": [[2, 0], [3], [1, 2], [0, 3, 1]]}
OTHER_EDITS = {
    "noreft": {"add_bias": True}, "consreft": {}, "lobireft": {}, "direft": {"act_fn": "relu"},
    "nodireft": {"add_bias": False, "act_fn": "gelu"},
}
CASES = {
    f"{model}-loreft-{site}": {"model": model, "intervention": "LoreftIntervention", "options": {}, "rank": 3}
    | SITES[site]
    for model in ("llama", "gpt2") for site in SITES
} | {
    f"{model}-{edit}": {"model": model, "intervention": f"{edit.capitalize()}Intervention", "options": options,
                        "rank": 2} | SITES["untied"]
    for model in ("llama", "gpt2") for edit, options in OTHER_EDITS.items()
} | {
    f"{model}-{edit}-{site}-turns": {"model": model, "intervention": f"{edit.capitalize()}Intervention",
                                     "options": options, "rank": 2} | SITES[site] | TURNS
    for model in ("llama", "gpt2")
    for edit, options, site in [*((edit, options, "tied") for edit, options in OTHER_EDITS.items()),
                                ("loreft", {}, "untied")]
}


def edit_layers(case: dict) -> list[int]:
    return case["layers"] if case["share"] else case["layers"] * 2


def make_edit(case: dict, seed: int) -> torch.nn.Module:
    """An edit with given weights and, where it has an R, the base that R's own reflectors complete."""
    torch.manual_seed(seed)
    edit = getattr(pyreft, case["intervention"])(
        embed_dim=D, low_rank_dimension=case["rank"], dtype=torch.float32, dropout=0.0, **case["options"])
    with torch.no_grad():
        for i, (name, p) in enumerate(edit.named_parameters()):
            if not name.startswith("rotate_layer"):
                p.copy_(normal(p.shape, seed + 1 + i, 0.3))
    if hasattr(edit, "rotate_layer"):
        base, _ = householder_base(edit.rotate_layer.weight.detach())
        set_base(edit.rotate_layer, base)
    return edit


def weights(edit: torch.nn.Module) -> dict[str, torch.Tensor]:
    """R as `rotate_layer`; the rest under pyreft's own names."""
    found = {name: p.detach().clone() for name, p in edit.named_parameters() if not name.startswith("rotate_layer")}
    if hasattr(edit, "rotate_layer"):
        found["rotate_layer"] = edit.rotate_layer.weight.detach().clone()
    return found


def build(families: Path, case: dict, seed: int):
    model = load(families / case["model"])
    linked = "link" in case
    edits = [make_edit(case, seed + 50 * i) for i in range(1 if linked else len(edit_layers(case)))]
    sites = edits * len(edit_layers(case)) if linked else edits
    reft_model = pyreft.get_reft_model(model, pyreft.ReftConfig(representations=[
        {"layer": layer, "component": "block_output", "low_rank_dimension": case["rank"], "intervention": edit}
        | ({"intervention_link_key": case["link"]} if linked else {})
        for layer, edit in zip(edit_layers(case), sites)]))
    return reft_model, edits


def locations(case: dict, prompt_length: int) -> list[list[int]]:
    return get_intervention_locations(
        last_position=prompt_length, positions=case["positions"], share_weights=case["share"],
        num_interventions=len(edit_layers(case)))


def batch(case: dict) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    width = max(n for n, _ in EXAMPLES)
    ids = torch.zeros(len(EXAMPLES), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, (n, prompt) in enumerate(EXAMPLES):
        ids[row, :n] = torch.randint(1, VOCAB, (n,), generator=generator(300 + row))
        mask[row, :n] = 1
        labels[row, prompt:n] = ids[row, prompt:n]
    where = torch.tensor([locations(case, prompt) for _, prompt in EXAMPLES])  # [batch, edits, positions]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}, where


def edited(reft_model, inputs: dict, where: torch.Tensor):
    """One forward pass as pyreft's trainer makes it."""
    _, out = reft_model(
        {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]},
        unit_locations={"sources->base": (None, where.permute(1, 0, 2).tolist())}, labels=inputs["labels"])
    return out


def edited_with_states(reft_model, inputs: dict, where: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits, and each block's output after the edit: what the next module is given."""
    model, tensors = reft_model.model, {}
    final_norm = model.transformer.ln_f if model.config.model_type == "gpt2" else model.model.norm
    hooks = [module.register_forward_pre_hook(
        lambda _m, args, i=i: tensors.update({f"block_output.{i}": args[0].clone()}))
        for i, module in enumerate([*blocks(model)[1:], final_norm])]
    with torch.no_grad():
        tensors["logits"] = edited(reft_model, inputs, where).logits
    for hook in hooks:
        hook.remove()
    return tensors


def trajectory(reft_model, edits, case, inputs, where) -> tuple[list[float], dict[str, torch.Tensor]]:
    """AdamW without decay; the loss before each step, and after the last."""
    turns = [(inputs, where)] if "batches" not in case else [
        ({key: t[rows] for key, t in inputs.items()}, where[rows]) for rows in case["batches"]]
    parameters = [p for edit in edits for p in edit.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    losses, tensors = [], {}
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = edited(reft_model, *turns[step % len(turns)]).loss
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            for i, edit in enumerate(edits):
                tensors |= {f"firstGradient.{i}.{name}": p.grad.clone()
                            for name, p in edit.named_parameters() if p.grad is not None}
        optimiser.step()
    with torch.no_grad():
        losses.append(edited(reft_model, *turns[STEPS % len(turns)]).loss.item())
    return losses, tensors


def float64_losses(families: Path, case: dict, seed: int, inputs, where, finals) -> tuple[list[float], float]:
    """The same run in double precision, and how far its final weights are from the float32 ones."""
    reft_model, edits = build(families, case, seed)
    reft_model.model.double()
    for edit in edits:
        edit.double()
    losses, _ = trajectory(reft_model, edits, case, inputs, where)
    return losses, max((weights(edit)[name] - t).abs().max().item()
                       for edit, final in zip(edits, finals) for name, t in final.items())


def answer(reft_model, case: dict, prompt: list[int]) -> tuple[list[int], float]:
    """Greedy ids with the edit on the prompt alone, and the smallest lead of a chosen token."""
    ids = torch.tensor([prompt])
    where = [[places] for places in locations(case, len(prompt))]
    _, out = reft_model.generate(
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        unit_locations={"sources->base": (None, where)}, intervene_on_prompt=True, do_sample=False,
        max_new_tokens=NEW_TOKENS, eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
        output_scores=True)
    best = torch.stack([s[0].topk(2).values for s in out.scores])
    return out.sequences[0, len(prompt):].tolist(), (best[:, 0] - best[:, 1]).min().item()


def answers(reft_model, case: dict) -> list[dict]:
    """Three prompts on which no choice is closer than rounding could turn."""
    found = []
    for n in (5, 8, 11):
        for attempt in range(100):
            prompt = torch.randint(1, VOCAB, (n,), generator=generator(7000 * n + attempt)).tolist()
            ids, lead = answer(reft_model, case, prompt)
            if lead > 2e-3:
                found.append({"prompt": prompt, "locations": locations(case, n), "ids": ids})
                break
        else:
            raise SystemExit(f"no clear prompt of {n} tokens")
    return found


def record(out: Path, name: str, case: dict) -> None:
    seed = 10 * sum(map(ord, name))
    reft_model, edits = build(out.parent / "families", case, seed)
    inputs, where = batch(case)
    tensors = dict(inputs) | {"locations": where}
    for i, edit in enumerate(edits):
        tensors |= {f"initial.{i}.{key}": t for key, t in weights(edit).items()}
    states = edited_with_states(reft_model, inputs, where)
    # The states are the same work for every edit: those of LoReFT are enough.
    tensors |= states if "loreft" in name and "batches" not in case else {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        reft_model.print_trainable_parameters()
    before = answers(reft_model, case)
    losses, gradients = trajectory(reft_model, edits, case, inputs, where)
    tensors |= gradients
    for i, edit in enumerate(edits):
        tensors |= {f"final.{i}.{key}": t for key, t in weights(edit).items()}
    exact, drift = float64_losses(out.parent / "families", case, seed, inputs, where, [weights(e) for e in edits])
    save_tensors(out / f"{name}.safetensors", tensors)
    save_json(out / f"{name}.json", case | {
        "editLayers": edit_layers(case), "component": "block_output", "lr": LR, "weightDecay": 0.0, "steps": STEPS,
        "lengths": [n for n, _ in EXAMPLES], "promptLengths": [p for _, p in EXAMPLES], "losses": losses,
        "lossesFloat64": exact, "finalWeightsDrift": drift,
        "printed": printed.getvalue(),
        "newTokens": NEW_TOKENS, "answers": before, "answersAfterTraining": answers(reft_model, case)}, indent=None)
    print(name, losses[0], losses[-1], "drift", max(abs(a / b - 1) for a, b in zip(losses, exact)), drift)


def main() -> None:
    out = output_folder()
    for name, case in CASES.items():
        record(out, name, case)


if __name__ == "__main__":
    main()
