#!/bin/sh
# Bad input on the command line, kind by kind: what is dropped is counted and named, what is refused
# is refused before anything is written, with exit status 2 and every mistake at once.
# Usage: sh test_bad_input.sh path/to/diptych scratch-dir
. "$(dirname "$0")/../check.sh"
cd "$scratch" || exit 1
mkdir members

# refused WORDS...: pretrain --config run.json --name refused WORDS... ends with 2 and leaves nothing
refused()
{
    expect 2 pretrain --config run.json --name refused "$@"
    [ -s out ] && complain "a refusal printed: $(head -c 200 out)"
    [ -e logs ] && complain "a refusal left $(find logs)"
    rm -rf logs
}

# trained DROPPED WORDS...: the run works and drops so many samples
trained()
{
    dropped=$1
    shift
    expect 0 pretrain --config run.json --name trained --json "$@"
    [ "$(number dropped_samples)" = "$dropped" ] ||
        complain "$*: $(number dropped_samples) dropped, not $dropped"
    rm -rf logs
}

# pack NAME: the files of members/ as NAME.tar, an empty folder again
pack()
{
    (cd members && tar --format=ustar -cf "../$1.tar" -- *)
    rm -rf members
    mkdir members
}

# pair NAME [CAPTION]
pair()
{
    cp "$golden/model/0.png" "members/$1.png"
    printf '%s' "${2:-a red square}" >"members/$1.txt"
}

cat >model.json <<'END'
{"embed_dim": 16,
 "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 16, "layers": 1},
 "text_cfg": {"context_length": 10, "vocab_size": 28, "width": 16, "heads": 1, "layers": 1}}
END
cat >run.json <<END
{"train_data": "good.tar", "tokenizer": "$golden/model/spiece.model", "model": "model.json",
 "batch_size": 2, "epochs": 1, "warmup": 0, "logs": "logs", "max_bad_fraction": 1}
END
for i in 1 2 3 4 5 6; do pair $i; done
pack good
trained 0

# --- captions: dropped, or fine
pair empty && printf ' \n\t\n' >members/empty.txt
pair latin && printf 'caf\351' >members/latin.txt
pair surrogate && printf 'a \355\240\200 half' >members/surrogate.txt
pair ten_mb && head -c 10000000 /dev/zero | tr '\0' b >members/ten_mb.txt
for i in 1 2 3 4; do pair fine$i; done
pack captions
trained 4 --train-data captions.tar
says "$err" "empty caption: captions.tar: empty" "caption is not UTF-8: captions.tar: latin" \
    "caption is not UTF-8: captions.tar: surrogate" "captions.tar: ten_mb" \
    "4 samples could not be used"

pair bom && printf '\357\273\277a red square\r\n' >members/bom.txt
pair long && head -c 100000 /dev/zero | tr '\0' a >members/long.txt
pair bidi && printf '\330\247\331\204 \342\200\256abc\342\200\215' >members/bidi.txt
pair special '</s> <pad> <unk>'
pair unknown && printf '\346\227\245\346\234\254' >members/unknown.txt
pair nul && printf 'a red\000 square' >members/nul.txt
pack odd
trained 0 --train-data odd.tar

for kind in 'a \ud800 square' good; do
    name=$(echo "$kind" | tr -dc '[:lower:]')
    cp "$golden/model/0.png" "members/$name.png"
    printf '{"caption": "%s"}' "$kind" >"members/$name.json"
done
i=0
for value in null 5 '["a"]' '{"a": "b"}' '"a", "caption": "b"' '"two"' '"three"'; do
    i=$((i + 1))
    cp "$golden/model/0.png" "members/v$i.png"
    printf '{"caption": %s}' "$value" >"members/v$i.json"
done
pack json
trained 5 --train-data json.tar --json-text-key caption
says "$err" "half of a surrogate pair" "'caption' in its .json is not a string" "is there twice"

