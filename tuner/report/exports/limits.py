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
_QUERY = (
    'nvidia-smi -i "$gpu" --query-gpu=persistence_mode,power.limit --format=csv,noheader,nounits'
)


def found_folder(deployment: Deployment) -> str:
    """Return where what is found is kept."""
    return f"/run/{deployment.name}-found"


def note_and_set(deployment: Deployment, gpus: str) -> list[str]:
    """Return the lines that note what is found on `gpus` (words of the shell) and set the limits.

    Persistence mode goes on with them: without it the driver forgets a limit when nobody uses the
    GPU.
    """
    folder = found_folder(deployment)
    return [
        "set -eu;",
        f"gpus={gpus};" if gpus.startswith("$") else f'gpus="{gpus}";',
        f"mkdir -p {folder};",
        "for gpu in $gpus; do",
        f'found="{folder}/$gpu" new="{folder}/.$gpu";',
        'if [ ! -s "$found" ]; then',
        f'{_QUERY} > "$new";',
        'mv "$new" "$found";',
        "fi;",
        "done;",
        "for gpu in $gpus; do",
        *(f"{command};" for command in _settings(deployment)),
        "done;",
    ]


def _settings(deployment: Deployment) -> list[str]:
    """Return the commands that set one GPU."""
    commands = ['nvidia-smi -i "$gpu" -pm 1']
    if deployment.power_limit_w is not None:
        commands.append(f'nvidia-smi -i "$gpu" -pl {plain(deployment.power_limit_w)}')
    if deployment.sm_clock_mhz is not None:
        clock = deployment.sm_clock_mhz
        commands.append(f'nvidia-smi -i "$gpu" -lgc {clock},{clock}')
    return commands


def put_back(deployment: Deployment) -> list[str]:
    """Return the lines that put back what was found, each also where another one is refused.

    A lock of the clocks cannot be read.
    """
    undo = []
    if deployment.sm_clock_mhz is not None:
        undo.append('nvidia-smi -i "$gpu" -rgc || put=no;')
    if deployment.power_limit_w is not None:
        undo.append('nvidia-smi -i "$gpu" -pl "$limit" || put=no;')
    folder = found_folder(deployment)
    return [
        "ok=yes;",
        f"for found in {folder}/*; do",
        '[ -s "$found" ] || continue;',
        'gpu="${found##*/}";',
        'IFS=", " read -r persistence limit < "$found" || true;',
        "put=yes;",
        *undo,
        '[ "$persistence" = Enabled ] || nvidia-smi -i "$gpu" -pm 0 || put=no;',
        '{ [ "$put" = yes ] && rm "$found"; } || ok=no;',
        "done;",
        '[ "$ok" = yes ];',
    ]


def hold(deployment: Deployment, gpus: str) -> list[str]:
    """Return the lines of a container that holds the limits of `gpus` until it is stopped.

    What a driver's reload or somebody else has changed is said and set again, once a minute
    (`CHECK_EVERY_S`). A lock of the clocks cannot be read, so it is set again every time. While the
    driver is away, the next minute is waited for.
    """
    again = " && ".join(f"{command} > /dev/null" for command in _settings(deployment))
    return [
        "put_back() {",
        *put_back(deployment),
        "};",
        "trap put_back EXIT;",
        'trap "exit 0" TERM INT;',
        *note_and_set(deployment, gpus),
        "for gpu in $gpus; do",
        f'{_QUERY} > "{READY_FILE}-$gpu";',
        "done;",
        f"touch {READY_FILE};",
        "while :; do",
        'sleep "${CHECK_EVERY_S:-60}" & wait $! || true;',
        "for gpu in $gpus; do",
        f'now=$({_QUERY}) || {{ echo "GPU $gpu does not answer; waiting"; continue; }};',
        f'[ "$now" = "$(cat "{READY_FILE}-$gpu")" ] ||'
        ' echo "GPU $gpu is at $now; its limits are set again";',
        f'{{ {again}; }} || echo "GPU $gpu: its limits could not be set; waiting";',
        "done;",
        "done;",
    ]
