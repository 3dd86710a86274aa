#!/bin/sh
# diptych shard: JSON lines, COCO captions, Karpathy's splits, folders of classes, other shards.
# Usage: sh test_shard_inputs.sh path/to/diptych scratch-dir
. "$(dirname "$0")/shard_check.sh"

in=$scratch/in
mkdir -p "$in/a" "$in/b"
cp "$png" "$in/a/one.png"
cp "$jpg" "$in/b/two.jpg"
cp "$golden/image_corpus/lossy.webp" "$in/three.webp"
printf '<html>' >"$in/page.jpg"

# JSON lines: a string or a list of strings; rows of one image together; bad rows named.
cat >"$in/list.jsonl" <<'END'
{"image": "a/one.png", "caption": "first", "more": [1, {"x": null}]}
{"image": "b/two.jpg", "caption": ["second", "zweite\nZeile", 7]}

not json
[1, 2]
{"image": "a/one.png", "caption": "again \"quoted\" \u00e9"}
{"caption": "no image"}
{"image": "a/one.png"}
{"image": "b/two.jpg", "caption": []}
{"image": "", "caption": "an empty path"}
{"image": "a/one.png", "caption": "   "}
{"image": "gone.png", "caption": "a file that is not there"}
{"image": "page.jpg", "caption": "a page"}
{"image": "three.webp", "caption": "third", "caption": "twice"}
END
printf '{"image": "three.webp", "caption": "third"}' >>"$in/list.jsonl" # no newline at the end
expect 0 --input "$in/list.jsonl" --output "$scratch/jsonl/{0..}.tar" --json
is "jsonl samples" 3 "$(number samples)"
holds "$scratch/jsonl/0.tar" 000000000.txt 'first
again "quoted" é'
holds "$scratch/jsonl/0.tar" 000000001.txt 'second
zweite Zeile'
holds "$scratch/jsonl/0.tar" 000000002.txt third
tar xOf "$scratch/jsonl/0.tar" 000000002.webp | cmp -s - "$in/three.webp" || complain "webp bytes"
for place in 2 4 5 7 8 9 10 11 14; do says "$out" "list.jsonl: line $place\""; done
says "$out" 'list.jsonl: gone"'
says "$out" 'line 12: cannot open'
is "jsonl left out" 11 "$(number left_out)"
printf '{"file_name": "one.png", "text": "t"}\n' >"$in/hf.jsonl"
expect 0 --input "$in/hf.jsonl" --output "$scratch/jsonl2/{0..}.tar" --images "$in/a" \
    --image-key file_name --caption-key text
holds "$scratch/jsonl2/0.tar" 000000000.txt t
expect 2 --input "$in/hf.jsonl" --output "$scratch/none/{0..}.tar"
says "$err" "no string under the key 'image'"
says "$err" "no usable pair"
[ -e "$scratch/none/shards.journal" ] && complain "a journal without a shard stays"

# Empty lines cost nothing, however many they are.
{ head -c 2000000 /dev/zero | tr '\000' '\n'
    printf '{"image": "a/one.png", "caption": "after them"}\n'; } >"$in/blank.jsonl"
expect 0 --input "$in/blank.jsonl" --output "$scratch/blank/{0..}.tar"
holds "$scratch/blank/0.tar" 000000000.txt 'after them'

# COCO: several captions an image, in the order of the images; ids by number or text.
cat >"$in/coco.json" <<'END'
{"info": {"a": [1, "]}"]}, "licenses": [],
 "images": [{"id": 7, "file_name": "b/two.jpg", "width": 1},
            {"id": 5, "file_name": "a/one.png"},
            {"id": "x", "file_name": "three.webp"},
            {"id": 5, "file_name": "three.webp"},
            {"id": 9, "file_name": "uncaptioned.jpg"},
            {"file_name": "no id"}],
 "annotations": [{"id": 1, "image_id": 5, "caption": "one"},
                 {"id": 2, "image_id": 7, "caption": "two"},
                 {"id": 3, "image_id": 5, "caption": " eins\n"},
                 {"id": 4, "image_id": 6, "caption": "of nothing"},
                 {"id": 5, "image_id": 7},
                 {"id": 6, "image_id": 7, "caption": 1e999},
                 {"id": 7, "image_id": "x", "caption": "three"}]}
