#!/usr/bin/env bash
# Turn a SavedModel into a bundle that is proven to run on the board; --help lists the options.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
builder_env "[build]"
exec "$ROOT/.venv-build/bin/python" -m edge_runner.builder "$@"
