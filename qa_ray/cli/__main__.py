"""`python -m qa_ray.cli COMMAND ...`, the same as `qa-ray`."""

import sys

from qa_ray.cli.console import main

if __name__ == "__main__":
    sys.exit(main())
