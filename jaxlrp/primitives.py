"""What is known of each primitive, keyed by primitive *object*.

A primitive in none of these tables is unknown: on the path from the explained input to the output
it is an error unless the composite names a rule for it.
"""

from __future__ import annotations

from jaxlrp._compat import primitive, primitives

# Calls whose body is inlined: the layers inside are layers of the caller.
CALLS = primitives("jit", "closed_call", "call", "custom_jvp_call", "custom_vjp_call")

# Control flow and rematerialisation: the body is interpreted and the primitive emitted again.
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
SELECT = primitive("select_n")
RESHAPE = primitive("reshape")
TRANSPOSE = primitive("transpose")
SQUEEZE = primitive("squeeze")
BROADCAST = primitive("broadcast_in_dim")
DOT = primitive("dot_general")
CONV = primitive("conv_general_dilated")
GATHER = primitive("gather")
SCATTER = primitives("scatter", "scatter_add")
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
CLAMP = primitive("clamp")
CUMSUM = primitive("cumsum")
PAD = primitive("pad")
CONCATENATE = primitive("concatenate")

# Rearrange values without computing any: one factor, one value in, the same value out.
SHAPE = frozenset({RESHAPE, TRANSPOSE, SQUEEZE, CONVERT, COPY})

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
        "tile", "fft", "real", "imag", "complex", "conj", "sharding_constraint",
        "optimization_barrier", "device_put", "sort", "top_k",
        "reduce_precision", "name", "stop_gradient",
    )
)  # fmt: skip

# Linear in each operand apart.
BILINEAR = frozenset({MUL, DOT, CONV})

# Choose one of their operands' values.
SCATTER_MAXIMA = primitives("scatter_max", "scatter_min")
MAXIMA = SCATTER_MAXIMA | primitives(
    "reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min"
)

# Elementwise and nonlinear: explained as part of a region with a single source.
NONLINEAR = frozenset({EXP, LOG, RSQRT, SQRT, POW, INTEGER_POW, MAX, MIN, CLAMP}) | primitives(
    "tanh", "logistic", "erf", "erfc", "erf_inv", "log1p", "expm1", "exp2", "log2", "sin", "cos",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "abs", "sign",
    "floor", "ceil", "round", "square", "one_minus_square", "polynomial", "cbrt", "atan2",
    "nextafter", "rem", "lgamma", "digamma", "is_finite", "bessel_i0e", "bessel_i1e",
    "eq", "ne", "lt", "le", "gt", "ge", "not", "and", "or", "xor",
)  # fmt: skip

# Elementwise and of truth values: a use of them selects, and carries no relevance.
COMPARISONS = primitives("eq", "ne", "lt", "le", "gt", "ge", "not", "and", "or", "xor", "is_finite")

# Elementwise and affine where at most one operand depends on the input.
AFFINE = frozenset({SUB, MUL, DIV, NEG, CONVERT, COPY, SELECT}) | ADD

ELEMENTWISE = NONLINEAR | AFFINE

# Nonlinear functions that cost a comparison or a product: recomputed rather than stored.
CHEAP = frozenset({MAX, MIN, CLAMP, INTEGER_POW}) | AFFINE | primitives(
    "abs", "sign", "square", "eq", "ne", "lt", "le", "gt", "ge", "not", "and", "or", "xor",
)  # fmt: skip

# Random numbers: a select by one of them is dropout in training mode.
RANDOM = primitives("random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform")

KNOWN = STRUCTURAL | BILINEAR | MAXIMA | ELEMENTWISE | CALLS | BODIES
