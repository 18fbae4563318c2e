"""Random programs under LRP-0, against contributions that NumPy computes forward.

`python tests/test_random_programs.py --count 20000 --seed 0` runs many, and counts what became of them.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from random_programs.check import Case, Outcome, check, write
from random_programs.floats import passed
from random_programs.integers import embedded
from random_programs.program import Float, Program, each

from numeric import promoting

SETTINGS = hypothesis.settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
)


class Drawn:
    """Decisions by hypothesis, which shrinks them."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def below(self, n: int) -> int:
        return self.data.draw(st.integers(0, n - 1))


class Thrown:
    """Decisions by a generator of random numbers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def below(self, n: int) -> int:
        return self.random.randrange(n)


@pytest.mark.slow
def test_random_programs() -> None:
    """Right, or refused; refused only where no relevance is known to be right, with few exceptions."""
    counts: Counter[str] = Counter()

    @SETTINGS
    @hypothesis.given(st.data(), st.integers(0, 2**16))
    def one(data: st.DataObject, seed: int) -> None:
        case = write(Drawn(data), seed)
        if case is None:
            return
        outcome = check(case)
        assert outcome.kind != "failed", f"{outcome.why}\n{case.text()}"
        counts[outcome.kind if case.depends else "nothing to explain"] += 1

    with jax.enable_x64(True):
        one()
    assert counts["passed"] >= 70
    assert counts["refused"] <= 10


def test_the_oracle_by_hand() -> None:
    """x = [2, -1] and h = x @ [1, 3] + 2 = 1: contributions 2, -3 and 2 of the bias."""
    p = Program(Thrown(0), 0)
    p.begin({"x": np.array([2.0, -1.0])})
    (x,) = p.nodes
    assert isinstance(x, Float)
    h = each(lambda v: v @ np.array([1.0, 3.0]), x.d)
    h[-1] += 2
    np.testing.assert_array_equal(h, [2, -3, 2])
    np.testing.assert_array_equal(passed(h, lambda v: np.minimum(v, 0.5)), [1, -1.5, 1])
    np.testing.assert_array_equal(passed(-h, lambda v: np.maximum(v, 0)), [0, 0, 0])
    # Token 3 stands first and token 1 second; the rows of tokens 1 and 3 are 5 and 7.
    carriers = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    rows = np.array([0.0, 5.0, 0.0, 7.0])[np.array([3, 1])]
    np.testing.assert_array_equal(embedded(carriers, rows), [[7, 0], [0, 5], [0, 0]])


def test_a_written_case_is_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    """What a failure prints runs, and prints the relevance that the oracle holds right."""
    with jax.enable_x64(True):
        case = next(c for c in (write(Thrown(seed), seed) for seed in range(99)) if c and c.depends)
        # the precision is set for this test alone, not for all that come after it
        text = case.text().replace('jax.config.update("jax_enable_x64", True)', "")
        promoting(exec)(text, {})
        printed = capsys.readouterr().out
        assert check(case).kind == "passed"
    numbers = [float(n) for n in re.findall(r"-?\d+\.\d+(?:e-?\d+)?|-?\d+\.", printed)]
    np.testing.assert_allclose(
        numbers, np.concatenate([np.ravel(r) for r in case.relevance]), atol=1e-6
    )


def run(seed: int) -> tuple[Case, Outcome] | None:
    case = write(Thrown(seed), seed)
    return None if case is None else (case, check(case))


def main() -> None:
    """Prints how many programs passed, failed, and were refused for which reason."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first program; the next have the next"
    )
    parser.add_argument("--show", type=int, default=3, help="how many failures to print as scripts")
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    failed: list[int] = []
    with jax.enable_x64(True):
        for seed in range(options.seed, options.seed + options.count):
            found = run(seed)
            if found is None:
                counts["no float", ""] += 1
                continue
            case, outcome = found
            kind = outcome.kind
            if kind == "refused":
                kind += (
                    ", though it has an answer" if case.depends else ", rightly: nothing to explain"
                )
            why = outcome.why.split(":")[0] if outcome.why.startswith("wrong") else outcome.why
            counts[kind, why] += 1
            if outcome.kind == "failed":
                failed.append(seed)
                if len(failed) <= options.show:
                    print(f"\n# seed {seed}: {outcome.why}{case.text()}", flush=True)
            if seed % 200 == 199:
                jax.clear_caches()
    for (kind, why), count in sorted(counts.items()):
        print(f"{count:7d}  {kind}  {why}")
    print("failed:", *failed[:50])


if __name__ == "__main__":
    main()
