#!/bin/sh
# Loading images, Diptych and a peer in turn on the same machine: the ratio of medians a core.
#
#   sh tests/bench/compare_data.sh PEER_COMMAND SHARD.tar [ROUNDS]
#
# PEER_COMMAND takes --size and --workers and a shard, decodes, crops and resizes every image, and prints
# one JSON line with "images_s_core", e.g. "python peer_data.py". Prints one JSON line.
set -eu
peer=$1 shard=$2
rounds=${3:-3}
diptych=${DIPTYCH:-build/release/diptych}
size=${SIZE:-224}

rate() { tr ',{}' '\n\n\n' | sed -n 's/ *"images_s_core": *//p'; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

ours="" theirs=""
for _ in $(seq "$rounds"); do
    theirs="$theirs $($peer --size "$size" --workers 1 "$shard" | rate)"
    ours="$ours $($diptych bench data "$shard" --size "$size" --workers 1 --json 2>/dev/null | rate)"
done
a=$(printf '%s\n' $theirs | median) b=$(printf '%s\n' $ours | median)
awk -v a="$a" -v b="$b" -v size="$size" -v rounds="$rounds" 'BEGIN {
    printf "{\"size\":%d,\"rounds\":%d,\"peer_images_s_core\":%.1f,\"diptych_images_s_core\":%.1f,\"ratio\":%.2f}\n",
        size, rounds, a, b, b / a }'
