"""Run the named benchmarks, or all."""

import importlib
import sys

NAMES = ("store", "api", "link", "runtime", "node", "images", "join", "proxy", "policy", "guest", "binary")


def main() -> None:
    """Each module's `main()` prints its own table."""
    wanted = sys.argv[1:] or NAMES
    for name in wanted:
        if name not in NAMES:
            sys.exit(f"no benchmark is called {name}: choose from {', '.join(NAMES)}")
        print(f"\n== {name}", flush=True)
        sys.argv = [name]  # a benchmark run by itself has options of its own
        importlib.import_module(f"tests.bench.{name}").main()


main()
