#!/bin/sh
# Training steps, Diptych and a peer in turn on the same machine: the ratio of medians.
#
#   sh tests/bench/compare_training.sh PEER_COMMAND [ROUNDS]
#
# PEER_COMMAND is a program that takes --config, --batch, --dtype and --steps and prints one JSON
# line with "ms_step" (a PyTorch training step of the same shapes), e.g. "python peer_clip.py". Each
# round runs the peer and Diptych once, one after the other. Prints one JSON line a row.
set -eu
peer=$1
rounds=${2:-3}
diptych=${DIPTYCH:-build/release/diptych}

ms() { tr ',{}' '\n\n\n' | sed -n 's/ *"ms_step": *//p'; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

for row in ${ROWS:-tiny:bf16 tiny:fp32 small:bf16 small:fp32}; do
    config=${row%:*} precision=${row#*:}
    ours="" theirs="" short=""
    for _ in $(seq "$rounds"); do
        theirs="$theirs $($peer --config "$config" --batch 256 --dtype "$precision" --steps 5 --warmup 2 2>/dev/null | ms)"
        ours="$ours $($diptych bench train --config "$config" --batch 256 --precision "$precision" --text-lengths full --steps 5 --json | ms)"
    done
    # the same with captions of a realistic length: 20 of 77 tokens, in proportion
    case $config in tiny) mean=4 ;; small) mean=8 ;; *) mean=20 ;; esac
    for _ in $(seq "$rounds"); do
        short="$short $($diptych bench train --config "$config" --batch 256 --precision "$precision" --text-lengths "$mean" --steps 5 --json | ms)"
    done
    a=$(printf '%s\n' $theirs | median) b=$(printf '%s\n' $ours | median) c=$(printf '%s\n' $short | median)
    awk -v config="$config" -v precision="$precision" -v a="$a" -v b="$b" -v c="$c" -v mean="$mean" -v rounds="$rounds" 'BEGIN {
        printf "{\"config\":\"%s\",\"precision\":\"%s\",\"batch\":256,\"rounds\":%d,\"peer_ms\":%.1f,\"diptych_ms\":%.1f,\"ratio\":%.2f,\"mean_text_length\":%d,\"diptych_ms_short\":%.1f,\"ratio_short\":%.2f}\n",
            config, precision, rounds, a, b, a / b, mean, c, a / c }'
done
