#!/bin/sh
# diptych shard: folders, tables and IDX arrays, good and bad, and what it says about them.
# Usage: sh test_shard_command.sh path/to/diptych scratch-dir
. "$(dirname "$0")/shard_check.sh"

# A folder: sorted by path, captions as they are; what is no pair is left out and named.
in=$scratch/folder
mkdir -p "$in/b" "$in/.hidden"
cp "$png" "$in/b/two.png"
printf 'second\nzweite\n' >"$in/b/two.txt"
cp "$jpg" "$in/a.JPG"
printf '\n first \n' >"$in/a.txt"
cp "$png" "$in/c.png" && printf 'third' >"$in/c.txt"
cp "$png" "$in/alone.png"
printf 'text alone' >"$in/words.txt"
cp "$png" "$in/empty.png" && printf ' \n' >"$in/empty.txt"
cp "$png" "$in/latin.png" && printf 'caf\351' >"$in/latin.txt"
printf '<html>' >"$in/page.jpg" && printf 'a page' >"$in/page.txt"
printf '<svg/>' >"$in/drawing.svg" && printf 'a drawing' >"$in/drawing.txt"
cp "$png" "$in/.hidden/x.png" && printf 'hidden' >"$in/.hidden/x.txt"
ln -s .. "$in/b/loop"
expect 0 --input "$in" --output "$scratch/o1/{00000..}.tar" --samples-per-shard 2
says "$out" "wrote 3 pairs in 2 shards"
says "$out" "left out 6"
for name in alone.png words.txt empty latin page drawing.svg; do says "$err$out" "$name"; done
is "shards" "00000.tar 00000.tar.idx 00001.tar 00001.tar.idx sizes.json" \
    "$(ls "$scratch/o1" | words)"
is "members" "000000000.jpg 000000000.txt 000000001.png 000000001.txt" \
    "$(tar tf "$scratch/o1/00000.tar" | words)"
holds "$scratch/o1/00000.tar" 000000001.txt "second
zweite"
tar xOf "$scratch/o1/00000.tar" 000000000.jpg | cmp -s - "$jpg" || complain "image bytes changed"

# Existing shards are a refusal; --overwrite replaces, also those of a longer run.
expect 2 --input "$in" --output "$scratch/o1/{00000..}.tar"
says "$err" "00000.tar"
says "$err" "--overwrite"
touch "$scratch/o1/00007.tar.tmp-4711" "$scratch/o1/x.tar.tmp-1" # a killed run's, another's
expect 0 --input "$in" --output "$scratch/o1/{00000..}.tar" --overwrite --caption-line first --json
is "leftovers" "00000.tar 00000.tar.idx sizes.json x.tar.tmp-1" "$(ls "$scratch/o1" | words)"
holds "$scratch/o1/00000.tar" 000000000.txt "first"
holds "$scratch/o1/00000.tar" 000000001.txt "second"
says "$out" '"found":	9'
says "$out" '"samples":	3'
says "$out" '"left_out":	6'
says "$out" '"empty caption":	1'
says "$out" 'words.txt'
is "one JSON object" "{}" "$(printf %s "$out" | cut -c1 | tr -d '\t\n ' )"

# The same input gives the same bytes; --shuffle another order of the same samples.
expect 0 --input "$in" --output "$scratch/o2/{00000..}.tar" --caption-line first
cmp -s "$scratch/o1/00000.tar" "$scratch/o2/00000.tar" || complain "two runs differ"
for seed in 0 1 2 3; do
    expect 0 --input "$in" --output "$scratch/s$seed/{00000..}.tar" --shuffle --seed $seed
    tar xOf "$scratch/s$seed/00000.tar" --wildcards '*.txt' | grep -c . >"$scratch/n"
done
cmp -s "$scratch/s0/00000.tar" "$scratch/s1/00000.tar" &&
    cmp -s "$scratch/s0/00000.tar" "$scratch/s2/00000.tar" &&
    cmp -s "$scratch/s0/00000.tar" "$scratch/s3/00000.tar" && complain "--shuffle changes nothing"

# Tables: paths relative to the table, quotes, several captions of one image, bad rows.
cat >"$scratch/t.csv" <<'END'
id,title,filepath
1,"a, quoted ""caption""",folder/a.JPG
2,two,folder/b/two.png

3,"more
of a",folder/a.JPG
4,too,many,fields
5,,folder/c.png
6,no file,folder/none.png
7,a page,folder/page.jpg
END
expect 0 --input "$scratch/t.csv" --output "$scratch/o3/{00000..}.tar" --json
says "$out" '"found":	6'
says "$out" '"samples":	2'
says "$out" 't.csv: line 7'
says "$out" 'none.png'
says "$out" '"line 9: cannot open '
holds "$scratch/o3/00000.tar" 000000000.txt 'a, quoted "caption"
more of a'
holds "$scratch/o3/00000.tar" 000000001.txt two
printf 'image\ttext\nfolder/c.png\tsay "hi"\n' >"$scratch/t.tsv"
expect 2 --input "$scratch/t.tsv" --output "$scratch/o4/{00000..}.tar"
says "$err" "'filepath'"
says "$err" "'image', 'text'"
expect 0 --input "$scratch/t.tsv" --output "$scratch/o4/{00000..}.tar" \
    --csv-img-key image --csv-caption-key text
