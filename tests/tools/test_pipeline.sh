#!/bin/sh
# The whole way on real pictures: shards, tokenizer, training, zero-shot, recall, export, embedding,
# inspection, and a training that is interrupted and goes on. Needs Fashion-MNIST and, for the
# second half of the shard test, the stamps of Tux Paint, both as Debian packages install them;
# without the first it is skipped (exit 77).
# Usage: sh test_pipeline.sh path/to/diptych scratch-dir
. "$(dirname "$0")/../check.sh"
configs=$(cd "$(dirname "$0")/../../configs" && pwd)
fashion=/usr/share/datasets/fashion-mnist
stamps=/usr/share/tuxpaint/stamps
[ -r "$fashion/t10k-images-idx3-ubyte.gz" ] || skip "$fashion/t10k-images-idx3-ubyte.gz is not there"
cd "$scratch" || exit 1

has()
{
    [ -e "$1" ] || complain "$1 is not there"
}

# is_count FOLDER N: so many entries
is_count()
{
    set -- "$2" "$1"/*
    wanted=$1
    shift
    [ $# -eq "$wanted" ] || complain "not $wanted but $#: $*"
}

# one_object WHAT: is $out exactly one JSON object, and nothing else but white space?
one_object()
{
    printf '%s\n' "$out" | awk '
    { text = text $0 "\n" }
    END {
        depth = 0; objects = 0; quoted = 0
        n = length(text)
        for (i = 1; i <= n; i++) {
            c = substr(text, i, 1)
            if (quoted) {
                if (c == "\\") i++
                else if (c == "\"") quoted = 0
                continue
            }
            if (depth == 0 && c !~ /[ \t\n{]/) exit 1
            if (c == "\"") quoted = 1
            if (c == "{") { if (depth == 0) objects++; depth++ }
            if (c == "}") depth--
        }
        exit !(objects == 1 && depth == 0 && !quoted)
    }' || complain "$1: not one JSON object: $(printf %s "$out" | head -c 300)"
}

# holds WHAT EXPRESSION: arithmetic that must be true
holds()
{
    awk "BEGIN { exit !($2) }" || complain "$1: not ($2)"
}

# --- data: 2,000 pictures to train on, 500 others to judge by, as IDX files cut from the originals
# be32 N: four bytes
be32()
{
    for shift in 16777216 65536 256 1; do
        printf '%b' "\\0$(printf %o $(($1 / shift % 256)))"
    done
}

# cut_idx PREFIX FIRST N NAME
cut_idx()
{
    { printf '\000\000\010\003'
        be32 "$3"
        be32 28
        be32 28
        gzip -dc "$fashion/$1-images-idx3-ubyte.gz" |
            tail -c +$((17 + $2 * 784)) | head -c $(($3 * 784)); } >"$4-images" 2>/dev/null
    { printf '\000\000\010\001'
        be32 "$3"
        gzip -dc "$fashion/$1-labels-idx1-ubyte.gz" |
            tail -c +$((9 + $2)) | head -c "$3"; } >"$4-labels" 2>/dev/null
}
cut_idx t10k 0 2000 train
cut_idx t10k 5000 500 judge
words=$configs/data/fashion-mnist
for set in train judge; do
    expect 0 shard --input $set-images --labels $set-labels --classnames "$words/classnames.txt" \
        --templates "$words/caption_templates.txt" --output "$set/{00000..}.tar" \
        --samples-per-shard 700 --json
    one_object "shard $set"
    has $set/sizes.json
done
holds "pairs" "$(number samples) == 500 && $(number left_out) == 0"
is_count train 7
expect 0 inspect --shards 'train/{00000..00002}.tar' --decode --json
one_object "inspect shards"

expect 0 tokenizer train --input-shards 'train/{00000..00002}.tar' --vocab-size 120 \
    --output spm.model --json
one_object "tokenizer train"
has spm.model

# --- one epoch of a tiny model
cat >model.json <<'END'
{"embed_dim": 32,
 "vision_cfg": {"image_size": 28, "patch_size": 7, "width": 48, "head_width": 16, "layers": 2},
 "text_cfg": {"context_length": 16, "vocab_size": 120, "width": 32, "heads": 2, "layers": 1}}
END
cat >run.json <<'END'
{"train_data": "train/{00000..00002}.tar", "tokenizer": "spm.model", "model": "model.json",
 "batch_size": 50, "epochs": 1, "warmup": 4, "lr": 4e-3, "wd": 0.1, "workers": 2, "logs": "logs",
 "caption_duplicates": "positive", "image_mean": 0.286, "image_std": 0.353}
END
expect 0 pretrain --config run.json --name first --ema-decay 0.9 --json \
    --val-data judge --zeroshot-data judge --classnames "$words/classnames.txt" \
    --templates "$words/prompt_templates.txt" --log-every-n-steps 10
one_object pretrain
holds "steps" "$(number step) == 40 && $(number samples_seen) == 2000 && $(number epoch) == 1"
holds "faults" "$(number skipped_steps) == 0 && $(number dropped_samples) == 0"
says "$err" "Train Epoch: 0 ["
says "$err" "Eval Epoch: 1 "
run=logs/first
for file in out.log params.txt ledger.json dropped.jsonl checkpoints/results.jsonl \
    checkpoints/epoch_1/ledger.json checkpoints/epoch_1/open_clip_config.json \
    checkpoints/epoch_1/open_clip_model.safetensors checkpoints/epoch_1/ema_model.safetensors \
    checkpoints/epoch_1/optimizer.safetensors checkpoints/epoch_1/trainer.json \
    checkpoints/epoch_1/spiece.model; do
    has $run/$file
done
[ "$(readlink $run/checkpoints/epoch_latest)" = epoch_1 ] || complain "epoch_latest is not epoch_1"
is_count $run/checkpoints 3
[ "$(wc -l <$run/checkpoints/results.jsonl)" -eq 1 ] || complain "results.jsonl is not one line"
says "$(cat $run/params.txt)" "batch_size: 50"
says "$(cat $run/out.log)" "Train Epoch: 0 ["
out=$(cat $run/checkpoints/results.jsonl)
one_object results.jsonl
for key in epoch clip_val_loss 'image_to_text_R@1' 'text_to_image_R@10' num_samples \
    zeroshot-val-top1 zeroshot-val-top5; do
    says "$out" "\"$key\":"
done
during=$(number zeroshot-val-top1)
cmp -s spm.model $run/checkpoints/epoch_1/spiece.model || complain "the tokenizer was changed"

# --- judging: chance is 0.1
judged="--classnames $words/classnames.txt --templates $words/prompt_templates.txt"
# shellcheck disable=SC2086 # the flags are words
expect 0 zeroshot --model $run --data judge $judged --json
one_object zeroshot
holds "zero-shot" "$(number acc1) > 0.15 && $(number acc5) > 0.6 && $(number n) == 500"
holds "zero-shot while training" "$(number acc1) - $during < 0.011 && $during - $(number acc1) < 0.011"
# shellcheck disable=SC2086
expect 0 zeroshot --model $run --data judge $judged --json --use-ema
one_object "zeroshot of the average"
expect 0 recall --model $run --data judge --json
one_object recall
expect 0 recall --model $run --data judge
says "$out" "text_to_image"

# --- export, and the same features from both folders
expect 0 export --model $run --output exported --json
one_object export
is_count exported 3
expect 2 export --model $run --output exported
expect 0 export --model $run --output exported --overwrite
cmp -s exported/open_clip_model.safetensors $run/checkpoints/epoch_1/open_clip_model.safetensors ||
    complain "the exported weights are others"
for model in $run exported; do
    expect 0 embed --model "$model" --data judge --precision fp32 --output "$(basename "$model").npy" \
        --json
    one_object "embed $model"
done
cmp -s first.npy exported.npy || complain "the exported model computes other features"
[ "$(wc -l <first.npy.keys.txt)" -eq 500 ] || complain "embed did not name 500 pictures"
expect 0 embed --model exported --texts "a photo of a sandal" --output one.npy --json
one_object "embed texts"

for what in "--model $run" "--checkpoint $run" "--model ViT-B-32" "--model exported"; do
    # shellcheck disable=SC2086
    expect 0 inspect $what --json
    one_object "inspect $what"
    # shellcheck disable=SC2086
    expect 0 inspect $what
done

# --- the same run again is refused, and resuming a finished one changes nothing
expect 2 pretrain --config run.json --name first
says "$err" "already holds a run"
expect 0 pretrain --config run.json --name first --ema-decay 0.9 --resume latest --json
one_object "pretrain --resume latest"
holds "steps of a finished run" "$(number step) == 40"
expect 2 pretrain --config run.json --name first --ema-decay 0.9 --resume latest --lr 1e-3
says "$err" "lr was 0.004, is 0.001"

# --- interrupted by either signal, resumed, and the same weights as without
# interrupt NAME SIGNAL: a run of 12 epochs that gets the signal after a few steps
twelve="--config run.json --epochs 12 --save-frequency 0 --log-every-n-steps 1"
interrupt()
{
    rm -f err # what an earlier run said is no sign of this one's progress
    # shellcheck disable=SC2086
    "$diptych" pretrain $twelve --name "$1" --json >out 2>err &
    child=$!
    tries=0
    until grep -q 'Step: [3-9]' err 2>/dev/null || [ $tries -ge 600 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    kill -s "$2" $child
    wait $child
    status=$?
    out=$(cat out)
    err=$(cat err)
    [ $status -eq 1 ] || complain "interrupted by $2: exit $status, not 1"
    one_object "interrupted by $2"
    says "$err" "stopped on request"
    case $(readlink "logs/$1/checkpoints/epoch_latest") in
    epoch_*_step_*) has "logs/$1/checkpoints/epoch_latest/trainer.json" ;;
    *) complain "$2 left no checkpoint: $(ls "logs/$1/checkpoints")" ;;
    esac
    # shellcheck disable=SC2086
    expect 0 pretrain $twelve --name "$1" --resume latest --json
    one_object "resumed after $2"
    holds "steps after $2" "$(number step) == 480 && $(number samples_seen) == 24000"
    has "logs/$1/checkpoints/epoch_12/trainer.json"
}
interrupt by_int INT
interrupt by_term TERM
for file in open_clip_model.safetensors optimizer.safetensors; do
    cmp -s logs/by_int/checkpoints/epoch_12/$file logs/by_term/checkpoints/epoch_12/$file ||
        complain "$file depends on when a run was interrupted"
done
# shellcheck disable=SC2086
expect 0 zeroshot --model logs/by_int --data judge $judged --json
holds "zero-shot after 12 epochs" "$(number acc1) > 0.6"

# --- a folder of pictures in many sizes, some transparent, captions in many lines
if [ -d "$stamps/animals" ]; then
    mkdir folder
    n=0
    find "$stamps/animals" -name '*.png' | sort | while read -r png && [ $n -lt 100 ]; do
        [ -r "${png%.png}.txt" ] || continue
        cp "$png" "folder/$n.png"
        cp "${png%.png}.txt" "folder/$n.txt"
        n=$((n + 1))
    done
    n=$(find folder -name '*.png' | grep -c .)
    expect 0 shard --input folder --output 'stamps/{00000..}.tar' --caption-line first --json \
        --holdout 0.2 --holdout-output 'held/{00000..}.tar' --seed 1
    one_object "shard folder"
    holds "stamps" "$(number samples) + $(number holdout_samples) + $(number left_out) == $n"
    holds "held-out stamps" "$(number holdout_samples) > 5 && $(number holdout_samples) < 40"
    expect 0 tokenizer train --input-shards stamps/00000.tar --vocab-size 200 --output stamps.model
    expect 0 pretrain --config run.json --train-data stamps --tokenizer stamps.model --name stamps \
        --batch-size 8 --warmup 0 --val-data held --json
    one_object "pretrain on stamps"
    holds "stamps used" "$(number dropped_samples) == 0 && $(number step) >= 7"
    expect 0 recall --model logs/stamps --data held --json
    one_object "recall of stamps"
else
    echo "SKIPPED: the stamps, $stamps is not there"
fi

finish "the whole way"
