#!/bin/sh
# diptych index: the indexes are those that `diptych shard` writes, byte for byte; tars of other
# software get theirs, and the readers use it; what is wrong with a shard is named and never hidden
# behind an index; nothing half written is left.
# Usage: sh test_index.sh path/to/diptych scratch-dir
. "$(dirname "$0")/../check.sh"
cd "$scratch" || exit 1
mkdir pairs

# reports STATUS COMMAND WORDS...
reports()
{
    expect "$@" --json
}

# same FILE FILE
same()
{
    cmp -s "$1" "$2" || complain "$1 is not $2"
}

# none FILE...
none()
{
    for file in "$@"; do
        [ ! -e "$file" ] || complain "$file is there"
    done
}

# flip FILE OFFSET: another byte there
flip()
{
    old=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    printf "\\$(printf %03o $(((old + 1) % 256)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>dd.err
}

# Ten pairs in two shards, written with their indexes; one more shard with a name of over 100 bytes
# and an empty member.
for i in 0 1 2 3 4 5 6 7 8 9; do
    cp "$golden/image_corpus/rgb.jpg" "pairs/$i.jpg"
    printf 'caption number %d' "$i" >"pairs/$i.txt"
done
expect 0 shard --input pairs --output 'good/{00000..}.tar' --samples-per-shard 5
jpeg_bytes=$(wc -c <pairs/0.jpg)
text_at=$((512 + (jpeg_bytes + 511) / 512 * 512)) # the header of the first caption
mkdir long
cp pairs/0.jpg pairs/0.txt long
printf 'x' >"long/0.$(printf 'e%.0s' $(seq 150))"
: >long/0.empty
(cd long && tar -cf ../long.tar --sort=name -- *)
expect 0 shard --input long.tar --output 'good/long{0..}.tar'

