# shellcheck shell=bash
# Sourced by aiperf.sh, guidellm.sh, mlflow.sh and vllm-rs.sh: a tool, fetched once and kept. They set NAME
# (of its executable, and of the messages) and VERSION.
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tuner"
readonly FOLDER="$CACHE/$NAME-$VERSION"
readonly COMPLETE="$FOLDER/.complete"

say() { printf '%s: %s\n' "$NAME" "$*" >&2; }

install() { # REQUIREMENT...: into a virtual environment, one after another
    local requirement
    "${PYTHON:-python3}" -m venv "$FOLDER"
    for requirement; do
        "$FOLDER/bin/python" -m pip install --quiet "$requirement"
    done
    "$FOLDER/bin/$NAME" --version
}

set_up() { # COMMAND...: print the path of the executable; the command makes it, where it is not here yet
    mkdir -p "$CACHE"
    exec 9>"$FOLDER.lock" # two set-ups at once would spoil each other's
    flock 9
    if [ ! -e "$COMPLETE" ]; then
        say "setting up $VERSION in $FOLDER (minutes, once)"
        rm -rf "$FOLDER"
        "$@" >&2
        touch "$COMPLETE"
    fi
    printf '%s\n' "$FOLDER/bin/$NAME"
}
