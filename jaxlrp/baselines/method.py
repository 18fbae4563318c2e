"""A baseline as a function: called and compiled as `lrp.explain` is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxlrp.explanation.base import BaseExplainer, Request, request_of
from jaxlrp.explanation.compiled import Programs
from jaxlrp.explanation.result import Explanation
from jaxlrp.network.model import Model
from jaxlrp.targets import Target


@dataclasses.dataclass(frozen=True, eq=False, repr=False, slots=True, weakref_slot=True)
class Method(BaseExplainer):
    """A function that explains another one by one of the baselines.

    Attributes:
      name: of the baseline.
      model: the function that is explained, and the position of the explained argument.
      compute: from (args, kwargs, target, **options) to the explanation.
      options: names of keyword arguments of the baseline, such as "key".
      jit: whether eager calls are compiled.
    """

    name: str
    model: Model
    compute: Callable[..., Explanation]
    options: tuple[str, ...] = ()
    jit: bool = True
    _programs: Programs = dataclasses.field(default_factory=Programs)

    def __repr__(self) -> str:
        return f"baselines.{self.name}({self.model.name}, argnums={self.argnums})"

    def __call__(
        self,
        *args: Any,
        target: Target = None,
        fun_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Explanation:
        """Explains the function at these arguments; see the baseline."""
        options = {name: kwargs.pop(name, None) for name in self.options}
        request = request_of(args, kwargs, fun_kwargs, target, options)
        return self._call("explain", self._explain, request)

    def _explain(self, request: Request) -> tuple[Explanation, Any]:
        args, kwargs, target = request.args, request.kwargs, request.target
        result = self.compute(args, kwargs, target, **request.options)
        return result, result.output