END
expect 0 --input "$in/coco.json" --output "$scratch/coco/{0..}.tar" --json
is "coco samples" 3 "$(number samples)"
holds "$scratch/coco/0.tar" 000000000.txt two
holds "$scratch/coco/0.tar" 000000001.txt 'one
eins'
holds "$scratch/coco/0.tar" 000000002.txt three
for place in 'images[3]' 'images[4]' 'images[5]' 'annotations[3]' 'annotations[4]' \
    'annotations[5]'; do
    says "$out" "$place"
done
is "coco left out" 6 "$(number left_out)"
# Two ids that are one number in floating point must not share captions.
cat >"$in/large.json" <<'END'
{"images": [{"id": 9007199254740993, "file_name": "a/one.png"}, {"id": 1, "file_name": "b/two.jpg"}],
 "annotations": [{"image_id": 9007199254740992, "caption": "of another"},
                 {"image_id": 1, "caption": "two"}]}
END
expect 0 --input "$in/large.json" --output "$scratch/large/{0..}.tar" --json
is "samples with ids that can be told apart" 1 "$(number samples)"
says "$out" "below 2^53"
mkdir "$scratch/elsewhere"
cp "$in/coco.json" "$scratch/elsewhere"
expect 0 --input "$scratch/elsewhere/coco.json" --images "$in" --output "$scratch/coco2/{0..}.tar"
cmp -s "$scratch/coco/0.tar" "$scratch/coco2/0.tar" || complain "--images changes the shards"
for cut in 1 100 400 700; do
    head -c $cut "$in/coco.json" >"$in/cut.json"
    expect 2 --input "$in/cut.json" --output "$scratch/none/{0..}.tar" --input-format coco
    says "$err" "not one whole JSON object"
done
printf '{"images": [{"id": 1, "file_name": "x"} {"id": 2}], "annotations": []}' >"$in/bad.json"
expect 2 --input "$in/bad.json" --output "$scratch/none/{0..}.tar"
says "$err" "',' is missing here"
printf '{"images": {}, "annotations": []}' >"$in/bad.json"
expect 2 --input "$in/bad.json" --output "$scratch/none/{0..}.tar"
says "$err" "an array is missing here"
printf '{"data": []}' >"$in/bad.json"
expect 2 --input "$in/bad.json" --output "$scratch/none/{0..}.tar"
says "$err" "neither COCO's nor Karpathy's"

expect 1 --input "$scratch/none.json" --output "$scratch/none/{0..}.tar"
says "$err" "cannot open"

# Karpathy: splits chosen, filepath optional.
cat >"$in/dataset.json" <<'END'
{"dataset": "coco", "images": [
 {"filepath": "a", "filename": "one.png", "imgid": 0, "split": "train", "cocoid": 5,
  "sentences": [{"tokens": ["one"], "raw": "One.", "sentid": 0}, {"raw": "Uno.", "tokens": []}]},
 {"filepath": "b", "filename": "two.jpg", "split": "restval", "sentences": [{"raw": "Two."}]},
 {"filename": "three.webp", "split": "test", "sentences": [{"raw": "Three."}, {"raw": ""}]},
 {"filename": "a/one.png", "split": "val", "sentences": []}]}
END
expect 0 --input "$in/dataset.json" --output "$scratch/k1/{0..}.tar" --json
is "karpathy samples" 3 "$(number samples)"
is "karpathy left out" 2 "$(number left_out)"
holds "$scratch/k1/0.tar" 000000000.txt 'One.
Uno.'
holds "$scratch/k1/0.tar" 000000002.txt Three.
expect 0 --input "$in/dataset.json" --output "$scratch/k2/{0..}.tar" --json \
    --karpathy-split train,restval
