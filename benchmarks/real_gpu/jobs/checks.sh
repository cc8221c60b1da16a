# The checks of what the night has confirmed, on one card: stress, idle power, headroom.
. benchmarks/real_gpu/machine/study.sh
python3 -m tuner resume night --store "$results/night.db" --cards 1 --no-confirm --checks --yes
