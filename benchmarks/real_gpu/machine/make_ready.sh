# make_ready.sh BUNDLE: unpack vLLM and make its first start short. A fresh disk is read once, by all
# cores; modules are compiled once, or each of a server's processes would compile them again.
. benchmarks/real_gpu/machine/environment.sh
cores=$(getconf _NPROCESSORS_ONLN) # nproc obeys OMP_NUM_THREADS
step() { echo "$(date +%T) $*"; }
packages=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
step "unpack"
find "$packages"/torch/lib "$packages"/nvidia "$packages"/triton -name '*.so*' -size +1M -print0 2>/dev/null |
    xargs -0 -r -P 8 -n 2 cat >/dev/null &
rm -rf "$root/site" && tar -xJf "$1/site.tar.xz" -C "$root" || exit
step "compile; of torch $(find "$packages/torch" -name '*.pyc' 2>/dev/null | wc -l) of" \
    "$(find "$packages/torch" -name '*.py' 2>/dev/null | wc -l) modules are"
python3 -m compileall -q -j "$cores" "$root/site" . >/dev/null 2>&1
for name in torch transformers triton sympy mpmath networkx numpy aiohttp huggingface_hub tokenizers jinja2; do
    [ -d "$packages/$name" ] && python3 -m compileall -q -j "$cores" "$packages/$name" >/dev/null 2>&1
done
step "ask vLLM for its flags; can its servers be forked?"
vllm --version &
vllm serve --help=all >/dev/null &
(timeout 60 python3 $here/machine/can_fork.py 2>&1 && touch "$root/forks.ok") &
wait
step "ready"
touch "$root/ready.done"
