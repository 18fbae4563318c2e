"""`jaxlrp` and `python -m jaxlrp`: see `jaxlrp.cli`."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line as a process of its own, with compiled programs kept on disk.

    Args:
      arguments: as in `jaxlrp.cli.main`, which changes no setting of JAX.

    Returns:
      The exit status, see `jaxlrp.cli.main`.
    """
    from jaxlrp import _cache, _interrupt, cli

    _interrupt.restore()
    _cache.keep_programs()
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
