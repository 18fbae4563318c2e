"""Explanation methods to compare LRP with: the same call, the same result.

Each is called as `lrp.explain` is, `method(fun, **options)(*args, target=..., **kwargs)`, and gives
an `lrp.Explanation`. They need `fun` and its derivative alone, no layers and no rules, but for
`grad_cam`, which looks at one layer. What is explained is the score

    s(x) = sum(c * f(x)),

where c is one at the target and zero elsewhere: a class index chooses that output's own value, an
array shaped like the output gives c itself. A target that looks at the output, such as
`targets.predicted`, is settled at x and held while x is varied.

Methods that sample or take steps do so a chunk at a time: `chunk` evaluations are in memory at
once, however many there are. All may be `jit`ted and `vmap`ped. The model is taken as it is: one in
training mode is explained in training mode, without an error.

==================== ============== ====================================================
method               evaluations    relevance sums to
==================== ============== ====================================================
gradient             1              nothing in particular
input_x_gradient     1              s(x), if f is piecewise linear without biases
smooth_grad          samples        nothing in particular
integrated_gradients steps          s(x) - s(baseline), but for the error of quadrature
smooth_taylor        samples        s(x) - mean s(x'), if f is linear
occlusion            windows        nothing in particular
grad_cam             1              nothing in particular; never negative
==================== ============== ====================================================
"""

from jaxlrp.baselines.cam import grad_cam
from jaxlrp.baselines.gradients import gradient, input_x_gradient, integrated_gradients
from jaxlrp.baselines.noise import smooth_grad, smooth_taylor
from jaxlrp.baselines.occlude import occlusion

__all__ = [
    "grad_cam",
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "occlusion",
    "smooth_grad",
    "smooth_taylor",
]
