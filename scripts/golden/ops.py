"""Every op of src/ops: its value and its gradients by torch, on shapes small enough to read."""

import math

import torch
import torch.nn.functional as F

from common import array, normal, output_folder, save_json

DTYPES = {torch.float32: "float32", torch.int64: "int64", torch.bool: "bool"}


def positive(shape, seed: int) -> torch.Tensor:
    return normal(shape, seed).abs() + 0.3


def ids(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def rms_norm(x, w, epsilon):
    return w * x / torch.sqrt(x.square().mean(-1, keepdim=True) + epsilon)


def scatter_rows(x, indices, updates):
    return x.index_put((indices,), updates)


def scatter_add(indices, updates, rows):
    tail = updates.shape[indices.dim():]
    return updates.new_zeros(rows, *tail).index_put((indices,), updates, accumulate=True)


def rotary(x, cos, sin):
    """The two halves of the last axis turned by the same angles: cos and sin hold half of it."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


ROUNDED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
UNARY = {
    "neg": torch.neg, "exp": torch.exp, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "erf": torch.erf,
    "relu": torch.relu, "cos": torch.cos, "sin": torch.sin, "abs": torch.abs, "sign": torch.sign,
    "silu": F.silu, "gelu": F.gelu, "geluTanh": lambda x: F.gelu(x, approximate="tanh"),
}
BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}
BROADCASTS = [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1, 3), (4, 1)), ((), (2, 3)), ((3, 1), (1, 4))]


def cases():
    """(op, attributes, inputs, the same in torch)."""
    for name, f in UNARY.items():
        yield name, {}, [normal((3, 5), 1, 1.5)], f
        # Where tails saturate and where zero is.
        yield name, {}, [torch.tensor([-9.0, -4.0, -0.5, 0.25, 3.0, 8.0])], f
    for name, f in {"log": torch.log, "sqrt": torch.sqrt}.items():
        yield name, {}, [positive((3, 5), 2)], f
        yield name, {}, [torch.tensor([1e-6, 1.0, 1e5])], f
    for name, f in BINARY.items():
        for i, (a, b) in enumerate(BROADCASTS):
            yield name, {}, [normal(a, 3 + i), positive(b, 13 + i)], f
    for a, b in BROADCASTS[:3]:
        yield "pow", {}, [positive(a, 23), normal(b, 24)], torch.pow
    for name, f in {"reduceSum": torch.sum, "reduceMean": torch.mean, "reduceMax": torch.amax}.items():
        for shape, axes in (((2, 3, 4), [-1]), ((2, 3, 4), [0, 2]), ((2, 3, 4), [1]), ((5,), [0])):
            for keep in (False, True):
                yield (name, {"axes": axes, "keepDims": keep}, [normal(shape, 30)],
                       lambda x, f=f, axes=axes, keep=keep: f(x, dim=axes, keepdim=keep))
    yield ("reduceMax", {"axes": [-1]}, [torch.tensor([[2.0, 5.0, 5.0], [1.0, 0.0, -1.0]])],
           lambda x: x.amax(-1))  # equal maxima
    for a, b in (((2, 3), (3, 4)), ((2, 2, 3), (2, 3, 4)), ((2, 1, 2, 3), (3, 3, 2)), ((3, 2, 4), (4, 2))):
        yield "matMul", {}, [normal(a, 40), normal(b, 41)], torch.matmul
    for ta in (False, True):
        for tb in (False, True):
            for bias in (False, True):
                inputs = [normal((4, 3) if ta else (3, 4), 42), normal((5, 4) if tb else (4, 5), 43)]
                yield ("gemm", {"transA": ta, "transB": tb}, inputs + [normal((5,), 44)] * bias,
                       lambda a, b, c=0.0, ta=ta, tb=tb: (a.T if ta else a) @ (b.T if tb else b) + c)
    for axes in ([0, 2, 1, 3], [3, 1, 0, 2]):
        yield "transpose", {"axes": axes}, [normal((2, 3, 2, 4), 50)], lambda x, axes=axes: x.permute(axes)
    for shape in ([6, 4], [2, 3, 2, 2], [24]):
        yield "reshape", {"shape": shape}, [normal((2, 3, 4), 51)], lambda x, shape=shape: x.reshape(shape)
    for start, shape in (((3,), [2, 3]), ((2, 1, 3), [2, 4, 3]), ((), [2, 2]), ((1, 3), [4, 2, 3])):
        yield "expand", {"shape": shape}, [normal(start, 52)], lambda x, shape=shape: x.expand(shape)
    yield ("concat", {"axis": 1}, [normal((2, n, 3), 53 + n) for n in (1, 2, 3)],
           lambda *xs: torch.cat(xs, 1))
    yield "concat", {"axis": 0}, [normal((n, 3), 56 + n) for n in (2, 1)], lambda *xs: torch.cat(xs, 0)
    for axis, start, end in ((1, 1, 3), (0, 0, 1), (2, 2, 5)):
        yield ("slice", {"axis": axis, "start": start, "end": end}, [normal((2, 4, 5), 58)],
               lambda x, axis=axis, start=start, end=end: x.narrow(axis, start, end - start))
    yield "gather", {}, [normal((5, 3), 60), ids(4, 0, 4, 2)], lambda x, i: x[i]
    yield "gather", {"unique": True}, [normal((5, 3), 60), ids(4, 0, 2)], lambda x, i: x[i]
    yield "gather", {}, [normal((5, 3), 61), torch.tensor([[1, 1, 0], [3, 1, 4]])], lambda x, i: x[i]
    yield "scatterRows", {}, [normal((5, 3), 62), ids(4, 1), normal((2, 3), 63)], scatter_rows
    yield "scatterRows", {}, [normal((4, 2, 3), 64), ids(0, 3, 2), normal((3, 2, 3), 65)], scatter_rows
    yield ("scatterAdd", {"rows": 5, "unique": False}, [ids(4, 1, 4), normal((3, 2), 66)],
           lambda i, u: scatter_add(i, u, 5))
    yield ("scatterAdd", {"rows": 5, "unique": True}, [ids(4, 1, 0), normal((3, 2), 66)],
           lambda i, u: scatter_add(i, u, 5))
    yield ("scatterAdd", {"rows": 4, "unique": False}, [torch.tensor([[1, 1], [3, 0]]), normal((2, 2, 3), 67)],
           lambda i, u: scatter_add(i, u, 4))
    for shape in ((3, 5), (2, 2, 4)):
        yield "softmax", {}, [normal(shape, 70, 2.0)], lambda x: x.softmax(-1)
        yield "logSumExp", {}, [normal(shape, 71, 2.0)], lambda x: x.logsumexp(-1, keepdim=True)
        for epsilon in (1e-6, 0.1):
            w, b = 1 + normal(shape[-1:], 72, 0.3), normal(shape[-1:], 73)
            yield ("rmsNormalization", {"epsilon": epsilon}, [normal(shape, 74), w],
                   lambda x, w, e=epsilon: rms_norm(x, w, e))
            yield ("layerNormalization", {"epsilon": epsilon}, [normal(shape, 74), w, b],
                   lambda x, w, b, e=epsilon: F.layer_norm(x, x.shape[-1:], w, b, e))
    # Masked scores, and numbers whose exponentials overflow.
    extreme = torch.tensor([[-3.4028234663852886e38, 1.0, 2.0], [200.0, 201.0, 90.0]])
    yield "softmax", {}, [extreme], lambda x: x.softmax(-1)
    yield "logSumExp", {}, [extreme], lambda x: x.logsumexp(-1, keepdim=True)
    for v in (5, 1):
        yield ("logSumExpOfProduct", {}, [normal((3, 4), 75, 2.0), normal((v, 4), 76)],
               lambda h, e: (h @ e.T).logsumexp(-1, keepdim=True))
    condition = normal((2, 3), 80) > 0
    yield "where", {}, [condition, normal((2, 3), 81), normal((2, 3), 82)], torch.where
    yield "where", {}, [condition, normal((4, 1, 3), 83), normal((), 84)], torch.where
    yield "lessOrEqual", {}, [torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0], [3.0]])], torch.le
    yield "lessOrEqual", {}, [ids(1, 2, 3), ids(3, 2, 1)], torch.le
    yield "and", {}, [torch.tensor([[True, False]]), torch.tensor([[True], [False]])], torch.logical_and
    yield "cast", {"to": "float32"}, [ids(-2, 0, 7)], lambda x: x.float()
    yield "cast", {"to": "float32"}, [torch.tensor([True, False])], lambda x: x.float()
    yield "cast", {"to": "int64"}, [torch.tensor([-2.7, 0.4, 7.9])], lambda x: x.long()
    yield "cast", {"to": "float32"}, [normal((2, 2), 85)], lambda x: x * 1
    angles = normal((3, 4), 90, math.pi)
    angles = angles[:, None].expand(2, 3, 1, 4)
    yield "rotary", {}, [normal((2, 3, 2, 8), 91), angles.cos(), angles.sin()], rotary
    for i, (to, dtype) in enumerate(ROUNDED.items()):
        yield "roundTo", {"to": to}, [normal((4, 5), 88 + i)], lambda x, dtype=dtype: x.to(dtype).float()
        # Ties, which go to the even neighbour, and float16's smallest and largest numbers.
        ties = torch.tensor([1.00390625, 1.01171875, 1.00048828125, 1.00146484375, 2.0**-24, 2.0**-25, -65519.0])
        yield "roundTo", {"to": to}, [ties], lambda x, dtype=dtype: x.to(dtype).float()


# The angles of a rotation are never trained: no gradient is asked of cos and sin.
CONSTANT_INPUTS = {"rotary": {1, 2}}


def typed(t: torch.Tensor) -> dict:
    return {"dtype": DTYPES[t.dtype]} | array(t.long() if t.dtype == torch.bool else t)


def record(index: int, op: str, attributes: dict, inputs: list[torch.Tensor], f) -> dict:
    constant = CONSTANT_INPUTS.get(op, set())
    leaves = [t.clone().requires_grad_(t.dtype == torch.float32 and i not in constant)
              for i, t in enumerate(inputs)]
    y = f(*leaves)
    row = {"op": op, "attrs": attributes, "inputs": [typed(t) for t in inputs], "output": typed(y)}
    if not y.requires_grad:
        return row | {"outputGradient": None, "inputGradients": [None] * len(inputs)}
    g = normal(y.shape, 9000 + index)
    if op == "roundTo":
        # torch's casts round the gradient on its way back as well; ours pass it on as it is. These come through both.
        g = g.to(ROUNDED[attributes["to"]]).float()
    y.backward(g)
    return row | {"outputGradient": array(g),
                  "inputGradients": [None if t.grad is None else array(t.grad) for t in leaves]}


def main() -> None:
    out = output_folder()
    rows = [record(i, *case) for i, case in enumerate(cases())]
    save_json(out / "ops.json", rows, indent=None)
    print(len(rows), "cases of", len({row["op"] for row in rows}), "ops")


if __name__ == "__main__":
    main()
