#!/usr/bin/env bash
# A study of two objectives whose best trial violates a constraint. Optuna leaves it out of
# `Study.best_trials`. optuna-dashboard lists it among `best_trials`, the trials that its pages mark as
# best, and shows no constraint at all where it was set by `Trial.set_constraint`.
# Seen with optuna 5.0.0 and optuna-dashboard 0.21.0.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    optuna==5.0.0 optuna-dashboard==0.21.0 2>/dev/null
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import json
from importlib.metadata import version
from wsgiref.util import setup_testing_defaults

import optuna
from optuna_dashboard import wsgi
from optuna.storages import RDBStorage

print("optuna", version("optuna"), "optuna-dashboard", version("optuna-dashboard"))
optuna.logging.set_verbosity(optuna.logging.WARNING)
storage = RDBStorage("sqlite:///study.db")
study = optuna.create_study(storage=storage, study_name="s", directions=["minimize", "minimize"])
for values, violation in [((1.0, 1.0), 0.5), ((2.0, 2.0), -0.5)]:
    trial = study.ask()
    trial.set_constraint("latency", violation)
    study.tell(trial, values)
by_optuna = [t.number for t in study.best_trials]

environ = {"PATH_INFO": f"/api/studies/{study._study_id}", "QUERY_STRING": "after=0"}
setup_testing_defaults(environ)
page = json.loads(b"".join(wsgi(storage)(environ, lambda *_: None)))
by_dashboard = [t["number"] for t in page["best_trials"]]
shown = [t["constraints"] for t in page["trials"]]
print("best by Optuna", by_optuna, "by the dashboard", by_dashboard, "constraints shown", shown)
assert by_optuna == [1], by_optuna
assert by_dashboard == [0], by_dashboard
assert shown == [[], []], shown
PY
