"""`python -m jaxlrp`: see `jaxlrp.cli`."""

import sys

from jaxlrp.cli import main

if __name__ == "__main__":
    sys.exit(main())