is "train and restval" 2 "$(number samples)"
holds "$scratch/k2/0.tar" 000000001.txt Two.
expect 2 --input "$in/dataset.json" --output "$scratch/none/{0..}.tar" --karpathy-split train,dev
says "$err" "no image is of the split 'dev'; the splits are train, restval, test, val"
expect 2 --input "$in/list.jsonl" --output "$scratch/none/{0..}.tar" --karpathy-split train
says "$err" "--karpathy-split goes with"

# A folder of classes: numbered by sorted name, an empty one too.
mkdir -p "$scratch/classes/dog/deep" "$scratch/classes/cat" "$scratch/classes/bird"
cp "$png" "$scratch/classes/dog/deep/1.png"
cp "$jpg" "$scratch/classes/cat/2.jpg"
cp "$jpg" "$scratch/classes/cat/1.jpg"
cp "$jpg" "$scratch/classes/stray.jpg"
printf 'GIF89a' >"$scratch/classes/cat/3.gif"
expect 0 --input "$scratch/classes" --input-format classes --output "$scratch/c1/{0..}.tar" --json
is "class samples" 3 "$(number samples)"
is "class left out" 2 "$(number left_out)"
is "classnames" "bird cat dog" "$(words <"$scratch/c1/classnames.txt")"
is "class members" "000000000.jpg 000000000.cls 000000001.jpg 000000001.cls 000000002.png 000000002.cls" \
    "$(tar tf "$scratch/c1/0.tar" | words)"
holds "$scratch/c1/0.tar" 000000000.cls 1
holds "$scratch/c1/0.tar" 000000002.cls 2
printf 'a {c}\nthe {c}\n' >"$scratch/templates"
expect 0 --input "$scratch/classes" --input-format classes --output "$scratch/c2/{0..}.tar" \
    --templates "$scratch/templates" --captions-per-image 2
is "captions" "a dog the dog" "$(tar xOf "$scratch/c2/0.tar" 000000002.txt | sort | words)"
expect 2 --input "$scratch/classes" --output "$scratch/none/{0..}.tar"
expect 2 --input "$scratch/classes/dog/deep" --input-format classes --output "$scratch/none/{0..}.tar"
says "$err" "no folder in it to be a class"

# Shards: every member byte for byte, in new shards; what is no sample is named.
w=$scratch/made
mkdir "$w"
cp "$jpg" "$w/k1.jpg"; printf '  kept\r\nas it is ' >"$w/k1.txt"; printf '{"a": 1.50}' >"$w/k1.json"
printf 'mask' >"$w/k1.seg.png"
cp "$png" "$w/k2.PNG"; printf '3\n' >"$w/k2.cls"
cp "$png" "$w/k3.png"; printf '{"caption": "only here"}' >"$w/k3.json"
cp "$png" "$w/k4.png"
printf 'no image' >"$w/k5.txt"
cp "$jpg" "$w/k6.jpg"; printf ' ' >"$w/k6.txt"
printf '<html>' >"$w/k7.jpg"; printf 'a page' >"$w/k7.txt"
(cd "$w" && tar cf ../in1.tar k1.* k2.* k3.* && tar cf ../in2.tar k4.* k5.* k6.* k7.* k1.jpg k1.txt)
expect 0 --input "$scratch/in1.tar::$scratch/in2.tar" --output "$scratch/re/{0..}.tar" --json \
    --samples-per-shard 3
