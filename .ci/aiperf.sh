#!/usr/bin/env bash
# Set up AIPerf, a load generator to compare with, in a cached virtual environment.
# stdout: the path of the `aiperf` executable. Everything else goes to stderr.
set -euo pipefail

readonly NAME=aiperf VERSION=0.13.0
. "$(dirname "${BASH_SOURCE[0]}")/tool-environment.sh"

set_up install "aiperf==$VERSION"
