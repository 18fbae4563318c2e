"""LXT's side of `against_lxt.py`: runs in a Python that has torch, transformers and lxt, and no JAX.

python _lxt_worker.py case.npz result.npz

Reads from the first file "config" (JSON: the size of the model, whether it takes pictures, the class
to explain, how many threads), "x" and the parameters of `transformer_models.Encoder` by path. Writes
output and relevance of each method. Then, for each line with a method's name on standard input, runs
that method and writes its seconds, by the clock and of the CPU, on standard output, so that the
caller can take turns.
"""

from __future__ import annotations

import json
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers  # noqa: F401  # before torchvision's stub, which it would look for
from torch import Tensor
from torch.nn import functional as F

from _torchvision_stub import stub_torchvision

stub_torchvision()

from lxt.efficient.patches import layer_norm_forward  # noqa: E402
from lxt.efficient.rules import divide_gradient, identity_rule_implicit  # noqa: E402
from lxt.explicit import functional as explicit  # noqa: E402

Weights = dict[str, Tensor]


class Plain:
    """The model itself, for its gradient."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    def norm(self, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, scale.shape, scale, bias, 1e-6)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class Efficient(Plain):
    """LXT's efficient mode: a gradient, bent where its patches bend it; relevance is input x gradient."""

    def norm(self, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        layer = types.SimpleNamespace(eps=1e-6, weight=scale, bias=bias)
        return layer_norm_forward(layer, x)

    def gelu(self, x: Tensor) -> Tensor:
        return identity_rule_implicit(F.gelu, x)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = divide_gradient(q, 4), divide_gradient(k, 4), divide_gradient(v, 2)
        return F.scaled_dot_product_attention(q, k, v)


class Identity(torch.autograd.Function):
    """An activation that passes relevance on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.gelu(x)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> Tensor:  # pyright: ignore
        return relevance


class Explicit(Plain):
    """LXT's explicit rules, of which each carries relevance."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return explicit.linear_epsilon(x, weight, bias)

    def norm(self, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return explicit.layer_norm(x, scale, bias, 1e-6)

    def gelu(self, x: Tensor) -> Tensor:
        return Identity.apply(x)  # pyright: ignore

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return explicit.add2(a, b)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = explicit.matmul(q, k.transpose(-1, -2))
        scores = explicit.mul2(scores, q.shape[-1] ** -0.5)
        return explicit.matmul(explicit.softmax(scores, -1), v)


def convert(path: str, array: np.ndarray) -> Tensor:
    """A parameter in torch's layout: kernels (out, in)."""
    if path.endswith("kernel"):
        if "patches" in path:
            array = array.reshape(-1, array.shape[-1]).T  # (height, width, channels, features)
        elif "Attention" in path and "/o/" not in path:
            array = array.reshape(array.shape[0], -1).T  # (features, heads, size)
        elif "Attention" in path:
            array = array.reshape(-1, array.shape[-1]).T  # (heads, size, features)
        else:
            array = array.T
    elif "Attention" in path:
        array = array.reshape(-1)
    return torch.from_numpy(np.ascontiguousarray(array))


class Encoder:
    """The twin of `transformer_models.Encoder`."""

    def __init__(self, weights: Weights, size: dict[str, int], pictures: bool) -> None:
        self.weights, self.size, self.pictures = weights, size, pictures

    def pair(self, name: str) -> tuple[Tensor, Tensor]:
        kernel = "scale" if "Norm" in name else "kernel"
        return self.weights[f"{name}/{kernel}"], self.weights[f"{name}/bias"]

    def attention(self, ops: Plain, name: str, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        heads = self.size["heads"]
        q, k, v = (
            ops.linear(x, *self.pair(f"{name}/{n}")).reshape(b, t, heads, -1).transpose(1, 2)
            for n in "qkv"
        )
        out = ops.attend(q, k, v).transpose(1, 2).reshape(b, t, -1)
        return ops.linear(out, *self.pair(f"{name}/o"))

    def block(self, ops: Plain, name: str, x: Tensor) -> Tensor:
        def attend(x: Tensor) -> Tensor:
            return self.attention(ops, f"{name}/Attention_0", x)

        def mlp(x: Tensor) -> Tensor:
            h = ops.gelu(ops.linear(x, *self.pair(f"{name}/up")))
            return ops.linear(h, *self.pair(f"{name}/down"))

        for i, step in enumerate((attend, mlp)):
            norm = self.pair(f"{name}/LayerNorm_{i}")
            x = (
                ops.add(x, step(ops.norm(x, *norm)))
                if self.pictures
                else ops.norm(ops.add(x, step(x)), *norm)
            )
        return x

    def embed(self, ops: Plain, x: Tensor) -> Tensor:
        """Pictures as tokens: a dense layer of each patch, the class token in front."""
        b, height, width, _ = x.shape
        patches = x.reshape(b, height // 16, 16, width // 16, 16, 3).transpose(2, 3)
        x = ops.linear(patches.reshape(b, -1, 16 * 16 * 3), *self.pair("patches"))
        return torch.cat([self.weights["class"].expand(b, -1, -1), x], dim=1)

    def __call__(self, ops: Plain, x: Tensor) -> Tensor:
        x = self.embed(ops, x) if self.pictures else x
        x = ops.add(x, self.weights["positions"].expand_as(x))
        for i in range(self.size["layers"]):
            x = self.block(ops, f"Block_{i}", x)
        return ops.linear(ops.norm(x[:, 0], *self.pair("LayerNorm_0")), *self.pair("Dense_0"))


def methods(
    model: Encoder, x: Tensor, target: int
) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    """Method -> () -> (output, gradient or relevance of x)."""

    def run(ops: Plain) -> tuple[Tensor, Tensor]:
        given = x.clone().requires_grad_()
        out = model(ops, given)
        start = torch.zeros_like(out)
        start[:, target] = out[:, target].detach() if isinstance(ops, Explicit) else 1.0
        (g,) = torch.autograd.grad(out, given, start)
        return out.detach(), g * x if isinstance(ops, Efficient) else g

    found = {"gradient": Plain(), "efficient": Efficient(), "explicit": Explicit()}
    return {name: lambda ops=ops: run(ops) for name, ops in found.items()}


def main() -> None:
    source, destination = sys.argv[1:]
    with np.load(source) as file:
        config = json.loads(str(file["config"]))
        x = torch.from_numpy(file["x"])
        prefix = "params/"
        weights = {
            path[len(prefix) :]: convert(path, file[path])
            for path in file.files
            if path.startswith(prefix)
        }
    torch.set_num_threads(config["threads"])
    model = Encoder(weights, config["size"], config["pictures"])
    found = methods(model, x, config["target"])
    results: dict[str, np.ndarray] = {"torch": np.array(torch.__version__)}
    for name, call in found.items():
        output, relevance = call()
        results |= {f"output/{name}": output.numpy(), f"relevance/{name}": relevance.numpy()}
    np.savez(destination, **results)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter(), time.process_time()
        found[line.strip()]()
        print(time.perf_counter() - start[0], time.process_time() - start[1], flush=True)


if __name__ == "__main__":
    main()
