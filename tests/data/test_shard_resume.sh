#!/bin/sh
# diptych shard: killed and interrupted runs are taken up, and end as a run in one go does.
# Usage: sh test_shard_resume.sh path/to/diptych scratch-dir
. "$(dirname "$0")/shard_check.sh"

corpus=$golden/image_corpus
{ printf '\000\000\010\003\000\000\013\270\000\000\000\002\000\000\000\003'
    awk 'BEGIN { for (i = 0; i < 18000; i++) printf "%c", 32 + i * i % 89 }'; } >"$scratch/images"
{ printf '\000\000\010\001\000\000\013\270'
    awk 'BEGIN { for (i = 0; i < 3000; i++) printf "%c", i % 97 == 5 ? 9 : 1 + i % 2 }'
} >"$scratch/labels"
printf 'none\ncat\ndog\n' >"$scratch/classes"
idx="--input $scratch/images --labels $scratch/labels --classnames $scratch/classes"

# 40 pictures, copies and bad files among them.
in=$scratch/in
mkdir "$in"
i=0
for round in 1 2 3 4; do
    for name in ycc_420.jpg grey.jpg rgb.jpg cmyk.jpg turned_3.jpg colour2_depth8.png \
        colour6_depth8.png arithmetic.jpg line.png; do
        i=$((i + 1))
        cp "$corpus/$name" "$in/$(printf %03d $i).${name#*.}"
        printf 'picture %d of %s' $i $name >"$in/$(printf %03d $i).txt"
    done
    printf '<html>' >"$in/bad$round.jpg"
    printf '\\ a page \033[1m' >"$in/bad$round.txt"
done

# tree FOLDER: names and contents of what is in it
tree()
{
    (cd "$1" && find . -type f | sort | xargs cksum)
}

# take_up NAME KILLS OPTIONS...: run to the end once, and once more killed at KILLS moments at
# least; both must end with the same files and the same report.
take_up()
{
    name=$1
    kills=$2
    shift 2
    expect 0 "$@" --output "$scratch/$name/whole/{000..}.tar" --json
    printf '%s\n' "$out" | sed "s/$name.whole/$name/" >"$scratch/$name.whole.json"
    killed=0
    rounds=0
    while [ $killed -lt "$kills" ] && [ $rounds -lt 200 ]; do
        rounds=$((rounds + 1))
        rm -rf "$scratch/$name/parts"
        tries=0
        ms=$((rounds * 7 % 40 + 4))
        while :; do
            "$diptych" shard "$@" --output "$scratch/$name/parts/{000..}.tar" --json \
                --jobs $((tries % 3 + 1)) >"$scratch/out" 2>"$scratch/err" &
            pid=$!
            sleep "0.$(printf %03d $ms)"
            kill -KILL $pid 2>/dev/null
            wait $pid 2>/dev/null
            status=$?
            [ $status -eq 0 ] && break
            # Killed after its last act, or it would have left its journal.
            [ -n "$(find "$scratch/$name/parts" -name sizes.json 2>/dev/null)" ] &&
                [ ! -e "$scratch/$name/parts/shards.journal" ] && break
            [ $status -eq 137 ] || complain "$name: exit $status: $(cat "$scratch/err")"
            for tar in $(find "$scratch/$name/parts" -name '*.tar' 2>/dev/null); do
                tar tf "$tar" >/dev/null || complain "$name: $tar is half a shard"
            done
            killed=$((killed + 1))
            tries=$((tries + 1))
            ms=$((ms + 5)) # so that it comes to an end
            [ $tries -gt 150 ] && complain "$name: no end after $tries kills" && return
        done
        is "$name: files after $tries kills" "$(tree "$scratch/$name/whole")" \
            "$(tree "$scratch/$name/parts")"
        sed "s/$name.parts/$name/" "$scratch/out" | cmp -s - "$scratch/$name.whole.json" ||
            complain "$name: another report after $tries kills"
    done
    [ $killed -ge "$kills" ] || complain "$name: only $killed runs were killed"
}
# shellcheck disable=SC2086
take_up idx 30 $idx --samples-per-shard 40 --shuffle --seed 3 --split train=0.8,val=0.15,test=0.05
take_up near 20 --input "$in" --samples-per-shard 2 --resize 96 --dedup near --shuffle
take_up exact 10 --input "$in" --max-shard-bytes 9000 --dedup exact --split a=0.6,b=0.4

# Interrupted: finished shards stay, half ones do not, and it says how to go on. 30,000 shards of
# one sample take long enough to be met.
{ printf '\000\000\010\003\000\000\165\060\000\000\000\001\000\000\000\002'
    head -c 60000 /dev/zero; } >"$scratch/many"
{ printf '\000\000\010\001\000\000\165\060'
    head -c 30000 /dev/zero; } >"$scratch/many_labels"