# --- pairs that are none, images that are none
for i in 1 2 3 4; do pair good$i; done
cp "$golden/model/0.png" members/alone.png
printf 'nothing to see' >members/words.txt
head -c 90 "$golden/shard_pixel.jpg" >members/cut.jpg && printf x >members/cut.txt
printf '<html>' >members/page.jpg && printf x >members/page.txt
printf 'GIF89a\001\000\001\000\000\000\000' >members/gif.jpg && printf x >members/gif.txt
: >members/nothing.png && printf x >members/nothing.txt
pair short && head -c 200 "$golden/model/0.png" >members/short.png
pack images
trained 7 --train-data images.tar
says "$err" "image without caption: images.tar: alone" "caption without image: images.tar: words" \
    "images.tar: cut (JPEG: Premature end" "images.tar: page" "images.tar: gif" \
    "images.tar: nothing" "images.tar: short" "7 samples could not be used"
expect 2 pretrain --config run.json --name stopped --train-data images.tar --max-bad-fraction 0.2
says "$err" "max_bad_fraction"
rm -rf logs

# --- shards
: >members/later && pack filler
head -c 3500 good.tar >cut.tar
trained 1 --train-data 'good.tar::cut.tar'
says "$err" "damaged or truncated tar: cut.tar: at byte"
: >zero.tar
refused --train-data zero.tar
says "$err" "zero.tar"
printf '<html>gone</html>' >html.tar
refused --train-data html.tar
says "$err" "html.tar: not a tar file" "web page"
gzip -c good.tar >gz.tar
refused --train-data gz.tar
says "$err" "gz.tar: not a tar file" "gzip"
refused --train-data 'good.tar::{0..2}.tar'
says "$err" "3 of 4 files cannot be read" "0.tar: No such file" "2.tar: No such file"
refused --train-data ''
refused --train-data filler.tar
says "$err" "no usable sample"

# --- configuration files
config()
{
    printf '%s' "$1" >bad.json
    shift
    expect 2 pretrain --config bad.json --train-data good.tar \
        --tokenizer "$golden/model/spiece.model" --logs logs
    says "$err" "$@"
    [ -e logs ] && complain "a refusal left logs"
}
config '{"batch_size": 2,}' "bad.json, line 1, column 17"
config '{"lr": 1} more' "line 1, column 11"
config '{"lr": 1e999}' "line 1, column 8"
config '{"lr": NaN}' "line 1, column 8"
config '[1]' "bad.json"
config "$(head -c 100000 /dev/zero | tr '\0' '[')" "nested deeper than"
config '{"batch_size": 9223372036854775808, "epoch": 3, "lr": "1", "wd": true, "warmup": 1.5}' \
    batch_size "did you mean" epochs 'lr: "1" is not allowed' wd warmup
config '{"batch_size": 2, "batch-size": 3}' "given twice"
config '{"batch_size": 2, "batch_size": 3}' "batch_size"
expect 2 pretrain --config none.json
says "$err" "cannot open none.json"

# --- values, and words
refused --batch-size 0 --epocs 3 --lr inf --wd 12x --precision fp16 --beta1 1 --warmup
says "$err" '--batch-size: "0"' "did you mean --epochs?" '--lr: "inf"' '--wd: "12x"' \
    '--precision: "fp16"' '--beta1: "1"' "--warmup: the value is missing"
refused --batch-size -3
refused --lr nan
refused --lr 1 --lr 2
says "$err" "given twice"
refused stray
says "$err" "stray"
refused --warmup 100
says "$err" "--warmup 100 is more than the run's 3 steps"
refused --batch-size 7
says "$err" "6 pairs, fewer than one batch of 7"
expect 2 pretrain --config run.json --crop-scale-min 0.9 --crop-scale-max 0.5 --image-std 0 \
    --zeroshot-data good.tar --loss infonc --model VIT-B-32 --tokenizer none.model --resume nowhere \
    --name a/b
says "$err" "--crop-scale-min 0.9 is above" "--image-std 0" "--zeroshot-data needs" "--loss 'infonc'" \
    "did you mean ViT-B-32?" "none.model" "--resume 'nowhere'" "--name 'a/b'"
printf '{"embed_dim": 16, "vision_cfg": {"image_size": 17, "patch_size": 4, "width": 30,
"head_width": 16, "layer": 2, "timm_model_name": "resnet50"}, "text_cfg": {"width": 16, "heads": 3}}' >heads.json
refused --model heads.json
says "$err" head_width heads "layers" timm
printf '{"embed_dim": 99999999' >heads.json
refused --model heads.json
expect 2 pretrian
says "$err" "pretrain"