holds "$scratch/o4/00000.tar" 000000000.txt 'say "hi"'
says "$out" "wrote 1 pair in 1 shard:"
expect 2 --input "$scratch/t.tsv" --output "$scratch/o4/{00000..}.tar"
says "$err" "00000.tar exists (--overwrite replaces it)"

# IDX: 300 images of 2x3, two classes.
{ printf '\000\000\010\003\000\000\001\054\000\000\000\002\000\000\000\003'
    awk 'BEGIN { for (i = 0; i < 1800; i++) printf "%c", 32 + i % 90 }'; } >"$scratch/images"
{ printf '\000\000\010\001\000\000\001\054'
    i=0; while [ $i -lt 100 ]; do printf '\000\001\001'; i=$((i + 1)); done; } >"$scratch/labels"
gzip -k "$scratch/images"
printf 'cat\ndog\n' >"$scratch/classes"
printf 'a {c}.\nthe {c}, a {c}.\n\nany {c}\n' >"$scratch/templates"
idx="--labels $scratch/labels --classnames $scratch/classes --templates $scratch/templates"
expect 0 --input "$scratch/images.gz" $idx --output "$scratch/o5/{0..}.tar" --seed 5
expect 0 --input "$scratch/images" $idx --output "$scratch/o6/{0..}.tar" --seed 5
cmp -s "$scratch/o5/0.tar" "$scratch/o6/0.tar" || complain "plain and gzipped IDX differ"
is "members" 900 "$(tar tf "$scratch/o5/0.tar" | wc -l | tr -d ' ')"
holds "$scratch/o5/0.tar" 000000000.cls 0
holds "$scratch/o5/0.tar" 000000001.cls 1
says "$(tar xOf "$scratch/o5/0.tar" 000000001.txt)" dog
expect 0 --input "$scratch/images" $idx --output "$scratch/o7/{0..}.tar" --captions-per-image 3
is "captions" 3 "$(tar xOf "$scratch/o7/0.tar" 000000299.txt | sort -u | grep -c dog)"

# Held-out samples: about the fraction, none on both sides, a matter of name and seed alone.
expect 0 --input "$scratch/images" $idx --output "$scratch/o8/train/{0..}.tar" --seed 5 --json \
    --holdout 0.2 --holdout-output "$scratch/o8/test/{0..}.tar"
test=$(number holdout_samples)
train=$(number samples)
is "both sides together" 300 $((test + train))
[ "$test" -gt 30 ] && [ "$test" -lt 90 ] || complain "held out $test of 300"

# Refusals, before anything is written.
out5=$scratch/none/{0..}.tar
expect 2 --input "$scratch/images" --output "$out5"
says "$err" "--labels"
expect 2 --input "$scratch/labels" $idx --output "$out5"
expect 2 --input "$scratch/images" $idx --output "$out5" --captions-per-image 4
expect 2 --input "$scratch/images" --labels "$scratch/labels" --output "$out5" \
    --classnames "$scratch/classes" --templates "$scratch/classes"
says "$err" "{c}"
head -c 1000 "$scratch/images" >"$scratch/cut"
expect 2 --input "$scratch/cut" $idx --output "$out5"
head -c 60 "$scratch/images.gz" >"$scratch/cut.gz"
expect 2 --input "$scratch/cut.gz" $idx --output "$out5"
printf '\000\000\010\003\377\377\377\377\377\377\377\377\377\377\377\377' >"$scratch/huge"
expect 2 --input "$scratch/huge" $idx --output "$out5"
expect 2 --input "$in" $idx --output "$out5"
expect 2 --input "$in" --output "$scratch/none/00000.tar"
expect 2 --input "$in" --output "$out5" --holdout 0.5
expect 2 --input "$in" --output "$out5" --holdout 0.5 --holdout-output "$scratch/none/x{0..}.tar"
expect 2 --input "$in/.hidden/none" --output "$out5"
expect 2 --input "$scratch/t.csv" --output "$out5" --csv-separator long
expect 2 --input "$in" --output "$out5" --samples-per-shard 0
mkdir "$scratch/nothing"
expect 2 --input "$scratch/nothing" --output "$out5"
says "$err" "no jpg, jpeg, png or webp file"
[ -e "$scratch/none/0.tar" ] && complain "a refused command left a shard"
expect 1 --input "$in" --output "/proc/none/{0..}.tar"

finish "shard command"
