"""`python -m edgekube` and the `edgekube` program."""

import sys

from edgekube.lib import program


def main() -> None:
    """Run the command line and exit with its code."""
    program.settle()
    from edgekube.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