is "samples of shards" 4 "$(number samples)"
is "left out of shards" 4 "$(number left_out)"
for key in k4 k5 k6 k7; do says "$out" "$key\""; done
is "members" "000000000.jpg 000000000.txt 000000000.json 000000000.seg.png 000000001.PNG \
000000001.cls 000000002.png 000000002.json" "$(tar tf "$scratch/re/0.tar" | words)"
for pair in 000000000.jpg:k1.jpg 000000000.txt:k1.txt 000000000.json:k1.json \
    000000000.seg.png:k1.seg.png 000000001.PNG:k2.PNG 000000001.cls:k2.cls 000000002.json:k3.json; do
    tar xOf "$scratch/re/0.tar" "${pair%:*}" | cmp -s - "$w/${pair#*:}" || complain "$pair differ"
done
# Again from a folder, with the index and without: the same bytes.
expect 0 --input "$scratch/re" --output "$scratch/re2/{0..}.tar" --samples-per-shard 3
cmp -s "$scratch/re/0.tar" "$scratch/re2/0.tar" && cmp -s "$scratch/re/1.tar" "$scratch/re2/1.tar" ||
    complain "shards of shards differ"
rm "$scratch/re/"*.idx
expect 0 --input "$scratch/re/{0..1}.tar" --output "$scratch/re3/{0..}.tar" --samples-per-shard 3
cmp -s "$scratch/re/0.tar" "$scratch/re3/0.tar" || complain "the index changes the shards"
# A byte that differs from the index is named.
printf X | dd of="$scratch/re2/1.tar" bs=1 seek=600 conv=notrunc 2>/dev/null
expect 0 --input "$scratch/re2" --output "$scratch/re4/{0..}.tar" --json
is "samples beside damage" 3 "$(number samples)"
says "$out" "bytes differ from the index"
says "$out" "1.tar/000000003"
# Damage in a header: what is missing is not joined over it.
blocks=$((($(wc -c <"$jpg") + 511) / 512))
printf X | dd of="$scratch/in1.tar" bs=1 seek=$((512 * (1 + blocks))) conv=notrunc 2>/dev/null
expect 0 --input "$scratch/in1.tar::$scratch/in2.tar" --output "$scratch/re5/{0..}.tar" --json
says "$out" "damaged or truncated tar"
is "samples beside a damaged header" 3 "$(number samples)"
expect 2 --input "$scratch/in9.tar" --output "$scratch/none/{0..}.tar"
printf 'x' >"$scratch/text.tar"
expect 2 --input "$scratch/text.tar" --output "$scratch/none/{0..}.tar"

expect 2 --input "$scratch/nowhere" --output "$scratch/none/{0..}.tar"
says "$err" "there is no such file or folder"

# Shards that are read are never written over, by whatever path.
cp "$scratch/re/0.tar" "$scratch/before.tar"
for output in "$scratch/re/{0..}.tar" "$scratch/./re/{0..}.tar"; do
    expect 2 --input "$scratch/re" --output "$output" --overwrite
    says "$err" "would write over it"
done
cmp -s "$scratch/re/0.tar" "$scratch/before.tar" || complain "a refused command changed its input"
expect 0 --input "$scratch/re" --output "$scratch/re/part-{0..}.tar"

# Without file descriptors the run stops; it does not leave out what could not be opened.
for limit in 4 5 6 7 8; do
    for input in "$in/hf.jsonl --images $in/a --image-key file_name --caption-key text" \
        "$scratch/re/0.tar"; do
        # shellcheck disable=SC2086
        (ulimit -n $limit && "$diptych" shard --input $input --overwrite \
            --output "$scratch/few/{0..}.tar") >"$scratch/out" 2>"$scratch/err"
        status=$?
        [ $status -eq 127 ] && continue # too few for the program's libraries
        [ $status -eq 0 ] && says "$(cat "$scratch/out")" "left out 0" && continue
        is "exit status with $limit descriptors" 1 $status
        says "$(cat "$scratch/err")" "Too many open files"
    done
done

[ -e "$scratch/none/0.tar" ] && complain "a refused command left a shard"
finish "shard inputs"