# The same bytes, whatever way the shards are named and with any number of threads.
mkdir made
cp good/*.tar made
reports 0 index 'made/{00000..00001}.tar' made/long0.tar --jobs 1
says "$out" '"n_shards":3,"n_written":3,"n_replaced":0,"n_kept":0,"n_refused":0,"n_faults":0' \
    '"n_members":24' '"refused":[]'
for shard in 00000 00001 long0; do
    same made/$shard.tar.idx good/$shard.tar.idx
    same made/$shard.tar good/$shard.tar
done
rm made/*.idx
reports 0 index --shards made --jobs 3
says "$out" '"n_written":3'
for shard in 00000 00001 long0; do same made/$shard.tar.idx good/$shard.tar.idx; done

# What fits is left alone; --force writes it anew, with the same bytes.
touch -d 2001-01-01 made/00000.tar.idx
reports 0 index made/00000.tar::made/00001.tar
says "$out" '"n_written":0,"n_replaced":0,"n_kept":2,"n_refused":0' '"n_bytes":0'
[ "$(date -r made/00000.tar.idx +%Y)" = 2001 ] || complain "an index that fits was written again"
reports 0 index made/00000.tar --force
says "$out" '"n_replaced":1'
[ "$(date -r made/00000.tar.idx +%Y)" = 2001 ] && complain "--force did not write the index"
same made/00000.tar.idx good/00000.tar.idx
is "what --force says of the same bytes" "" "$err"

# What does not fit is replaced, and that is said: of another shard, of another size, damaged.
cp good/long0.tar.idx made/00000.tar.idx
cp good/00001.tar.idx made/long0.tar.idx
flip made/00001.tar.idx 40
reports 0 index made
says "$out" '"n_replaced":3,"n_kept":0'
says "$err" 'made/00000.tar.idx: it was made for another shard of this name; it was replaced' \
    'made/long0.tar.idx: it was made for another shard of this name; it was replaced' \
    'made/00001.tar.idx: its own checksum is wrong; it was replaced'
for shard in 00000 00001 long0; do same made/$shard.tar.idx good/$shard.tar.idx; done

# A file of other software is neither read nor replaced, but with --force.
printf 'v1.2 4\n' >made/00000.tar.idx
reports 2 index made
says "$out" '"n_replaced":0,"n_kept":2,"n_refused":1' '"refused":["made/00000.tar"]'
says "$err" 'other software' 'no index was written for 1 of 3 shards'
is "a file of other software" 'v1.2 4' "$(cat made/00000.tar.idx)"
reports 0 index made --force
same made/00000.tar.idx good/00000.tar.idx

# A tar of other software: its samples are the same with the index as without, and a byte that is
# changed afterwards is named. Folders, links and owners' names are in it.
mkdir -p other
ln -s 0.jpg pairs/link
tar -cf other/gnu.tar --sort=name --owner=somebody:1000 pairs
rm pairs/link
tar -cf other/pax.tar --format=pax --sort=name -C pairs .
for kind in gnu pax; do
    reports 0 inspect --shards other/$kind.tar
    before=$out
    reports 0 index other/$kind.tar
    says "$out" '"n_written":1' '"n_members":20'
    reports 0 inspect --shards other/$kind.tar
    is "$kind.tar with an index" "$before" "$out"
    reports 0 inspect --shards other/$kind.tar --verify
    says "$out" '"n_indexed_shards":1,"n_compared_members":20' '"dropped":0'
    block=$(tar -tRf other/$kind.tar | sed -n 's/^block \([0-9]*\): .*5\.txt$/\1/p')
    cp other/$kind.tar flipped.tar
    cp other/$kind.tar.idx flipped.tar.idx
    flip flipped.tar $((512 * (block + 1) + 3))
    reports 2 inspect --shards flipped.tar --verify
    says "$out" '"n_pairs":9' '"faults":{"bytes differ from the index":1}'
    says "$err" '5 (the checksum'
done
reports 0 index other/gnu.tar --force
says "$err" 'the links and devices of the shards, of which there are 1'

# --force over an index that fits: the byte changed since is said before it is forgotten.
reports 0 index flipped.tar
says "$out" '"n_kept":1'
reports 0 index flipped.tar --force
says "$err" 'flipped.tar.idx: it was replaced, though it said otherwise of 1 of its members'
reports 0 inspect --shards flipped.tar --verify

# damaged: fresh copies of two shards without index; the first one is then damaged.
damaged()
{
    rm -rf bad
    mkdir bad
    cp good/00000.tar good/00001.tar bad
}

# refused WORDS...: the first gets no index and is named so, the second gets its.
refused()
{
    reports 2 index bad --faults faults.jsonl
    says "$out" '"n_shards":2,"n_written":1,"n_replaced":0,"n_kept":0,"n_refused":1' \
        '"refused":["bad/00000.tar"]'
    says "$err" "$@"
    says "$(cat faults.jsonl)" '"shard":"bad/00000.tar"'
    none bad/00000.tar.idx
    same bad/00001.tar.idx good/00001.tar.idx
}

damaged
flip bad/00000.tar $((text_at + 10))
refused "damaged or truncated tar: bad/00000.tar: at byte $text_at (a header whose checksum is wrong)" \
    'no index was written for 1 of 2 shards'
damaged # two faults, both named
block=$(tar -tRf good/00000.tar | sed -n 's/^block \([0-9]*\): 000000003\.txt$/\1/p')
flip bad/00000.tar $((text_at + 10))
flip bad/00000.tar $((512 * block + 10))
refused "at byte $text_at (" "at byte $((512 * block)) ("
says "$out" '"n_faults":2'
damaged
head -c $((512 + jpeg_bytes - 100)) good/00000.tar >bad/00000.tar
refused 'but the file has'
damaged
head -c $((text_at + 1024)) good/00000.tar >bad/00000.tar
refused 'no end-of-archive block'
damaged
cat good/00001.tar >>bad/00000.tar
refused 'more data after it'
damaged
head -c 10240 /dev/zero >bad/00000.tar
refused 'no file is in it'
damaged
: >bad/00000.tar
refused 'the file is empty'
damaged
printf '<html>gone</html>' >bad/00000.tar
refused 'not a tar file: it looks like a web page'
damaged
gzip -c good/00000.tar >bad/00000.tar
refused 'gzip-compressed'

# A shard that was cut keeps the index that names what is lost, with --force too; one that was only
# freed of padding gets a new one.
damaged
cp good/00000.tar.idx good/00001.tar.idx bad
head -c $((text_at + 1024)) good/00000.tar >bad/00000.tar
for force in '' --force; do
    reports 2 index bad $force
    says "$out" '"n_refused":1'
    same bad/00000.tar.idx good/00000.tar.idx
done
reports 0 inspect --shards bad/00000.tar
says "$out" '"n_samples":1' '"dropped":4'
damaged
head -c 9216 /dev/zero >>bad/00000.tar
reports 0 index bad
cp good/00000.tar bad
reports 0 index bad
says "$out" '"n_replaced":1,"n_kept":1'
same bad/00000.tar.idx good/00000.tar.idx

# What cannot be found or written.
reports 2 index bad/00000.tar bad/00007.tar bad/00008.tar
says "$err" '2 of 3 files cannot be read' 'bad/00007.tar' 'bad/00008.tar'
reports 2 index
says "$err" 'shards'
reports 2 index bad --jobs -1
rm bad/*.idx
mkdir bad/00000.tar.idx
reports 2 index bad
says "$err" 'other software'
same bad/00001.tar.idx good/00001.tar.idx
reports 1 index bad --force
says "$err" 'it is a directory'

# Interrupted: what is there is whole, and the same command goes on. Shards that take a while, of
# files without blocks of their own.
mkdir many
mkdir big
truncate -s 1G big/0.jpg
printf 'one' >big/0.txt
tar -cf - -C big 0.jpg 2>tar.err | head -c 512 >many/00.tar
truncate -s $((512 + 1024 * 1024 * 1024)) many/00.tar
tar -cf - -C big 0.txt >>many/00.tar
(while [ ! -e read ]; do touch many/00.tar && sleep 0.02; done) &
reports 2 index many # one that changes while it is read has no checksums to write down
: >read
wait
says "$err" 'many/00.tar (it was changed while it was read)'
none many/00.tar.idx
reports 0 index many
mv many/00.tar.idx whole.idx
for i in 01 02 03 04 05 06 07; do ln many/00.tar many/$i.tar; done
for signal in TERM HUP KILL; do
    rm -f many/*.idx
    "$diptych" index many --jobs 1 >killed.out 2>killed.err &
    child=$!
    while [ ! -e many/00.tar.idx ] && kill -0 $child 2>kill.err; do sleep 0.02; done
    kill -s $signal $child 2>kill.err
    wait $child 2>kill.err
    status=$?
    if [ $signal = KILL ]; then
        [ $status -eq 137 ] || complain "SIGKILL: exit $status: $(cat killed.err)"
    else
        [ $status -eq 1 ] || complain "SIG$signal: exit $status: $(cat killed.err)"
        says "$(cat killed.err)" 'stopped on request' 'of 8 shards are done'
        none many/*.tmp-*
    fi
    none many/07.tar.idx
    for index in many/*.idx; do same "$index" whole.idx; done
    reports 0 index many --jobs 1
    for i in 00 01 02 03 04 05 06 07; do same many/$i.tar.idx whole.idx; done
    [ "$(number n_kept)" -gt 0 ] || complain "after SIG$signal it began anew: $out"
done
rm -rf many big

finish index
