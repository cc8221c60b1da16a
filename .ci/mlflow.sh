#!/usr/bin/env bash
# Set up MLflow with its server in a cached virtual environment: the tuner itself needs its client alone.
# stdout: the path of the `mlflow` executable. Everything else goes to stderr.
set -euo pipefail

readonly MLFLOW_VERSION=3.17.2
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tuner"
readonly VENV="$CACHE/mlflow-$MLFLOW_VERSION"
readonly COMPLETE="$VENV/.complete"

mkdir -p "$CACHE"
exec 9>"$VENV.lock" # two set-ups at once would spoil each other's
flock 9
if [ ! -e "$COMPLETE" ]; then
    printf 'mlflow: installing MLflow %s into %s (a minute, once)\n' "$MLFLOW_VERSION" "$VENV" >&2
    rm -rf "$VENV"
    "${PYTHON:-python3}" -m venv "$VENV" >&2
    "$VENV/bin/python" -m pip install --quiet "mlflow==$MLFLOW_VERSION" >&2
    touch "$COMPLETE"
fi
printf '%s\n' "$VENV/bin/mlflow"