# --- paths
: >file
refused --logs file
says "$err" "--logs 'file' is a file"
long=$(head -c 5000 /dev/zero | tr '\0' p)
refused --train-data "$long"
says "$err" "5000 bytes"
expect 2 pretrain --config run.json --name "$long"
says "$err" "longer than 200 bytes"
refused --logs "$long"
says "$err" "longer than 3500 bytes"
refused --tokenizer "$long"
refused --model "$long"
refused --resume "$long"
mkdir logs && : >logs/taken
expect 2 pretrain --config run.json --name taken
says "$err" "a file has the name of the run's folder"
rm -r logs
other=$(printf 'caf\351')
mkdir "$other" && cp good.tar "$other/"
expect 0 pretrain --config run.json --train-data "$other/good.tar" --logs "$other/logs" --name ok
[ -e "$other/logs/ok/checkpoints/epoch_1/trainer.json" ] || complain "a path that is not UTF-8 failed"

# --- tokenizers
head -c 300 "$golden/model/spiece.model" >cut.model
refused --tokenizer cut.model
refused --tokenizer "$golden/spm_no_eos.model"
says "$err" "no end-of-text piece"
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n' >lfs.model
refused --tokenizer lfs.model
says "$err" "Git LFS pointer"
refused --tokenizer html.tar
says "$err" "HTML"
refused --tokenizer good.tar
: >empty.model
refused --tokenizer empty.model

# --- models and checkpoints
refused --resume "$golden/model"
says "$err" "weights at most"
expect 0 pretrain --config run.json --name base
refused_checkpoint()
{
    expect 2 pretrain --config run.json --name refused --resume spoiled
    says "$err" "$@"
    [ -e logs/refused ] && complain "a refusal left logs/refused"
}
spoil()
{
    rm -rf spoiled
    cp -r logs/base/checkpoints/epoch_1 spoiled
}
spoil && printf x >>spoiled/open_clip_model.safetensors
refused_checkpoint "open_clip_model.safetensors is damaged"
spoil && rm spoiled/optimizer.safetensors
refused_checkpoint "optimizer.safetensors is missing"
spoil && rm spoiled/trainer.json
refused_checkpoint "weights at most"
spoil && printf '{"format_version": 7}' >spoiled/trainer.json
refused_checkpoint "format_version is 7"
expect 2 pretrain --config run.json --name refused --resume logs/base/checkpoints/epoch_1 --lr 1e-9 \
    --seed 8
says "$err" "lr was" "seed was 0, is 8"
rm -rf logs

# each command that reads a model, on folders that hold something else
for command in "embed --data good.tar --output made" "recall --data good.tar" "export --output made"; do
    # shellcheck disable=SC2086 # the flags are words
    for model in nowhere . good.tar; do expect 2 $command --model $model; done
    rm -rf spoiled && cp -r "$golden/model" spoiled
    rm spoiled/spiece.model
    # shellcheck disable=SC2086
    expect 2 $command --model spoiled
    says "$err" "lacks spiece.model"
    cp "$golden/spm_bpe.model" spoiled/spiece.model
    # shellcheck disable=SC2086
    expect 2 $command --model spoiled
    says "$err" "pieces" "28"
    cp "$golden/model/spiece.model" spoiled/
    head -c 2000 "$golden/model/open_clip_model.safetensors" >spoiled/open_clip_model.safetensors
    # shellcheck disable=SC2086
    expect 2 $command --model spoiled
    says "$err" "open_clip_model.safetensors"
    cp "$golden/open_clip_tok/open_clip_model.safetensors" spoiled/
    # shellcheck disable=SC2086
    expect 2 $command --model spoiled
    says "$err" "does not fit the model" "token_embedding.weight has the shape"
    [ -e made ] && complain "$command left something"
done
cp -r "$golden/model" whole
expect 2 export --model whole --output file
says "$err" "file exists"
expect 2 embed --model whole --output made
expect 2 zeroshot --model whole --data good.tar --classnames file --templates file
expect 2 inspect --model nowhere

# words, model, tokenizer and shards that are wrong are refused together
expect 2 pretrain --batch-siz 3 --epochs x --model ViT-B-23 --tokenizer absent \
    --train-data '/absent/{0..2}.tar'
says "$err" "did you mean --batch-size" "--epochs" "ViT-B-23" "absent" "/absent/2.tar"

finish "bad input"
