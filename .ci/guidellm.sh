#!/usr/bin/env bash
# Set up GuideLLM, a load generator to compare with, in a cached virtual environment.
# stdout: the path of the `guidellm` executable. Everything else goes to stderr.
set -euo pipefail

readonly NAME=guidellm VERSION=0.8.1
. "$(dirname "${BASH_SOURCE[0]}")/tool-environment.sh"

set_up install torch==2.13.0 "guidellm==$VERSION"
