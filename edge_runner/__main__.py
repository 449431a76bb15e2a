"""`python -m edge_runner` is the same as `edge-runner`."""

from edge_runner.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
