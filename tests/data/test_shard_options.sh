#!/bin/sh
# diptych shard: what is chosen, where it goes, how images are made; the same for any number of
# threads. Usage: sh test_shard_options.sh path/to/diptych scratch-dir
. "$(dirname "$0")/shard_check.sh"

corpus=$golden/image_corpus
in=$scratch/in
mkdir "$in"
# 64 samples: 16 pictures, four copies each, every one with a caption of its own.
i=0
for round in 1 2 3 4; do
    for name in ycc_420 ycc_422 ycc_444 grey cmyk rgb ycc_420_progressive turned_6; do
        i=$((i + 1))
        cp "$corpus/$name.jpg" "$in/$(printf %03d $i).jpg"
        printf 'caption number %d' $i >"$in/$(printf %03d $i).txt"
    done
    for name in colour2_depth8 colour3_depth8 colour6_depth8 colour0_depth8 colour2_depth16 line \
        one_pixel colour3_depth4; do
        i=$((i + 1))
        cp "$corpus/$name.png" "$in/$(printf %03d $i).png"
        printf 'caption number %d' $i >"$in/$(printf %03d $i).txt"
    done
done
out0=$scratch/o
all=$scratch/all

# captions FOLDER...: the numbers in the captions of their shards, sorted, on one line
captions()
{
    for folder in "$@"; do
        for tar in "$folder"/*.tar; do
            tar xOf "$tar" --wildcards '*.txt' | sed 's/caption number /\n/g'
            echo
        done
    done | grep . | sort -n | words
}
everything=$(seq 64 | words)

# Shards by bytes: none is larger, nothing is lost, the last is not empty.
expect 0 --input "$in" --output "$all/{0..}.tar"
expect 0 --input "$in" --output "$out0/bytes/{000..}.tar" --max-shard-bytes 20000
is "all in shards by bytes" "$everything" "$(captions "$out0/bytes")"
n=0
for tar in "$out0/bytes/"*.tar; do
    n=$((n + 1))
    bytes=$(wc -c <"$tar")
    [ "$bytes" -le 20000 ] || [ "$(tar tf "$tar" | grep -c txt)" -eq 1 ] ||
        complain "$tar has $bytes bytes"
done
[ $n -gt 3 ] || complain "only $n shards by bytes"
expect 0 --input "$in" --output "$out0/tiny/{000..}.tar" --max-shard-bytes 1
is "a shard a sample" 64 "$(ls "$out0/tiny/"*.tar | wc -l | tr -d ' ')"

# A part: so many, or about a fraction; a larger part holds the smaller one.
expect 0 --input "$in" --output "$out0/ten/{0..}.tar" --sample 10 --json --seed 4
is "ten" 10 "$(number samples)"
expect 0 --input "$in" --output "$out0/twenty/{0..}.tar" --sample 20 --seed 4
for caption in $(captions "$out0/ten"); do
    case " $(captions "$out0/twenty") " in
    *" $caption "*) ;;
    *) complain "$caption is in the sample of 10 and not in that of 20" ;;
    esac
done
expect 0 --input "$in" --output "$out0/ten5/{0..}.tar" --sample 10 --seed 5
[ "$(captions "$out0/ten")" = "$(captions "$out0/ten5")" ] && complain "the seed draws nothing"
expect 0 --input "$in" --output "$out0/half/{0..}.tar" --sample 0.5 --json
[ "$(number samples)" -gt 16 ] && [ "$(number samples)" -lt 48 ] || complain "half: $(number samples)"
expect 0 --input "$in" --output "$out0/more/{0..}.tar" --sample 1000
for bad in 0 1.5 -1 x 0.0 ''; do
    expect 2 --input "$in" --output "$scratch/none/{0..}.tar" "--sample=$bad"
    says "$err" "--sample"
done

# Split: every sample in one folder, the same one whatever else is in the input.
expect 0 --input "$in" --output "$out0/split/{0..}.tar" --split train=0.5,val=0.25,test=0.25 --json
is "split" "$everything" \
    "$(captions "$out0/split/train" "$out0/split/val" "$out0/split/test")"
says "$out" '"train":	{'
[ -e "$out0/split/val/sizes.json" ] || complain "no sizes.json in a split"
mkdir "$scratch/fewer"
cp "$in"/00* "$scratch/fewer"
expect 0 --input "$scratch/fewer" --output "$out0/split2/{0..}.tar" \
    --split train=0.5,val=0.25,test=0.25
for part in train val test; do
    for caption in $(captions "$out0/split2/$part"); do
        case " $(captions "$out0/split/$part") " in
        *" $caption "*) ;;
        *) complain "$caption moved out of $part when others went" ;;
        esac
    done
done
expect 0 --input "$in" --output "$out0/h/{0..}.tar" --holdout 0.5 --holdout-output "$out0/g/{0..}.tar"
is "holdout" "$everything" "$(captions "$out0/h" "$out0/g")"
expect 2 --input "$in" --output "$out0/k/{0..}.tar" --holdout 0.5 \
    --holdout-output "$out0/./k/{0..}.tar"
says "$err" "are one folder"
is "left by a refusal" "" "$(ls -A "$out0/k")"
for bad in train train=0.5 train=0.5,test=0.6 train=1,train=0 a=0.5,a=0.5 a=x,b=1 ../a=0.5,b=0.5; do
    expect 2 --input "$in" --output "$scratch/none/{0..}.tar" --split "$bad"
    says "$err" "--split"
done
expect 2 --input "$in" --output "$scratch/none/{0..}.tar" --split a=0.5,b=0.5 --holdout 0.5 \
    --holdout-output "$out0/none/{0..}.tar"

# Limits on sizes and captions.
expect 0 --input "$in" --output "$out0/size/{0..}.tar" --min-size 2 --max-aspect 3 --json
is "one_pixel and line left out" 56 "$(number samples)"
says "$out" "--min-size is 2"
says "$out" '"outside the limits asked for":	8'
expect 0 --input "$in" --output "$out0/long/{0..}.tar" --min-caption 17 --json
is "captions of 17 characters" 55 "$(number samples)"
mkdir "$scratch/lines"
cp "$png" "$scratch/lines/a.png"
printf 'much too long a caption\nshort\n\303\251\303\251\303\251\n\n' >"$scratch/lines/a.txt"
expect 0 --input "$scratch/lines" --output "$out0/lines/{0..}.tar" --min-caption 2 --max-caption 5
holds "$out0/lines/0.tar" 000000000.txt 'short
ééé'
expect 2 --input "$scratch/lines" --output "$scratch/none/{0..}.tar" --min-caption 100

# Broken images are noticed where they are decoded, and only there.
mkdir "$scratch/broken"
head -c 700 "$corpus/ycc_420.jpg" >"$scratch/broken/a.jpg"
printf 'cut' >"$scratch/broken/a.txt"
cp "$png" "$scratch/broken/b.png"
printf 'whole' >"$scratch/broken/b.txt"
expect 0 --input "$scratch/broken" --output "$out0/unseen/{0..}.tar" --json
is "not decoded" 2 "$(number samples)"
for options in --check-images "--dedup near" "--resize 8"; do
    # shellcheck disable=SC2086
    expect 0 --input "$scratch/broken" --output "$out0/seen/{0..}.tar" --json --overwrite $options
    is "decoded by $options" 1 "$(number samples)"
    says "$out" '"broken or truncated image":	1'
done

# size FILE: WIDTHxHEIGHT of a JPEG, from its frame header
size()
{
    od -An -v -tx1 "$1" | tr -d ' \n' |
        sed -n 's/.*ffc0001108\(....\)\(....\)03.*/\2 \1/p' | {
        read -r width height
        echo "$((0x$width))x$((0x$height))"
    }
}

