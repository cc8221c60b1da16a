#!/usr/bin/env bash
# The fast tests on every supported Python that this machine has and `make test` has not used, then
# with the oldest versions of the dependencies that pyproject.toml allows. A Python that is not here
# is named and skipped; as root on Debian, Python 3.14 is unpacked into a folder of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tuner"
readonly ROOT_314="$CACHE/debian-python3.14"
# What the versions of Python and of libraries decide: pydantic and YAML, aiohttp, Optuna and
# SQLAlchemy, SciPy, Typer. No server, GPU stand-in or night: those take minutes, behave the same,
# and `make test` runs them. No optuna-dashboard, which is a developer's.
readonly FAST=(
    tests/analysis tests/catalog tests/spec tests/store --ignore tests/store/test_optuna_dashboard.py
    tests/load/client/test_connection.py tests/load/client/test_connections.py
    tests/load/client/test_client.py tests/load/test_workload.py tests/measurement/test_intervals.py
    tests/packaging tests/test_cli.py tests/test_pareto.py tests/test_slo.py
)
readonly PYTEST=(
    -m pytest -q -p no:cacheprovider -n 2 --dist worksteal
    -m "not vllm and not omni and not chromium and not chaos and not fuzz and not package and not postgres and not ray and not mlflow"
)

say() { printf '\npythons: %s\n' "$*"; }

version_of() { # nothing where it does not run
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

find_python() { # of a version such as 3.12: on the path, or one of pyenv's
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if [ "$(version_of "$candidate")" = "$1" ]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

run_with() { # a Python, a name for its environment, then arguments for pytest
    local python="$1" venv=".venv-$2"
    shift 2
    "$python" -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet ${CONSTRAINT:+--constraint "$CONSTRAINT"} --editable '.[test]'
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 "$venv/bin/python" "${PYTEST[@]}" "$@" "${FAST[@]}"
}

unpack_python314() { # Debian's own build, beside the system and not in it
    [ -e "$ROOT_314/.complete" ] && return
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    command -v debootstrap >/dev/null || apt-get install -y -qq debootstrap >/dev/null || return 1
    rm -rf "$ROOT_314"
    mkdir -p "$ROOT_314"
    debootstrap --variant=minbase --include=python3.14,python3.14-venv \
        testing "$ROOT_314" >"$CACHE/debootstrap.log" 2>&1 || return 1
    touch "$ROOT_314/.complete"
}

run_in_debian() { # mounts end with `unshare`; names and certificates are those of this machine
    rm -rf "$ROOT_314/src"
    mkdir -p "$ROOT_314/src" "$ROOT_314/etc/ssl/certs"
    tar --exclude=./.git --exclude='./.venv*' --exclude='./results/*.db*' -c . | tar -x -C "$ROOT_314/src"
    cp -L /etc/resolv.conf /etc/hosts "$ROOT_314/etc/"
    cp -L /etc/ssl/certs/ca-certificates.crt "$ROOT_314/etc/ssl/certs/"
    export ROOT_314
    # shellcheck disable=SC2016  # the inner shell expands them
    unshare --mount bash -c '
        mount --rbind /proc "$ROOT_314/proc" && mount --rbind /dev "$ROOT_314/dev" &&
            HOME=/root exec chroot "$ROOT_314" bash /src/.ci/pythons.sh 3.14'
}

main() {
    local version python
    [ "$#" -gt 0 ] || set -- 3.11 3.12 3.13 3.14 oldest
    for version in "$@"; do
        if [ "$version" = oldest ]; then
            python="$(find_python 3.11)" || { say "no Python 3.11: oldest versions skipped"; continue; }
            say "the oldest versions that pyproject.toml allows, on Python 3.11"
            "$python" .ci/oldest.py >.venv-oldest.txt
            # old libraries warn of what newer ones changed; that is theirs
            CONSTRAINT=.venv-oldest.txt run_with "$python" oldest -o filterwarnings=default
        elif [ "$version" = "$(version_of .venv/bin/python)" ]; then
            say "Python $version is that of .venv: \`make test\` runs everything on it"
        elif python="$(find_python "$version")"; then
            say "Python $version"
            run_with "$python" "$version"
        elif [ "$version" = 3.14 ] && unpack_python314; then
            say "Python 3.14, in $ROOT_314"
            run_in_debian
        else
            say "no Python $version on this machine: SKIPPED"
        fi
    done
}

main "$@"
