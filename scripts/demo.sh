#!/usr/bin/env bash
# Set everything up and run the daemon on handwritten digits; --help lists the options.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
board_env .venv ""
exec "$ROOT/.venv/bin/python" "$ROOT/examples/digits/demo.py" "$@"
