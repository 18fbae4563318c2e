"""Freezes relevances of LXT 2.1 (AttnLRP, Achtibat et al. 2024) for three transformer blocks.

    python tests/parity/make_lxt.py

Needs torch and LXT (`pip install torch && pip install --no-deps --ignore-requires-python lxt==2.1`), and
this folder's `transformer_weights.py`. LXT's explicit rules carry relevances, not
gradients, so every step is one of its functions. Its stabilizers, which have no sign, are zero here; its
RMSNorm computes in float32, so its identity rule is spelled out.
"""

from __future__ import annotations

import pathlib

import numpy as np
import torch
from lxt.explicit import functional as lf

import transformer_weights as blocks

EPS = 0.0
Weights = dict[str, torch.Tensor]


class Identity(torch.autograd.Function):
    """An activation whose relevance passes through."""

    @staticmethod
    def forward(ctx, x, function):
        return function(x)

    @staticmethod
    def backward(ctx, relevance):
        return relevance, None


def linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return lf.linear_epsilon(x, w[name].T, w.get("b_" + name), EPS)


def add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return lf.add2(a, b, False, EPS)


def layer_norm(w: Weights, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    return lf.layer_norm_grad_fn.apply(x, w[name], w["b_" + name], eps, EPS)


def rms_norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    factor = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6).detach()
    return lf.mul2(lf.mul2(x, factor), w[name])


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(blocks.TOKENS, -1, blocks.SIZE).transpose(0, 1)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    scores = lf.mul2(lf.matmul(q, k.transpose(-1, -2), False, EPS), blocks.SIZE**-0.5)
    scores = scores.masked_fill(
        ~torch.from_numpy(np.broadcast_to(mask, scores.shape).copy()), -torch.inf
    )
    out = lf.matmul(lf.softmax(scores, -1), v, False, EPS)
    return out.transpose(0, 1).reshape(blocks.TOKENS, blocks.WIDTH)


def self_attention(w: Weights, x: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    q, k, v = (heads(linear(w, name, x)) for name in ("q", "k", "v"))
    return linear(w, "o", attention(q, k, v, mask))


def mlp(w: Weights, x: torch.Tensor) -> torch.Tensor:
    return linear(w, "down", Identity.apply(linear(w, "up", x), torch.nn.functional.gelu))


def bert(w: Weights, x: torch.Tensor) -> torch.Tensor:
    x = add(x, self_attention(w, x, blocks.MASKS["bert"]))
    x = layer_norm(w, "norm1", x, 1e-12)
    return layer_norm(w, "norm2", add(x, mlp(w, x)), 1e-12)


def rotate(x: torch.Tensor) -> torch.Tensor:
    cos, sin = (torch.from_numpy(a) for a in blocks.rotation())
    a, b = x.chunk(2, dim=-1)
    turned = torch.cat([lf.mul2(b, -1.0), a], dim=-1)
    return add(lf.mul2(x, cos), lf.mul2(turned, sin))


def llama(w: Weights, x: torch.Tensor) -> torch.Tensor:
    h = rms_norm(w, "norm1", x)
    q, k = (rotate(heads(linear(w, name, h))) for name in ("q", "k"))
    v = heads(linear(w, "v", h))
    k, v = (a.repeat_interleave(blocks.HEADS // blocks.KEY_HEADS, dim=0) for a in (k, v))
    x = add(x, linear(w, "o", attention(q, k, v, blocks.MASKS["llama"])))
    h = rms_norm(w, "norm2", x)
    gate = Identity.apply(linear(w, "gate", h), torch.nn.functional.silu)
    return add(x, linear(w, "down", lf.mul2(gate, linear(w, "up", h))))


def vit(w: Weights, x: torch.Tensor) -> torch.Tensor:
    h = layer_norm(w, "norm1", x, 1e-6)
    x = add(x, self_attention(w, h, blocks.MASKS["vit"]))
    x = add(x, mlp(w, layer_norm(w, "norm2", x, 1e-6)))
    return linear(w, "head", x[0])


def main() -> None:
    frozen = {}
    for name, block in {"bert": bert, "llama": llama, "vit": vit}.items():
        w = {key: torch.from_numpy(value) for key, value in blocks.weights(name).items()}
        x, relevance = (torch.from_numpy(a) for a in blocks.inputs(name))
        out = block(w, x.requires_grad_())
        out.backward(relevance)
        frozen[f"{name}/output"] = out.detach().numpy()
        frozen[f"{name}/relevance"] = x.grad.numpy()
        print(name, out.sum().item(), x.grad.sum().item(), relevance.sum().item())
    np.savez_compressed(pathlib.Path(__file__).parent / "lxt.npz", **frozen)


if __name__ == "__main__":
    main()
