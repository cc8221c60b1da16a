#!/usr/bin/env bash
# GenAI-Perf's `energy_consumption` of a run is the mean, the least and the greatest of a counter that runs since
# the driver was loaded, in megajoules: 4,200 MJ for three seconds on a card that has been up for half a year,
# 0 on one just started, whatever the run has used. The difference of max and min would be the run's energy, but
# the CSV's two decimals are steps of 10 kJ. Its records hold that less is better, so of two runs on one
# card the first wins, though it drew three times the power. (AIPerf, its successor, takes the difference.)
# Seen with genai-perf 0.0.16. The DCGM exporter is imitated; its collector and its CSV writer are its own.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2>/dev/null; }
pip numpy==2.4.6 requests==2.34.2 rich==15.0.0
pip --no-deps genai-perf==0.0.16
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import csv
import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from genai_perf.export_data.telemetry_data_exporter_util import export_telemetry_stats_csv
from genai_perf.metrics import TelemetryStatistics
from genai_perf.telemetry_data import DCGMTelemetryDataCollector

print("genai-perf", version("genai-perf"))
before_mj = [4.2e12, 0.0]  # millijoules that each GPU had used before the run
run = {"watts": 0, "since": time.monotonic()}


class Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        used_mj = run["watts"] * 1000 * (time.monotonic() - run["since"])
        self.send_response_only(200)
        self.end_headers()
        for gpu, before in enumerate(before_mj):
            line = f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="{gpu}"}} {before + used_mj:.0f}\n'
            self.wfile.write(line.encode())


def measured(watts: int) -> TelemetryStatistics:
    """Three seconds at these watts, as `genai-perf profile` collects and scales them."""
    run.update(watts=watts, since=time.monotonic())
    collector = DCGMTelemetryDataCollector(f"http://127.0.0.1:{server.server_port}/metrics")
    collector.start()
    time.sleep(3)
    collector.stop()
    before_mj[:] = [gpu[-1] for gpu in collector.get_metrics().energy_consumption.values()]
    statistics = collector.get_statistics()
    statistics.scale_data()
    return statistics


server = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
threading.Thread(target=server.serve_forever, daemon=True).start()
first, second = measured(600), measured(200)

text = io.StringIO()
export_telemetry_stats_csv(first.stats_dict, csv.writer(text))
rows = [row for row in csv.reader(io.StringIO(text.getvalue())) if row and row[0].startswith("Energy")]
print("columns: GPU, avg, min, max", *(row[:5] for row in rows), sep="\n")
assert [row[1:5] for row in rows] == [["0", *["4,200.00"] * 3], ["1", *["0.00"] * 3]], rows

at_600, at_200 = (s.create_records()["0"]["energy_consumption_avg"] for s in (first, second))
print(f"GPU 0 at 600 W: {at_600.value():.6f} MJ, then at 200 W: {at_200.value():.6f} MJ; better:", end=" ")
print("600 W" if at_600 > at_200 else "200 W")  # a greater record is a better one
assert at_600 > at_200
PY
