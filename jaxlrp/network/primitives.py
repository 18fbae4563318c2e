"""What the library knows about each primitive, keyed by primitive *object*.

A primitive in none of these tables is unknown: on the path from the explained input to the output
it is an error unless the composite names a rule for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from jaxlrp._compat import Primitive, primitive, primitives

# Calls whose body is inlined: the layers inside are layers of the caller.
COMPOSITE = primitive("composite")
CALLS = primitives(
    "jit", "closed_call", "call", "custom_jvp_call", "custom_vjp_call", "custom_vmap", "composite"
)

# Those with a derivative of their own, which counts for rules that take the gradient alone.
DECLARED = primitives("custom_jvp_call", "custom_vjp_call")

# Control flow and rematerialization: the body is interpreted and the primitive emitted again.
SCAN = primitive("scan")
COND = primitive("cond")
REMAT = primitive("remat")
SHARD_MAP = primitive("shard_map")
WHILE = primitive("while")
BODIES = frozenset({SCAN, COND, REMAT, SHARD_MAP})

# Between the devices of a `shard_map`; all but the maxima are linear.
VARY = primitives("pvary", "reduced_vary_cast")  # the value itself, under another type
PSUM = primitives("psum", "psum_invariant")
REDUCE_SCATTER = primitive("reduce_scatter")
COLLECTIVES = PSUM | VARY | {REDUCE_SCATTER} | primitives(
    "all_gather", "all_gather_invariant", "all_to_all", "ppermute", "pbroadcast",
)  # fmt: skip

ADD = primitives("add", "add_jaxvals")
SUB = primitive("sub")
MUL = primitive("mul")
DIV = primitive("div")
NEG = primitive("neg")
CONVERT = primitive("convert_element_type")
COPY = primitive("copy")
NAME = primitive("name")
PLACED = primitives("reshard", "sharding_constraint", "layout_constraint")
SELECT = primitive("select_n")
RESHAPE = primitive("reshape")
TRANSPOSE = primitive("transpose")
SQUEEZE = primitive("squeeze")
BROADCAST = primitive("broadcast_in_dim")
DOT = primitive("dot_general")
CONV = primitive("conv_general_dilated")
RAGGED_DOT = primitive("ragged_dot_general")
GATHER = primitive("gather")
DYNAMIC_SLICE = primitive("dynamic_slice")
DYNAMIC_UPDATE = primitive("dynamic_update_slice")
SORT = primitive("sort")
TOP_K = primitives("top_k", "approx_top_k")
SCATTER = primitives("scatter", "scatter_add", "scatter_sub")
SCATTER_MUL = primitive("scatter_mul")
STOP_GRADIENT = primitive("stop_gradient")
REDUCE_SUM = primitive("reduce_sum")
WINDOW_SUM = primitive("reduce_window_sum")
EXP = primitive("exp")
LOG = primitive("log")
RSQRT = primitive("rsqrt")
SQRT = primitive("sqrt")
POW = primitive("pow")
INTEGER_POW = primitive("integer_pow")
MAX = primitive("max")
MIN = primitive("min")
ABS = primitive("abs")
CLAMP = primitive("clamp")
CUMSUM = primitive("cumsum")
PAD = primitive("pad")
CUMPROD = primitive("cumprod")
REDUCE_PROD = primitive("reduce_prod")
CONCATENATE = primitive("concatenate")

# The value itself, in another dtype or elsewhere on the devices, or with a name for `jax.checkpoint`.
SAME = frozenset({CONVERT, COPY, NAME}) | PLACED

# Rearrange values without computing any: one factor, one value in, the same value out.
SHAPE = frozenset({RESHAPE, TRANSPOSE, SQUEEZE}) | SAME

# Linear in all of their inexact operands together: autodiff is LRP-0 and exact.
STRUCTURAL = (
    frozenset({SUB, NEG, REDUCE_SUM, WINDOW_SUM, SELECT, BROADCAST, GATHER, CUMSUM, PAD})
    | frozenset({CONCATENATE})
    | ADD
    | SHAPE
    | SCATTER
    | COLLECTIVES
    | primitives(
        "slice", "dynamic_slice", "dynamic_update_slice", "rev", "split", "stack", "unstack",
        "tile", "fft", "real", "imag", "complex", "conj", "optimization_barrier",
        "device_put", "sort", "top_k", "approx_top_k", "reduce_precision", "name", "stop_gradient",
    )
)  # fmt: skip

# Linear in each operand separately.
BILINEAR = frozenset({MUL, DOT, CONV, RAGGED_DOT})

# Those that make a layer with a kernel, where one operand depends on the input.
LAYERS = frozenset({DOT, CONV, RAGGED_DOT})

# Linear in some operands, where no other depends on the input; see `linear_operands`.
LINEAR_SOLVE = primitive("linear_solve")
TRIANGULAR_SOLVE = primitive("triangular_solve")
TRIDIAGONAL_SOLVE = primitive("tridiagonal_solve")
PARTLY_LINEAR = frozenset({SCATTER_MUL, LINEAR_SOLVE, TRIANGULAR_SOLVE, TRIDIAGONAL_SOLVE})

# Products of all values along an axis.
PRODUCTS = frozenset({CUMPROD, REDUCE_PROD})

# Logarithms of sums of exponentials: with the softmax, a unit that autodiff treats as a whole.
LOGSUMEXP = primitives("cumlogsumexp")

# Choose one of their operands' values.
SCATTER_MAXIMA = primitives("scatter_max", "scatter_min")
CUMULATIVE_MAXIMA = primitives("cummax", "cummin")
MAXIMA = (
    SCATTER_MAXIMA
    | CUMULATIVE_MAXIMA
    | primitives("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min")
)
MINIMA = primitives("min", "scatter_min", "cummin", "reduce_min", "reduce_window_min")

# Elementwise and nonlinear functions, by the range of their values. They are explained as part of a
# region with a single source.
Range = tuple[float, float]
ANY: Range = (-math.inf, math.inf)
POSITIVE: Range = (0.0, math.inf)
_COSTLY: dict[Range, tuple[str, ...]] = {
    POSITIVE: ("exp", "exp2", "sqrt", "rsqrt"),
    (0.0, 1.0): ("logistic",),
    (0.0, 2.0): ("erfc",),
    (-1.0, 1.0): ("tanh", "erf", "sin", "cos"),
    ANY: (
        "log", "pow", "erf_inv", "log1p", "expm1", "log2", "tan", "asin", "acos", "atan", "sinh", "cosh",
        "asinh", "acosh", "atanh", "floor", "ceil", "round", "one_minus_square", "polynomial", "cbrt",
        "atan2", "nextafter", "rem", "lgamma", "digamma", "is_finite", "bessel_i0e", "bessel_i1e",
        "eq_to", "le_to", "lt_to", "igamma", "igammac", "igamma_grad_a", "polygamma", "zeta",
        "regularized_incomplete_beta",
    ),
}  # fmt: skip
# Those that cost a comparison or a product: they are computed again rather than stored.
_CHEAP: dict[Range, tuple[str, ...]] = {
    POSITIVE: ("abs", "square"),
    ANY: (
        "integer_pow", "max", "min", "clamp", "sign", "eq", "ne", "lt", "le", "gt", "ge", "not", "and",
        "or", "xor",
    ),
}  # fmt: skip
RANGES: Mapping[Primitive, Range] = {
    p: bounds
    for table in (_COSTLY, _CHEAP)
    for bounds, names in table.items()
    for p in primitives(*names)
}
NONLINEAR = frozenset(RANGES)

# Move values: each of the result's is one of the first operand's.
MOVES = SHAPE | {BROADCAST, GATHER, DYNAMIC_SLICE} | primitives(
    "slice", "rev", "split", "unstack", "tile", "name", "reduce_precision", "copy",
    "sharding_constraint", "optimization_barrier", "device_put", "reshard",
)  # fmt: skip

# With an index or a predicate made of the input, and constants for the rest, these look something up.
LOOKUPS = SCATTER | {GATHER, DYNAMIC_SLICE, DYNAMIC_UPDATE, SELECT}

# Round to whole numbers.
ROUNDING = primitives("round", "floor", "ceil")

# Truth values from numbers: what is compared carries no relevance further.
TESTS = primitives("eq", "ne", "lt", "le", "gt", "ge", "is_finite", "eq_to", "le_to", "lt_to")
EQUALITIES = primitives("eq", "ne", "eq_to")

# Elementwise and of truth values: a use of them selects, and carries no relevance.
COMPARISONS = primitives(
    "eq", "ne", "lt", "le", "gt", "ge", "not", "and", "or", "xor", "is_finite",
    "eq_to", "le_to", "lt_to",
)  # fmt: skip

# Elementwise functions of integers, besides those above: the arithmetic of hashes and of packed codes.
BITS = primitives(
    "clz", "population_count", "mulhi", "shift_left", "shift_right_arithmetic", "shift_right_logical",
)  # fmt: skip

# Elementwise and affine where at most one operand depends on the input.
AFFINE = frozenset({SUB, MUL, DIV, NEG, SELECT}) | ADD | SAME

ELEMENTWISE = NONLINEAR | AFFINE | BITS

# Cheap enough to compute again rather than to store.
CHEAP = AFFINE | primitives(*(name for names in _CHEAP.values() for name in names))

# Random numbers: a select by one of them is dropout in training mode.
RANDOM = primitives(
    "random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform", "random_seed",
    "random_split", "random_fold_in", "random_gamma",
)  # fmt: skip

# Results without relevance: positions, booleans, and what is made from no value at all.
CONSTANTS = primitives(
    "argmax", "argmin", "reduce_and", "reduce_or", "reduce_xor", "bitcast_convert_type", "iota",
    "axis_index", "empty2", "create_token", "after_all", "platform_index",
)  # fmt: skip

KNOWN = (
    STRUCTURAL | BILINEAR | PARTLY_LINEAR | PRODUCTS | LOGSUMEXP | MAXIMA | ELEMENTWISE | CALLS | BODIES
)  # fmt: skip

# Exported by JAX, but without a rule; the reason is part of the error message.
_REFUSED = {
    "A loop without a fixed number of iterations cannot be differentiated: use `lax.scan` or a "
    "`lax.fori_loop` with constant bounds.": ("while",),
    "A decomposition of a matrix that depends on the input has no rule.": (
        "cholesky", "eig", "eigh", "hessenberg", "householder_product", "lu", "qr", "schur", "svd",
        "tridiagonal",
    ),
    "A maximum over devices has no derivative in JAX: apply it to `lax.stop_gradient(x)`, or gather "
    "the values and take their maximum.": ("pmax", "pmin"),
    "Which device gets which value depends on the input.": ("ragged_all_to_all",),
    "It reduces with a custom function.": ("reduce", "reduce_window"),
    "It belongs to the derivative of a maximum over windows: explain the function, not its "
    "derivative.": ("select_and_gather_add", "select_and_scatter", "select_and_scatter_add"),
    "It reads or writes a mutable array: write a function of values.": ("get", "swap"),
    "It is internal to JAX's derivatives: explain the function, not its derivative.": (
        "custom_lin", "dce_sink", "stage",
    ),
}  # fmt: skip
REFUSED = {p: why for why, names in _REFUSED.items() for p in primitives(*names)}

# Those without a derivative in JAX.
WITHOUT_GRADIENT = primitives("while", "pmax", "pmin", "get", "swap")

# How each primitive is treated: each one that JAX exports is in exactly one of these tables.
FATES = {
    "inlined": CALLS,
    "interpreted": BODIES,
    "linear": STRUCTURAL,
    "bilinear": BILINEAR | {DIV},
    "partly linear": PARTLY_LINEAR,
    "product": PRODUCTS,
    "softmax": LOGSUMEXP,
    "maximum": MAXIMA,
    "elementwise": NONLINEAR,
    "integer": BITS,
    "constant": CONSTANTS,
    "random": RANDOM,
    "refused": frozenset(REFUSED),
}


def linear_operands(primitive: Primitive, params: Mapping[str, Any], count: int) -> Iterable[int]:
    """Which of its operands a partly linear primitive is linear in, where no other is dependent."""
    if primitive is SCATTER_MUL:
        return (0, 2) if params["unique_indices"] else (0,)
    if primitive is LINEAR_SOLVE:
        return range(sum(params["const_lengths"]), count)
    return (1,) if primitive is TRIANGULAR_SOLVE else (3,)
