#!/usr/bin/env bash
# bundle.sh [FOLDER [JOINED]]: put into .gpu (or FOLDER) all that a GPU machine needs: vLLM and the
# packages that it lacks, the committed project, call.sh, and, from the joined results of an earlier
# machine, the stores and the marks of the jobs that are done. A study with --cards goes on with the
# cards of another machine; others refuse that.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=$(mkdir -p "${1:-.gpu}" && cd "${1:-.gpu}" && pwd)
joined=${2:-}
[ -e "$target/site.tar.xz" ] || python3 "$here/pack.py" "$target"
git -C "$(git -C "$here" rev-parse --show-toplevel)" archive HEAD | xz -1 >"$target/src.tar.xz"
cp "$here/call.sh" "$target/"
rm -rf "$target/restored" && mkdir "$target/restored"
if [ -n "$joined" ]; then
    find "$joined" -maxdepth 1 \( -name '*.done' -o -name '*.db' \) -exec cp {} "$target/restored/" \;
fi
du -sh "$target"