# resize MODE NAME: what one picture becomes, in picture.jpg
resize()
{
    rm -rf "$out0/resized" "$scratch/one"
    mkdir "$scratch/one"
    cp "$corpus/$2" "$scratch/one/"
    printf 'x' >"$scratch/one/${2%.*}.txt"
    expect 0 --input "$scratch/one" --output "$out0/resized/{0..}.tar" --resize 48 --resize-mode "$1"
    tar xOf "$out0/resized/0.tar" 000000000.jpg >"$scratch/picture.jpg"
}

# resized MODE NAME WANTED
resized()
{
    resize "$1" "$2"
    is "$1 $2" "$3" "$(size "$scratch/picture.jpg")"
}
source=$(size "$corpus/ycc_420.jpg")
width=${source%x*}
height=${source#*x}
[ "$width" -gt "$height" ] || complain "ycc_420.jpg is not wide: $source"
resized keep_ratio ycc_420.jpg $(((width * 96 / height + 1) / 2))x48
resized keep_ratio_largest ycc_420.jpg 48x$(((height * 96 / width + 1) / 2))
resized center_crop ycc_420.jpg 48x48
resized border ycc_420.jpg 48x48
resized center_crop colour6_depth16.png 48x48
# The same pixels with a note that they are to be turned by a quarter: stored upright.
is "stored sizes" "$(size "$corpus/turned_1.jpg")" "$(size "$corpus/turned_6.jpg")"
resize keep_ratio_largest turned_6.jpg
turned=$(size "$scratch/picture.jpg")
resized keep_ratio_largest turned_1.jpg "${turned#*x}x${turned%x*}"
# What is small enough stays as it is.
rm -rf "$out0/small"
expect 0 --input "$scratch/one" --output "$out0/small/{0..}.tar" --resize 4000 --resize-only-if-bigger
tar xOf "$out0/small/0.tar" 000000000.jpg | cmp -s - "$scratch/one/turned_1.jpg" ||
    complain "--resize-only-if-bigger changes a small image"
# A lower quality is fewer bytes.
expect 0 --input "$in" --output "$out0/q30/{0..}.tar" --resize 64 --quality 30
expect 0 --input "$in" --output "$out0/q95/{0..}.tar" --resize 64
[ "$(wc -c <"$out0/q30/0.tar")" -lt "$(wc -c <"$out0/q95/0.tar")" ] || complain "--quality does nothing"
expect 2 --input "$in" --output "$scratch/none/{0..}.tar" --resize-mode stretch

# Copies: the first of the order stays, in whatever output it is.
expect 0 --input "$in" --output "$out0/exact/{0..}.tar" --dedup exact --json
is "different files" 16 "$(number samples)"
is "exact copies" 48 "$(number left_out)"
says "$out" '"duplicate of another sample":	48'
says "$out" '"the same bytes as 001"'
is "the first stay" "$(seq 16 | words)" "$(captions "$out0/exact")"
expect 0 --input "$in" --output "$out0/exact2/{0..}.tar" --dedup exact --split a=0.5,b=0.5
is "one of each over all outputs" "$(seq 16 | words)" \
    "$(captions "$out0/exact2/a" "$out0/exact2/b")"
# The three samplings of one picture, the progressive one and the resized one are near copies.
expect 0 --input "$out0/q95/0.tar::$all/0.tar" --output "$out0/near/{0..}.tar" --dedup near --json
near=$(number samples)
[ "$near" -le 16 ] && [ "$near" -ge 5 ] || complain "near: $near stay"
says "$out" '"looks like 0.tar/000000000, '

# Threads change nothing: bytes, ledger, journal.
for jobs in 1 2 7; do
    expect 0 --input "$in" --output "$scratch/j$jobs/{000..}.tar" --resize 40 --dedup near --shuffle \
        --samples-per-shard 3 --min-size 2 --split a=0.7,b=0.3 --jobs $jobs --json
    printf %s "$out" | sed "s/j$jobs/j/" >"$scratch/j$jobs.json"
done
for jobs in 2 7; do
    diff -r "$scratch/j1" "$scratch/j$jobs" >/dev/null || complain "--jobs $jobs: other shards"
    cmp -s "$scratch/j1.json" "$scratch/j$jobs.json" || complain "--jobs $jobs: another report"
done

[ -e "$scratch/none/0.tar" ] && complain "a refused command left a shard"
finish "shard options"
