#!/bin/sh
# diptych inspect --shards --verify and --html: every kind of damage is named once and gives exit
# status 2; the page is whole, holds what was asked for, and nothing steers it.
# Usage: sh test_inspect.sh path/to/diptych scratch-dir
. "$(dirname "$0")/../check.sh"
subcommand="inspect --json"
cd "$scratch" || exit 1
mkdir pairs

# flip FILE OFFSET: another byte there
flip()
{
    old=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    printf "\\$(printf %03o $(((old + 1) % 256)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>dd.err
}

# Ten pairs in two shards with their indexes.
for i in 0 1 2 3 4 5 6 7 8 9; do
    cp "$golden/image_corpus/rgb.jpg" "pairs/$i.jpg"
    printf 'caption number %d' "$i" >"pairs/$i.txt"
done
"$diptych" shard --input pairs --output 'good/{00000..}.tar' --samples-per-shard 5 >out 2>err ||
    complain "shard: $(cat err)"
jpeg_bytes=$(wc -c <pairs/0.jpg)
text_at=$((512 + (jpeg_bytes + 511) / 512 * 512)) # the header of the first caption

expect 0 --shards 'good/{00000..00001}.tar' --verify
says "$out" '"n_shards":2' '"n_indexed_shards":2' '"n_compared_members":20' '"n_pairs":10' \
    '"dropped":0' '"faults":{}'
expect 0 --shards 'good/{00000..00001}.tar'
says "$out" '"n_pairs":10'
grep -q n_indexed_shards out && complain "without --verify the indexes are compared too"

# damaged: a fresh copy of the first shard with its index, for one damage
damaged()
{
    rm -rf bad
    mkdir bad
    cp good/00000.tar good/00000.tar.idx bad
}

# A picture's byte: the JPEG may still decode, the checksum does not agree. Named once.
damaged
flip bad/00000.tar $((512 + jpeg_bytes - 10))
expect 2 --shards bad/00000.tar --verify
says "$out" '"dropped":1' '"faults":{"bytes differ from the index":1}'
says "$err" 'bad/00000.tar: 000000000' '1 fault in bad/00000.tar'

# A caption's byte.
damaged
flip bad/00000.tar $((text_at + 512 + 3))
expect 2 --shards bad/00000.tar --verify
says "$out" '"dropped":1' '"faults":{"bytes differ from the index":1}'
expect 0 --shards bad/00000.tar
says "$out" '"dropped":1'

# A byte of a member that is neither picture nor caption nor label.
mkdir extra
cp pairs/0.jpg pairs/0.txt extra
printf '{"note": 1}' >extra/0.json
(cd extra && tar -cf ../extra.tar --sort=name -- *)
"$diptych" shard --input extra.tar --output 'with_json/{0..}.tar' >out 2>err ||
    complain "shard: $(cat err)"
expect 0 --shards with_json/0.tar --verify
says "$out" '"n_compared_members":3'
block=$(tar -tRf with_json/0.tar | sed -n 's/^block \([0-9]*\): .*\.json$/\1/p')
flip with_json/0.tar $((512 * (block + 1) + 3))
expect 2 --shards with_json/0.tar --verify
says "$out" '"n_pairs":1' '"dropped":1' '"faults":{"bytes differ from the index":1}'

# A header's byte: named, and with the index no sample is lost.
damaged
flip bad/00000.tar $((text_at + 10))
expect 2 --shards bad/00000.tar --verify
says "$out" '"n_pairs":5' '"damaged or truncated tar":'
says "$err" "at byte $text_at" 'no header leads to it'

# The index itself; one of another shard of the same size; a shard that has changed its size.
damaged
flip bad/00000.tar.idx 40
expect 2 --shards bad/00000.tar --verify
says "$out" '"n_pairs":5' '"faults":{"bytes differ from the index":1}' '"n_compared_members":0'
damaged
cp good/00001.tar.idx bad/00000.tar.idx
expect 2 --shards bad/00000.tar --verify
says "$err" 'another name'
damaged
head -c 4096 /dev/zero >>bad/00000.tar
expect 2 --shards bad/00000.tar --verify
says "$out" '"n_pairs":5' '"faults":{"bytes differ from the index":1}'
damaged
head -c $((text_at + 100)) good/00000.tar >bad/00000.tar
expect 2 --shards bad/00000.tar --verify

# Without an index what the headers and the members say is all there is.
damaged
rm bad/00000.tar.idx
flip bad/00000.tar 512
expect 2 --shards bad/00000.tar --verify
says "$out" '"n_indexed_shards":0' '"not an image format this build reads":1'

