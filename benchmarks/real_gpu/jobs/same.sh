# vLLM's defaults again and again, each on a launch of its own: with dummy weights (A/A), and in
# turn with weights of ordinary size.
. benchmarks/real_gpu/machine/study.sh
python3 $here/machine/ordinary_weights.py "$model" "$root/ordinary" || exit
for turn in 1 2 3 4 5 6; do
    measure "same/$turn-dummy.json" --model "$model" --set load_format=dummy
    [ $turn -le 3 ] && measure "same/$turn-ordinary.json" --model "$root/ordinary"
done
[ "$(ls "$results"/same/*.json | wc -l)" = 9 ]
