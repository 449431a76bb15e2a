#!/usr/bin/env bash
# Train the digits model anew and build both of its bundles. Takes some minutes; needs the workstation's packages.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
cd "$ROOT" # the report tells the command: by paths that hold everywhere
work=build/digits
builder_env "[build,examples]"
.venv-build/bin/python examples/digits/train.py --output "$work" "$@"
recipe=(--task classify --labels "$work/labels.txt" --normalize 0..1 --color gray --resize crop --interpolation area)
for mode in none int8; do
    name=digits
    [ "$mode" = none ] || name=digits-$mode
    .venv-build/bin/python -m edge_runner.builder "$work/saved_model" --output "examples/digits/models/$name" \
        "${recipe[@]}" --name "$name" --quantize "$mode" --calibration "$work/calibration" --evaluate "$work/evaluate"
done
