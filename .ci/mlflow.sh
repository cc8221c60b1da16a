#!/usr/bin/env bash
# Set up MLflow with its server in a cached virtual environment: the tuner itself needs its client alone.
# stdout: the path of the `mlflow` executable. Everything else goes to stderr.
set -euo pipefail

readonly NAME=mlflow VERSION=3.17.2
. "$(dirname "${BASH_SOURCE[0]}")/tool-environment.sh"

set_up install "mlflow==$VERSION"
