#!/bin/sh
# diptych tokenizer: train, encode, decode, info, and what they refuse.
# Usage: sh test_tokenizer_command.sh path/to/diptych scratch-dir
set -u
diptych=$1
scratch=$2
rm -rf "$scratch"
mkdir -p "$scratch" || exit 1
failures=0

complain()
{
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# expect STATUS WORDS...: run diptych tokenizer, leave its output in $out and $err.
expect()
{
    wanted=$1
    shift
    "$diptych" tokenizer "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
    status=$?
    out=$(cat "$scratch/out")
    err=$(cat "$scratch/err")
    [ "$status" -eq "$wanted" ] || complain "tokenizer $*: exit $status, not $wanted: $err"
}

# says TEXT PART
says()
{
    case $1 in
    *"$2"*) ;;
    *) complain "\"$2\" is not in: $1" ;;
    esac
}

# same WHAT EXPECTED GOT
same()
{
    [ "$2" = "$3" ] || complain "$1: \"$3\", not \"$2\""
}

captions=$scratch/captions.txt
for thing in "t-shirt" "trouser" "pullover" "dress" "coat" "sandal" "shirt" "sneaker" "bag" "boot"; do
    for look in "photo" "drawing" "close-up"; do
        echo "a $look of a $thing"
    done
done >"$captions"
model=$scratch/spm.model

# Training: fewer pieces than asked for, and said so; the same bytes again.
expect 0 train --input "$captions" --vocab-size 1000 --output "$model"
says "$err" "not 1000; pretrain takes the size"
says "$out" "bpe"
expect 0 train --input "$captions" --vocab-size 1000 --output "$scratch/again.model" --json
says "$(echo "$out" | tr -d ' \t')" '"vocab_size_asked":1000'
cmp -s "$model" "$scratch/again.model" || complain "two trainings differ"
expect 0 train --input "$captions" --vocab-size 60 --model-type unigram --output "$scratch/u.model"
says "$out" "unigram"

# Shards made by hand: two samples, the second with two captions.
mkdir "$scratch/tar"
echo "a photo of a boot" >"$scratch/tar/1.txt"
printf 'a drawing of a bag\na bag of boots and bags\n' >"$scratch/tar/2.txt"
if tar --format=ustar -C "$scratch/tar" -cf "$scratch/00.tar" 1.txt 2.txt 2>"$scratch/err"; then
    expect 0 train --input-shards "$scratch/{00..00}.tar" --vocab-size 50 --output "$scratch/s.model"
fi

# Encoding from words and from lines; decoding back.
expect 0 info --model "$model" --json
eos=$(echo "$out" | sed -n 's/.*"eos_id":[^0-9]*\([0-9]*\).*/\1/p')
size=$(echo "$out" | sed -n 's/.*"vocab_size":[^0-9]*\([0-9]*\).*/\1/p')
same "eos" "$((size - 1))" "$eos"
expect 0 info --model "$model"
says "$out" "first_pieces"
says "$out" "<pad> <unk>"

expect 0 encode --model "$model" --texts "a photo of a boot" "a bag"
same "lines of ids" 2 "$(echo "$out" | wc -l | tr -d ' ')"
words=$out
lines=$(printf 'a photo of a boot\r\na bag' | "$diptych" tokenizer encode --model "$model")
same "ids of lines" "$words" "$lines"
line=$(echo "$words" | head -n 1)
says "$line." " $eos."
# shellcheck disable=SC2086 # the ids are words
expect 0 decode --model "$model" --ids $line
same "decoded" "a photo of a boot" "$out"
back=$(echo "$words" | "$diptych" tokenizer decode --model "$model")
same "decoded lines" "a photo of a boot
a bag" "$back"
expect 0 encode --model "$model" --texts "a photo of a boot" --context-length 3
same "truncated" 3 "$(echo "$out" | wc -w | tr -d ' ')"
says "$out." " $eos."
same "an empty line" "</s>" "$(echo | "$diptych" tokenizer encode --model "$model" --pieces)"
expect 0 encode --model "$model" --texts "</s>" --pieces
case $out in
"</s>"*) complain "a special token was spelled by text: $out" ;;
esac
expect 0 encode --model "$model" --texts "a q" --json
says "$out" '"unknown":1'
says "$out" '"pieces":["'
expect 0 encode --model "$model"
same "no lines" "" "$out"

# Refusals.
expect 2
says "$err" "train, encode, decode or info"
expect 2 trian
says "$err" "did you mean train?"
expect 2 train --output "$scratch/x.model"
says "$err" "--input"
expect 2 train --input "$captions" --input-shards x.tar --output "$scratch/x.model"
expect 2 train --input "$captions" --output "$scratch/x.model" --vocab-size 20
says "$err" "vocab-size 20 is too small"
expect 2 train --input "$captions" --output "$scratch/x.model" --model-type word
expect 2 train --input "$captions" --output "$scratch/x.model" --character-coverage 0.5
mkfifo "$scratch/pipe"
for input in none.txt tar pipe; do
    expect 2 train --input "$scratch/$input" --output "$scratch/x.model"
    says "$err" "$scratch/$input"
done
: >"$scratch/empty.txt"
expect 2 train --input "$scratch/empty.txt" --output "$scratch/x.model"
says "$err" "no caption"
[ -e "$scratch/x.model" ] && complain "a refused training left a file"
expect 1 train --input "$captions" --vocab-size 100 --output "$scratch/no/such/folder/x.model"
expect 2 encode --model "$captions" --texts a
says "$err" "not a SentencePiece model"
printf 'version https://git-lfs.github.com/spec/v1\n' >"$scratch/lfs.model"
expect 2 info --model "$scratch/lfs.model"
says "$err" "Git LFS pointer"
head -c 1000 "$model" >"$scratch/cut.model"
expect 2 info --model "$scratch/cut.model"
expect 1 info --model "$scratch/none.model"
expect 2 decode --model "$model" --ids 5 "$size"
says "$err" "is not in 0.."
expect 2 decode --model "$model" --ids five
says "$err" "'five' is not an id"
expect 2 encode --model "$model" --context-length 0 --texts a

[ "$failures" -eq 0 ] || exit 1
echo "the tokenizer command is as it should be"
