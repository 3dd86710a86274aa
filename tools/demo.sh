#!/bin/sh
# The main job on real data, from nothing: packages, build, shards, tokenizer, pretraining,
# zero-shot classification, recall, export, embedding. Everything it makes lies in demo/ and
# build/release/; run it again and it goes straight to training.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
seed=${SEED:-0}
out=demo
data=/usr/share/datasets/fashion-mnist
texts=configs/data/fashion-mnist
diptych=build/release/diptych
started=$(date +%s)

say() { printf '\n== %s\n' "$*"; }

say "1/8 packages"
sh tools/install_packages.sh build data

say "2/8 build"
if [ ! -f build/release/build.ninja ]; then
    cmake -S . -B build/release -G Ninja -DCMAKE_BUILD_TYPE=Release -DDIPTYCH_TESTS=OFF \
        >build-configure.log 2>&1 ||
        { cat build-configure.log; rm -f build-configure.log; exit 1; }
    rm -f build-configure.log
fi
cmake --build build/release --target diptych

say "3/8 shards: 60,000 training and 10,000 test pairs"
mkdir -p "$out"
for part in train t10k; do
    if [ ! -f "$out/shards/$part/sizes.json" ]; then
        rm -rf "$out/shards/$part"
        $diptych shard --input "$data/$part-images-idx3-ubyte.gz" \
            --labels "$data/$part-labels-idx1-ubyte.gz" \
            --classnames "$texts/classnames.txt" --templates "$texts/caption_templates.txt" \
            --output "$out/shards/$part/{00000..}.tar" --samples-per-shard 10000
    fi
done

say "4/8 tokenizer"
if [ ! -f "$out/spm.model" ]; then
    $diptych tokenizer train --input-shards "$out/shards/train" --vocab-size 256 \
        --model-type bpe --output "$out/spm.model"
fi

say "5/8 pretraining"
run=1
while [ -e "$out/logs/run-$run" ]; do run=$((run + 1)); done
prepared=$(($(date +%s) - started))
$diptych pretrain --config configs/run/fashion-mnist.json --train-data "$out/shards/train" \
    --tokenizer "$out/spm.model" --logs "$out/logs" --name "run-$run" --seed "$seed" --json \
    >"$out/train.json"
checkpoint=$out/logs/run-$run/checkpoints/epoch_latest

say "6/8 zero-shot classification and cross-modal recall on the 10,000 test images"
$diptych zeroshot --model "$checkpoint" --data "$out/shards/t10k" \
    --classnames "$texts/classnames.txt" --templates "$texts/prompt_templates.txt" --json \
    >"$out/zeroshot.json"
$diptych recall --model "$checkpoint" --data "$out/shards/t10k" --json >"$out/recall.json"

say "7/8 export, and embeddings from the exported model"
export=$out/export-$run
$diptych export --model "$checkpoint" --output "$export"
$diptych embed --model "$export" --texts "a photo of a sneaker" "a photo of a dress" \
    --output "$out/texts.npy"
$diptych embed --model "$export" --data "$out/shards/t10k" --data-kind image \
    --output "$out/images.npy"

# One figure of a JSON file: figure FILE KEY.
figure() { sed -n "s/.*\"$2\":\([-0-9.e+]*\).*/\1/p" "$1"; }
percent() { figure "$1" "$2" | awk '{ printf "%.2f %%", 100 * $1 }'; }

say "8/8 done"
cat <<END
made                          where                          figure
----------------------------  -----------------------------  ------------------------------
training shards               $out/shards/train              60,000 pairs
test shards                   $out/shards/t10k               10,000 pairs
tokenizer                     $out/spm.model
checkpoint                    $out/logs/run-$run/checkpoints
  training                    $out/train.json                $(figure "$out/train.json" train_seconds | cut -d. -f1) s, $(figure "$out/train.json" samples_per_second | cut -d. -f1) pairs/s, $(sed -n 's/.*"precision":"\([a-z0-9]*\)".*/\1/p' "$out/train.json")
  zero-shot top-1             $out/zeroshot.json             $(percent "$out/zeroshot.json" acc1)
  zero-shot top-5             $out/zeroshot.json             $(percent "$out/zeroshot.json" acc5)
  text to image recall@10     $out/recall.json               $(percent "$out/recall.json" "image_retrieval_recall@10") of 10,000 (chance 0.10 %)
exported encoders             $export
embeddings                    $out/texts.npy, images.npy
whole run                                                    $(($(date +%s) - started)) s, $prepared s of them before training

Three commands to try on your own pictures (a folder of images, each with a .txt caption):
  $diptych shard --input PICTURES --output 'my/shards/{00000..}.tar' --samples-per-shard 1000
  $diptych tokenizer train --input-shards my/shards --vocab-size 4000 --model-type bpe --output my/spm.model
  $diptych pretrain --train-data my/shards --tokenizer my/spm.model --model ViT-S-32 --batch-size 64 --epochs 20 --warmup 100 --logs my/logs
END
