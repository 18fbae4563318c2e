"""PyTorch modules as models of this library, through torchax.

torchax runs a module's own code on JAX arrays, operation by operation. So what is explained is what the
module computes, whatever its classes, and no canonizer is needed: BatchNorm, functional calls, residuals
and attention are found by structure, as in every other model.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax

from jaxlrp._extras import need
from jaxlrp.errors import TrainingModeError, UnsupportedError
from jaxlrp.network.foreign import ForeignModel, in_module

if TYPE_CHECKING:
    import torch  # pyright: ignore[reportMissingImports]

__all__ = ["ForeignModel", "convert"]

TESTED = {"torch": "2.9.1", "torchax": "0.0.13"}


def convert(module: torch.nn.Module) -> ForeignModel:
    """A PyTorch module as a pure function of JAX arrays, to be explained like any other model.

    The module is copied, its parameters and buffers too; neither it nor its parameters are modified, and
    later changes of it are not seen. Layers have the names of `module.named_modules()` as paths
    ("features.0"), followed by the operation where it has no parameters ("features.1/relu"), and their
    modules' types. Parametrized weights (weight norm, spectral norm) are computed once.

    Args:
      module: a `torch.nn.Module` in evaluation mode, on any device. Its `forward` may take any number of
        tensors; numbers, strings and None are static.

    Returns:
      A `ForeignModel`: pass it to `lrp.explain`, `lrp.plan`, `lrp.ledger` and the other functions of
      this library in place of a function. Inputs may be torch tensors; outputs and relevances are JAX
      arrays in the layout of PyTorch, such as (N, C, H, W), and dtypes follow JAX: float32 unless
      `jax_enable_x64` is set. `torch.from_dlpack(relevance)` makes a tensor.

    Raises:
      ImportError: if torch or torchax is missing, or the two cannot be imported together.
      TypeError: if `module` is no `torch.nn.Module`, or is a compiled or scripted one.
      TrainingModeError: if the module, or one inside it, is in training mode.
      UnsupportedError: when the result is called, if torchax lacks an operation of the module.
      ValueError: if it has parameters in float64 and `jax_enable_x64` is not set.

    References:
      torchax: https://github.com/google/torchax

    Example:
      >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()  # doctest: +SKIP
      >>> explain = lrp.explain(pytorch.convert(net))  # doctest: +SKIP
      >>> explain(torch.ones(2, 4), target=0).relevance.shape  # doctest: +SKIP
      (2, 4)
    """
    torch, torchax = _packages()
    _check(module, torch)
    held = copy.deepcopy(module)
    _make_plain(held, torch)
    for name, child in held.named_modules():
        child.forward = in_module(name, type(child), child.forward)
    variables, call = torchax.extract_jax(held)
    lock = threading.RLock()  # a call puts its arrays into the copy until it returns

    def fun(variables: Mapping[str, jax.Array], *args: Any, **kwargs: Any) -> Any:
        with lock, warnings.catch_warnings():
            # where torchax asks JAX for the int64 of PyTorch's indices
            warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
            try:
                return call(variables, args, kwargs)
            except torchax.tensor.OperatorNotFound as error:
                raise _unsupported(error) from error
            except AssertionError as error:
                if "mixed math" not in str(error):
                    raise
                raise _mixed(error) from error

    return ForeignModel(fun, variables, type(module).__name__)


def _unsupported(error: Exception) -> UnsupportedError:
    """What to say of an operator of PyTorch that torchax does not have."""
    where = "; ".join(getattr(error, "__notes__", ()))
    return UnsupportedError(
        f"torchax cannot run this module: {error}{where and f' ({where})'}; replace the operation by "
        "others that compute the same, or define it with torchax.default_env().override_op_definition"
    )


def _mixed(error: Exception) -> TypeError:
    """What to say of a tensor of PyTorch that meets arrays of JAX."""
    where = "; ".join(getattr(error, "__notes__", ()))
    return TypeError(
        f"forward combines its input with a tensor made on another device{where and f' ({where})'}: "
        "write torch.ones(3, device=x.device), or register the tensor as a buffer"
    )


def _packages() -> tuple[ModuleType, ModuleType]:
    """torch and torchax.

    Raises:
      ImportError: naming what is installed and which versions work together.
    """
    torch = need("torch", "converting a PyTorch module", "torch")
    try:
        return torch, need("torchax", "converting a PyTorch module", "torch")
    except Exception as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == "torchax":
            raise
        tested = " ".join(f"{name}=={version}" for name, version in TESTED.items())
        raise ImportError(
            f"torchax could not be imported with torch {torch.__version__} and jax {jax.__version__}: "
            f"each torchax works with few versions of torch. Tested: pip install {tested}"
        ) from error


def _make_plain(module: torch.nn.Module, torch: ModuleType) -> None:
    """Makes each tensor that a layer reads a plain parameter, so that other arrays can take its place.

    What is parametrized (by a weight or spectral norm) becomes its value; not by
    `remove_parametrizations`, which changes the class, and the original has the same. An attribute that
    hides the parameter or buffer of its name, as Zennit's canonizers leave behind, takes its place.
    """
    for child in list(module.modules()):
        found = {name: getattr(child, name) for name in getattr(child, "parametrizations", ())}
        if found:
            child.__class__ = torch.nn.utils.parametrize.type_before_parametrizations(child)
            del child.parametrizations
        for name, value in found.items():
            child.register_parameter(name, torch.nn.Parameter(value.detach()))
        parameters = dict(child.named_parameters(recurse=False, remove_duplicate=False))
        buffers = dict(child.named_buffers(recurse=False, remove_duplicate=False))
        for name in vars(child).keys() & {*parameters, *buffers}:
            value = vars(child).pop(name)
            if value is not None and name in parameters:
                value = torch.nn.Parameter(value.detach())
            setattr(child, name, value)


def _check(module: Any, torch: ModuleType) -> None:
    """Refuses what cannot be converted."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {module!r}")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            "module is a TorchScript module, whose code PyTorch runs itself: pass the Python module "
            "that it was made from"
        )
    if hasattr(module, "_orig_mod"):
        raise TypeError(
            "module was made by torch.compile: pass the module it was made from, module._orig_mod"
        )
    training = [name for name, child in module.named_modules() if child.training]
    if training:
        names = ", ".join(repr(name) if name else "itself" for name in training[:3])
        raise TrainingModeError(
            f"the module is in training mode ({names}{', ...' * (len(training) > 3)}), with dropout "
            "and statistics of the batch: call module.eval() before converting it"
        )
    double = [name for name, p in module.named_parameters() if p.dtype == torch.float64]
    if double and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            f"parameter {double[0]!r} is float64, which JAX would cast to float32: set "
            "jax.config.update('jax_enable_x64', True), or convert module.float()"
        )
