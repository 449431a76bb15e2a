#!/usr/bin/env bash
# Export Keras' MobileNetV2 and build it into a bundle for the board; --help lists the options.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
builder_env "[build]"
exec "$ROOT/.venv-build/bin/python" "$ROOT/examples/mobilenet_v2/build.py" "$@"