many="--input $scratch/many --labels $scratch/many_labels --classnames $scratch/classes
    --samples-per-shard 1 --shuffle"

# wait_for N: until shard N is there
wait_for()
{
    tries=0
    while [ ! -e "$scratch/stop/$1.tar" ] && [ $tries -lt 2000 ]; do
        sleep 0.01
        tries=$((tries + 1))
    done
}

# interrupt SIGNAL: run until three more shards are there, then send it twice, as timeout(1) does
interrupt()
{
    more=$(($(ls "$scratch/stop" 2>/dev/null | grep -c 'tar$') + 2))
    # shellcheck disable=SC2086
    "$diptych" shard $many --output "$scratch/stop/{0..}.tar" >"$scratch/out" 2>"$scratch/err" &
    pid=$!
    wait_for $more
    kill "-$1" $pid
    kill "-$1" $pid 2>/dev/null
    wait $pid 2>/dev/null
    is "exit status when interrupted" 1 $?
    says "$(cat "$scratch/err")" "finished shards stay: run the same command again to go on"
    is "half shards" "" "$(ls -A "$scratch/stop" | grep tmp)"
    [ -e "$scratch/stop/sizes.json" ] && complain "an interrupted run looks finished"
}
interrupt TERM
interrupt HUP
[ -e "$scratch/stop/$more.tar" ] || complain "the interrupted run left nothing"

# Other options or another input are refused, by name; --jobs may differ.
# shellcheck disable=SC2086
expect 2 $many --seed 2 --output "$scratch/stop/{0..}.tar"
says "$err" "seed = 0, now it is 2"
# shellcheck disable=SC2086
expect 2 $many --resize 5 --output "$scratch/stop/{0..}.tar"
says "$err" "resize = 0, now it is 5"
cp "$scratch/many_labels" "$scratch/labels.old"
printf '\001' | dd of="$scratch/many_labels" bs=1 seek=2000 conv=notrunc 2>/dev/null
# shellcheck disable=SC2086
expect 2 $many --output "$scratch/stop/{0..}.tar"
says "$err" "the input is not that of the unfinished run"
mv "$scratch/labels.old" "$scratch/many_labels"
mv "$scratch/stop/2.tar" "$scratch/away.tar"
# shellcheck disable=SC2086
expect 2 $many --output "$scratch/stop/{0..}.tar"
says "$err" "2.tar is not there as it was finished"
mv "$scratch/away.tar" "$scratch/stop/2.tar"

# One run at a time: while one works, another is refused.
n=$(ls "$scratch/stop/"*.tar | wc -l)
# shellcheck disable=SC2086
"$diptych" shard $many --output "$scratch/stop/{0..}.tar" >"$scratch/out" 2>"$scratch/err" &
pid=$!
wait_for $((n + 20))
# shellcheck disable=SC2086
"$diptych" shard $many --output "$scratch/stop/{0..}.tar" --overwrite >"$scratch/out2" 2>"$scratch/err2"
is "a second run" 2 $?
says "$(cat "$scratch/err2")" "another run is writing these shards"
kill -TERM $pid
wait $pid 2>/dev/null

# A journal with a torn end is used as far as it goes; one without a whole beginning is none.
printf 'deadbeef shard 0 99 9 9 9\nlost' >>"$scratch/stop/shards.journal"
for round in 1 2; do
    n=$(ls "$scratch/stop/"*.tar | wc -l)
    # shellcheck disable=SC2086
    "$diptych" shard $many --output "$scratch/stop/{0..}.tar" >"$scratch/out" 2>"$scratch/err" &
    pid=$!
    wait_for $((n + 3))
    kill -TERM $pid
    wait $pid 2>/dev/null
    says "$(cat "$scratch/err")" "going on after $n finished shards"
done
head -c 20 "$scratch/stop/shards.journal" >"$scratch/short"
mv "$scratch/short" "$scratch/stop/shards.journal"
# shellcheck disable=SC2086
expect 2 $many --output "$scratch/stop/{0..}.tar"
says "$err" "(--overwrite replaces them)"

# --overwrite begins anew and leaves nothing of the old run, also when it is killed in between.
# shellcheck disable=SC2086
expect 0 $idx --samples-per-shard 1000 --output "$scratch/fresh/{0..}.tar"
# shellcheck disable=SC2086
"$diptych" shard $idx --samples-per-shard 1000 --overwrite --output "$scratch/stop/{0..}.tar" \
    >/dev/null 2>&1 &
pid=$!
sleep 0.03
kill -KILL $pid
wait $pid 2>/dev/null
# shellcheck disable=SC2086
expect 0 $idx --samples-per-shard 1000 --overwrite --output "$scratch/stop/{0..}.tar"
is "after --overwrite" "$(tree "$scratch/fresh")" "$(tree "$scratch/stop")"
finish "shard resume"
