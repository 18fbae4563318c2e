"""What to do about an operation that has no rule."""

from __future__ import annotations

from jaxlrp.errors import UnsupportedError, where
from jaxlrp.network import primitives as P
from jaxlrp.network.layers import Layer


def unsupported(layer: Layer) -> UnsupportedError:
    """The error for a layer without a rule: what it is, where, and what to write instead."""
    return UnsupportedError(
        f"jaxlrp does not know how to explain `{layer.name}` {where(layer.path, layer.source)}. "
        f"{_hint(layer)}{_advice(layer)}"
    )


def _advice(layer: Layer) -> str:
    """Which rules the user can give to an operation that has none."""
    (op,) = layer.ops
    if op.primitive in P.WITHOUT_GRADIENT or layer.name.startswith(_OPAQUE):
        return "No rule can be given to it: explain the function before it or after it"
    gradient = f"composites.by_operation({layer.name!r}, lrp.rules.Gradient())"
    if len(op.outputs) > 1:
        return f"To take its gradient, put {gradient} before your composite with `+`"
    return (
        f"Give it a rule, for example composites.by_operation({layer.name!r}, "
        f"lrp.rules.Custom(function)) with function(layer, x, R) -> R_in, or {gradient} to take its "
        "gradient, and put it before your composite with `+`"
    )


def _hint(layer: Layer) -> str:
    """What to write instead of an operation that has no rule, where that is known."""
    if why := P.REFUSED.get(layer.ops[0].primitive):
        return f"{why} "
    if layer.name.startswith("call_exported"):
        return "It is an exported function, which hides its operations: explain the original function. "
    if layer.name.startswith(_KERNELS):
        return (
            "It is a kernel, and a trace does not show its operations: while you explain, choose an "
            "implementation in JAX operations, such as `jax.nn.dot_product_attention(..., "
            "implementation='xla')` or `flax.linen.dot_product_attention`. "
        )
    return ""


# Beginnings of names, for a hint in a message alone: these primitives have no public object.
_KERNELS = (
    "pallas_call", "triton_kernel_call", "tpu_custom_call", "ffi_call", "dot_product_attention",
    "pure_callback", "io_callback",
)  # fmt: skip


# Of these JAX has no derivative.
_OPAQUE = ("pure_callback", "io_callback", "call_exported")
