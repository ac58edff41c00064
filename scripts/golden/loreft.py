"""Orthonormal R by torch's own parametrisation, and each of pyreft's six edits with its gradients.

pyreft and pyvene must be importable (PYTHONPATH). Householder numbers are computed in float64 and stored as
float32, so that they are right to the last bit; float32 losses are recorded beside them.
"""

import torch
from torch.nn.utils import parametrize

import pyreft

from common import normal, output_folder, save_json, save_tensors

SHAPES = [(16, 4), (12, 1), (33, 8)]
STEPS = 10
ROWS = 6


def householder_base(r_matrix: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """base = H_1…H_r · diag(s, 1…1), H_i = I − τ_i v_i v_iᵀ, with base[:, :r] = R.

    From LAPACK's QR of R: v_i is 0 above row i and 1 at it, and H_i sends the column to −sign(x_i)·‖x‖·e_i, which
    is why s_i = −sign(x_i). Orthonormal columns have a diagonal ±1 in the triangular factor: that is s.
    """
    d, r = r_matrix.shape
    a, tau = torch.geqrf(r_matrix)
    sign = a.diagonal().sign()
    base = torch.ormqr(a, tau, torch.eye(d, dtype=r_matrix.dtype))
    base[:, :r] *= sign
    assert (base[:, :r] - r_matrix).abs().max() < 2e-6
    v = a.tril(-1)
    v.diagonal().fill_(1)
    return base, {"base": base, "v": v, "tau": tau, "sign": sign}


def set_base(rotate_layer: torch.nn.Module, base: torch.Tensor) -> None:
    """Puts the completion of R where torch had drawn a random one; R itself stays."""
    rotate_layer.parametrizations.weight[0].base.copy_(base)


def loreft(d: int, r: int, seed: int, dtype: torch.dtype) -> tuple[pyreft.LoreftIntervention, dict]:
    torch.manual_seed(seed)
    edit = pyreft.LoreftIntervention(embed_dim=d, low_rank_dimension=r, dtype=torch.float32).to(dtype)
    initial = edit.rotate_layer.weight.detach().clone()
    base, parts = householder_base(initial)
    set_base(edit.rotate_layer, base)
    return edit, {"R": initial} | parts


def trajectory(d: int, r: int, seed: int, dtype: torch.dtype) -> tuple[dict, list[float]]:
    """loss = Σ (h + (hWᵀ + b − hR)Rᵀ − target)², ten steps of AdamW on X (where R = R(X)), W and b."""
    edit, tensors = loreft(d, r, seed, dtype)
    h, target = (normal((ROWS, d), seed + k).to(dtype) for k in (1, 2))
    tensors |= {"h": h, "target": target}
    x = edit.rotate_layer.parametrizations.weight.original
    named = {"X": x, "W": edit.learned_source.weight, "b": edit.learned_source.bias}
    optimiser = torch.optim.AdamW(named.values(), lr=1e-2, weight_decay=0.0)
    losses = []
    for step in range(STEPS + 1):
        optimiser.zero_grad()
        loss = (edit(h) - target).square().sum()
        loss.backward()
        losses.append(loss.item())
        for name, p in named.items():
            tensors[f"step{step}.{name}"] = p.detach().clone()
            tensors[f"step{step}.grad_{name}"] = p.grad.clone()
        tensors[f"step{step}.R"] = edit.rotate_layer.weight.detach().clone()
        optimiser.step()
    return tensors, losses


def pullback(d: int, r: int, seed: int) -> dict[str, torch.Tensor]:
    """R(X) and its vjp where X is far from its start; what stands above the diagonal must not count."""
    edit, tensors = loreft(d, r, seed, torch.float64)
    x = edit.rotate_layer.parametrizations.weight.original
    with torch.no_grad():
        x.copy_(normal((d, r), seed + 3, 0.6))
        x.diagonal().fill_(-1)
    value = edit.rotate_layer.weight
    grad = normal((d, r), seed + 4).to(value.dtype)
    value.backward(grad)
    return {"any.X": x, "any.R": value, "any.grad_R": grad, "any.grad_X": x.grad}


def record_householder(out) -> None:
    tensors, scalars = {}, {}
    for d, r in SHAPES:
        name, seed = f"d{d}r{r}", 100 * d + r
        exact, losses = trajectory(d, r, seed, torch.float64)
        _, losses32 = trajectory(d, r, seed, torch.float32)
        exact |= pullback(d, r, seed)
        tensors |= {f"{name}.{key}": t.float() for key, t in exact.items()}
        scalars[name] = {"d": d, "r": r, "steps": STEPS, "lr": 1e-2, "weightDecay": 0.0,
                         "losses": losses, "lossesFloat32": losses32}
        print(name, losses[0], losses[-1], max(abs(a - b) / a for a, b in zip(losses, losses32)))
    save_tensors(out / "householder.safetensors", tensors)
    save_json(out / "householder.json", scalars)


ACTIVATIONS = [None, "relu", "gelu", "gelu_new", "silu", "tanh", "sigmoid"]
EDITS = (
    [("LoreftIntervention", {"act_fn": a}) for a in ACTIVATIONS]
    + [("NoreftIntervention", {"act_fn": a, "add_bias": bias}) for a in (None, "relu") for bias in (True, False)]
    + [("ConsreftIntervention", {}), ("LobireftIntervention", {})]
    + [("DireftIntervention", {"act_fn": a}) for a in (None, "relu", "gelu")]
    + [("NodireftIntervention", {"act_fn": a, "add_bias": bias}) for a, bias in
       ((None, True), (None, False), ("relu", True), ("silu", False))]
)


def edit_case(kind: str, options: dict, seed: int) -> dict[str, torch.Tensor]:
    """h → h′ for given weights, and the gradients of Σ h′·g for a given g; R is a leaf here, not R(X)."""
    d, r = 12, 3
    torch.manual_seed(seed)
    edit = getattr(pyreft, kind)(embed_dim=d, low_rank_dimension=r, dtype=torch.float32, dropout=0.0, **options)
    if hasattr(edit, "rotate_layer"):
        parametrize.remove_parametrizations(edit.rotate_layer, "weight")
    with torch.no_grad():
        for i, (name, p) in enumerate(edit.named_parameters()):
            if not name.startswith("rotate_layer"):
                p.copy_(normal(p.shape, seed + 10 + i, 0.7))
    h = normal((2, 3, d), seed + 1).requires_grad_()
    edited = edit(h)
    g = normal(edited.shape, seed + 2)
    edited.backward(g)
    tensors = {"h": h, "output": edited, "grad_output": g, "grad_h": h.grad}
    for name, p in edit.named_parameters():
        # proj_layer.bias drops out of NodiReFT; pyreft allocates it all the same.
        tensors |= {name: p, f"grad.{name}": torch.zeros_like(p) if p.grad is None else p.grad}
    return tensors


def record_edits(out) -> None:
    tensors, cases = {}, []
    for i, (kind, options) in enumerate(EDITS):
        found = edit_case(kind, options, 1000 + 20 * i)
        tensors |= {f"{i}.{name}": t for name, t in found.items()}
        cases.append({"case": i, "intervention": kind, "options": options, "d": 12, "r": 3,
                      "tensors": list(found)})
    save_tensors(out / "edits.safetensors", tensors)
    save_json(out / "edits.json", cases, indent=None)


DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPE_EDITS = [
    ("LoreftIntervention", {}), ("LoreftIntervention", {"act_fn": "relu"}), ("LoreftIntervention", {"act_fn": "silu"}),
    ("NoreftIntervention", {"add_bias": True}), ("NoreftIntervention", {"act_fn": "gelu", "add_bias": False}),
    ("ConsreftIntervention", {}), ("LobireftIntervention", {}),
    ("DireftIntervention", {}), ("DireftIntervention", {"act_fn": "tanh"}),
    ("NodireftIntervention", {"add_bias": False}), ("NodireftIntervention", {"act_fn": "relu", "add_bias": True}),
]


def dtype_case(kind: str, options: dict, dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    """
    An edit of 16 bits, of float32 weights which it rounds itself. `native`: pyreft as it is, on a hidden state of that
    type, the only one that its linear layers take (`h` is rounded to it). `output`: on a float32 hidden state, with the one
    line that DiReFT has for it, a cast of what goes into the linear layer, before every such layer.
    """
    d, r = 12, 3
    torch.manual_seed(seed)
    edit = getattr(pyreft, kind)(embed_dim=d, low_rank_dimension=r, dtype=dtype, dropout=0.0, **options)
    if hasattr(edit, "rotate_layer"):
        parametrize.remove_parametrizations(edit.rotate_layer, "weight")
    tensors = {}
    with torch.no_grad():
        for i, (name, p) in enumerate(edit.named_parameters()):
            value = p.detach().clone() if name.startswith("rotate_layer") else normal(p.shape, seed + 10 + i, 0.7)
            p.copy_(value)
            tensors[name] = value.float()
    h = normal((2, 3, d), seed + 1)
    with torch.no_grad():
        tensors |= {"native": edit(h.to(dtype)).float()}
    for part in (getattr(edit, "learned_source", None), getattr(edit, "proj_layer", None)):
        if isinstance(part, torch.nn.Linear):
            part.register_forward_pre_hook(lambda layer, inputs: inputs[0].to(layer.weight.dtype))
    h.requires_grad_()
    edited = edit(h)
    g = normal(edited.shape, seed + 2)
    edited.backward(g)
    tensors |= {"h": h, "output": edited, "grad_output": g, "grad_h": h.grad}
    for name, p in edit.named_parameters():
        tensors[f"grad.{name}"] = torch.zeros_like(p).float() if p.grad is None else p.grad.float()
    return tensors


def record_dtypes(out) -> None:
    tensors, cases = {}, []
    for dtype_name, dtype in DTYPES.items():
        for i, (kind, options) in enumerate(DTYPE_EDITS):
            case = len(cases)
            found = dtype_case(kind, options, dtype, 3000 + 20 * i)
            tensors |= {f"{case}.{name}": t for name, t in found.items()}
            cases.append({"case": case, "intervention": kind, "dtype": dtype_name, "options": options, "d": 12, "r": 3})
    save_tensors(out / "dtypes.safetensors", tensors)
    save_json(out / "dtypes.json", cases, indent=None)


def main() -> None:
    out = output_folder()
    record_householder(out)
    record_edits(out)
    record_dtypes(out)


if __name__ == "__main__":
    main()
