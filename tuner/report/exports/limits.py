"""Shell lines that set a GPU's limits, and restore the original ones.

Every line may be followed by a space as well as by a line break, and contains neither a single
quote nor a backslash, so any export can quote it. The original limits are saved before the first
GPU changes, in a folder that a reboot empties, just as it resets the limits. A saved limit stays
there until it has been restored.
"""

from __future__ import annotations

from tuner.report.exports.deployment import Deployment, plain

ALL_GPUS = "$(nvidia-smi --query-gpu=index --format=csv,noheader)"
READY_FILE = "/tmp/limits-are-set"


def found_folder(deployment: Deployment) -> str:
    """Return where what is found is kept."""
    return f"/run/{deployment.name}-found"


def note_and_set(deployment: Deployment, gpus: str) -> list[str]:
    """Return the lines that note what is found on `gpus` (words of the shell) and set the limits.

    Persistence mode goes on with them: without it the driver forgets a limit when nobody uses the
    GPU.
    """
    settings = []
    if deployment.power_limit_w is not None:
        settings.append(f'nvidia-smi -i "$gpu" -pl {plain(deployment.power_limit_w)};')
    if deployment.sm_clock_mhz is not None:
        clock = deployment.sm_clock_mhz
        settings.append(f'nvidia-smi -i "$gpu" -lgc {clock},{clock};')
    folder = found_folder(deployment)
    return [
        "set -eu;",
        f"gpus={gpus};" if gpus.startswith("$") else f'gpus="{gpus}";',
        f"mkdir -p {folder};",
        "for gpu in $gpus; do",
        f'found="{folder}/$gpu" new="{folder}/.$gpu";',
        'if [ ! -s "$found" ]; then',
        'nvidia-smi -i "$gpu" --query-gpu=persistence_mode,power.limit'
        ' --format=csv,noheader,nounits > "$new";',
        'mv "$new" "$found";',
        "fi;",
        "done;",
        "for gpu in $gpus; do",
        'nvidia-smi -i "$gpu" -pm 1;',
        *settings,
        "done;",
    ]


def put_back(deployment: Deployment) -> list[str]:
    """Return the lines that put back what was found; a lock of the clocks cannot be read."""
    undo = []
    if deployment.sm_clock_mhz is not None:
        undo.append('nvidia-smi -i "$gpu" -rgc &&')
    if deployment.power_limit_w is not None:
        undo.append('nvidia-smi -i "$gpu" -pl "$limit" &&')
    folder = found_folder(deployment)
    return [
        "ok=yes;",
        f"for found in {folder}/*; do",
        '[ -s "$found" ] || continue;',
        'gpu="${found##*/}";',
        'IFS=", " read -r persistence limit < "$found" || true;',
        *undo,
        '{ [ "$persistence" = Enabled ] || nvidia-smi -i "$gpu" -pm 0; } &&',
        'rm "$found" || ok=no;',
        "done;",
        '[ "$ok" = yes ];',
    ]


def hold(deployment: Deployment, gpus: str) -> list[str]:
    """Return the lines of a container that holds the limits of `gpus` until it is stopped."""
    return [
        "put_back() {",
        *put_back(deployment),
        "};",
        "trap put_back EXIT;",
        'trap "exit 0" TERM INT;',
        *note_and_set(deployment, gpus),
        f"touch {READY_FILE};",
        "while :; do sleep 3600 & wait; done;",
    ]