# What is no tar file at all is a fault among others, alone no data.
printf '<html>gone</html>' >gone.tar
expect 2 --shards 'gone.tar::good/00000.tar' --verify
says "$out" '"n_shards":2' '"n_compared_members":10' '"n_pairs":5' \
    '"faults":{"damaged or truncated tar":1}'
says "$err" 'gone.tar: not a tar file'
expect 2 --shards gone.tar --verify
says "$err" 'gone.tar: not a tar file' 'no usable sample'
damaged
printf '<html>' | dd of=bad/00000.tar conv=notrunc 2>dd.err # the index leads past it
expect 2 --shards bad/00000.tar --verify
says "$out" '"n_compared_members":10' '"n_pairs":5' '"faults":{"damaged or truncated tar":1}'

# Every fault by name, in a file.
damaged
for at in 512 $((text_at + 512)); do flip bad/00000.tar "$at"; done
flip bad/00000.tar $((2 * text_at + 1024 + 512 + 9)) # in the next picture
expect 2 --shards bad/00000.tar --verify --faults faults.jsonl
[ "$(wc -l <faults.jsonl)" -eq "$(number dropped)" ] ||
    complain "not every fault has its line: $(cat faults.jsonl)"
says "$(cat faults.jsonl)" '"key":"000000000"' '"key":"000000001"' \
    '"reason":"bytes differ from the index"' '"offset":512'

# What goes with what.
expect 2 --verify
says "$err" '--verify is about shards'
expect 2 --shards good/00000.tar --verify --no-decode
says "$err" '--no-decode does not go with --verify'
expect 2 --shards good/00000.tar --html nowhere/page.html
says "$err" 'nowhere/page.html'
expect 2 --shards nothing.tar --html page.html
[ -e page.html ] && complain "a refusal left a page"

# The page: as many samples as asked for, spread over both shards; whole or not at all.
expect 0 --shards 'good/{00000..00001}.tar' --html page.html --html-samples 4
[ "$(grep -c '<li>' page.html)" -eq 4 ] || complain "not 4 samples: $(grep -c '<li>' page.html)"
[ "$(grep -c 'src="data:image/png;base64,' page.html)" -eq 4 ] || complain "not 4 pictures"
[ "$(grep -c '<bdi>00000.tar' page.html)" -eq 2 ] || complain "not 2 samples of the first shard"
says "$(cat page.html)" 'caption number 9' '<dd>10</dd>' '<h2>4 of 10 samples</h2>' '</html>'
grep -q '<h2>What cannot' page.html && complain "a page without faults has a list of them"
expect 0 --shards 'good/{00000..00001}.tar' --html page.html
[ "$(grep -c '<li>' page.html)" -eq 10 ] || complain "not all 10 samples"
grep -q 'class="bad"' page.html && complain "a good sample is marked as bad"
[ "$(ls | grep -c 'page.html')" -eq 1 ] || complain "something beside the page: $(ls)"

# Faults are on it too, and the words of strangers stay words.
mkdir hostile
cp "$golden/shard_pixel.png" 'hostile/<i>&amp;.png'
printf '<script>alert(1)</script> "quoted" \047single\047 &amp; \001\302\205\033[2J' >'hostile/<i>&amp;.txt'
printf '\211PNG\r\n\032\nno more' >hostile/z.png
printf 'caf\351' >hostile/z.txt
cp "$golden/shard_pixel.png" hostile/labelled.png # needs no caption
printf 7 >hostile/labelled.cls
(cd hostile && LC_ALL=C tar -cf ../hostile.tar --sort=name -- *)
expect 2 --shards hostile.tar --verify --html page.html
says "$(cat page.html)" \
    '&#60;script&#62;alert(1)&#60;/script&#62; &#34;quoted&#34; &#39;single&#39; &#38;amp;' \
    '\x01\xc2\x85\x1b[2J' '&#60;i&#62;&#38;amp;' 'not UTF-8: caf\xe9' 'What cannot be used' \
    'broken or truncated image'
[ "$(grep -c '<li class="bad">' page.html)" -eq 1 ] && [ "$(grep -c '<li>' page.html)" -eq 2 ] ||
    complain "not one of three samples is marked as bad"
grep -qE '<(script|i)>' page.html && complain "a tag got through"
LC_ALL=C grep -q "$(printf '[\001-\010\013-\037\177]')" page.html && complain "a control character got through"
tail -c 8 page.html | grep -q '</html>' || complain "the page is cut"

finish inspect
