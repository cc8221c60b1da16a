"""A stand-in for `vllm-omni`: its command line, routes, counters and refusals; pictures of noise.

Run as `python -m helpers.omni_standin serve MODEL --omni --host=H --port=P --served-model-name=N`.
"""

from __future__ import annotations

import argparse
import base64
import http.server
import json
import struct
import sys
import time
import zlib
from email.message import Message
from threading import Lock

STEP_S = 0.01
_HELP = """
  --max-num-seqs MAX_NUM_SEQS
  --request-batch-max-wait-ms WAIT
  --vae-use-tiling
  --cache-backend CACHE_BACKEND
  --ulysses-degree ULYSSES_DEGREE
"""


def png(width: int, height: int, seed: int, changed: int = 0) -> bytes:
    """Return a grey image that depends on the seed; every other pixel is `changed` darker."""
    row = b"\0" + bytes((seed * 7 + x - changed * (x % 2)) % 256 for x in range(width))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * height)),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def mp4(frames: int) -> bytes:
    """Return what of an MP4 says how many frames it has."""
    stsz = struct.pack(">I4sIII", 20 + 4 * frames, b"stsz", 0, 0, frames) + bytes(4 * frames)
    return struct.pack(">I4s", 16, b"ftyp") + b"isomisom" + b"\0\0\0\x14vmhd" + bytes(12) + stsz


def fields_of(body: bytes, content_type: str) -> dict[str, str]:
    """Return the fields of a form."""
    message = Message()
    message["content-type"] = content_type
    parts = body.split(f"--{message.get_param('boundary')}".encode())[1:-1]
    found = {}
    for part in parts:
        head, _, value = part.strip(b"\r\n").partition(b"\r\n\r\n")
        found[head.decode().split('name="')[1].rstrip('"')] = value.decode()
    return found


class Handler(http.server.BaseHTTPRequestHandler):
    """The routes; one request is made at a time."""

    protocol_version = "HTTP/1.1"
    served_name = ""
    engine = Lock()
    running = 0
    changed = 0  # by a cache of steps

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(b"")
        elif self.path == "/v1/models":
            self.answer(json.dumps({"data": [{"id": self.served_name}]}).encode())
        elif self.path == "/metrics":
            lines = (
                f'vllm_omni:num_requests_{what}{{model_name="m"}} {count}.0\n'
                for what, count in (("running", Handler.running), ("waiting", 0))
            )
            self.answer("".join(lines).encode())
        else:
            self.answer(b'{"detail":"Not Found"}', 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/images/generations":
            asked = json.loads(body)
        elif self.path == "/v1/videos/sync":
            asked = fields_of(body, self.headers["content-type"])
        else:
            return self.answer(b'{"detail":"Not Found"}', 404)
        if asked["prompt"] == "refuse":
            return self.answer(b'{"error":{"message":"CUDA out of memory"}}', 500)
        with self.engine:
            Handler.running = 1
            time.sleep(STEP_S * int(asked["num_inference_steps"]))
            Handler.running = 0
        width, height = map(int, asked["size"].split("x"))
        if "num_frames" in asked:
            return self.answer(mp4(int(asked["num_frames"])))
        made = png(width, height, int(asked["seed"]), Handler.changed)
        image = base64.b64encode(made).decode()
        return self.answer(json.dumps({"created": 0, "data": [{"b64_json": image}]}).encode())

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    """Answer `--version` and `--help=all`, or serve."""
    if "--version" in sys.argv:
        sys.exit(print("0.30.0"))
    if "--help=all" in sys.argv:
        sys.exit(print(_HELP))
    parser = argparse.ArgumentParser("vllm-omni serve")
    parser.add_argument("serve", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--omni", action="store_true", required=True)
    parser.add_argument("--vae-use-tiling", action="store_true")
    for name in ("host", "served-model-name", "cache-backend"):
        parser.add_argument(f"--{name}")
    for name in ("port", "max-num-seqs", "request-batch-max-wait-ms", "ulysses-degree"):
        parser.add_argument(f"--{name}", type=int)
    asked = parser.parse_args()
    Handler.served_name = asked.served_model_name
    Handler.changed = {None: 0, "cache_dit": 8}.get(asked.cache_backend, 96)
    http.server.ThreadingHTTPServer((asked.host, asked.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
