#!/usr/bin/env bash
# Known vulnerabilities of the installed dependencies, from osv.dev: `bash .ci/audit.sh .venv/bin`.
# Where that service cannot be reached, as behind a package mirror, this says so and fails nothing.
# The service `pypi`, the default of pip-audit, is not used: a mirror without PyPI's own JSON answers
# nothing, and that is told as "No known vulnerabilities found".
set -euo pipefail
cd "$(dirname "$0")/.."

if ! python3 -c 'import socket; socket.create_connection(("api.osv.dev", 443), 10)' 2>/dev/null; then
    echo "NOT AUDITED: api.osv.dev cannot be reached; run \`make audit\` where it can" >&2
    exit 0
fi
"${1:-.venv/bin}/pip-audit" --vulnerability-service osv --skip-editable --progress-spinner off
