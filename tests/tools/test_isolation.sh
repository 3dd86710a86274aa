#!/bin/sh
# What reading shards does to the machine, seen by strace: it opens the shards it was given and
# nothing else, writes no file, asks no network, starts no program, whatever names stand in an
# archive. Writing shards stays in the folder it was given. Without strace, or where tracing is not
# permitted, the test is skipped (exit 77).
# Usage: sh test_isolation.sh path/to/diptych scratch-dir
. "$(dirname "$0")/../check.sh"
mkdir -p "$scratch/deep/er"
cd "$scratch/deep/er" || exit 1
strace -o trace true 2>strace.err || skip "no process can be traced: $(head -n 1 strace.err)"
export OMP_WAIT_POLICY=passive # as it is set, the program need not start itself again to set it
export ASAN_OPTIONS=detect_leaks=0 # a process that is traced cannot look for leaks

# An archive of hostile names: paths out of it, commands, addresses, lines, links.
mkdir parts
cp "$golden/shard_pixel.png" parts/p.png
printf 'a caption' >parts/p.txt
newline='
'
n=0
for name in ../x ../../../../../../etc/passwd /etc/passwd "$scratch/absolute" 'pipe:touch owned' \
    '|touch owned' 'http://diptych.invalid/x' 's3://bucket/x' "line${newline}break" '%s%n' '$(id)' \
    '/dev/tcp/127.0.0.1/80' '/proc/self/mem' 'good'; do
    for kind in png txt; do
        tar -rPf hostile.tar --transform "s|.*|$(printf %s "$name" | sed 's/[&|\\]/\\&/g').$kind|" \
            "parts/p.$kind" 2>tar.err || true
    done
    n=$((n + 1))
done
ln -s /etc/shadow parts/link.png
tar -rf hostile.tar -C parts link.png
[ "$(tar -tPf hostile.tar | grep -c '^\(\.\./\|/\)')" -ge 6 ] || complain "the archive is not hostile"

# trace WORDS...: run the program; leaves calls (what it did) and paths (whatever it named)
trace()
{
    strace -f -qq -s 400 -e trace=%file,%network,%process -o calls "$@" >out 2>err
    status=$?
    # A call that another thread's cuts in two has its words in the first half.
    grep -v 'resumed>' calls | grep -oE '^[0-9]+ +[a-z0-9_]+\(.*' |
        grep -E '^[0-9]+ +(open|openat|openat2|creat|stat|lstat|newfstatat|statx|access|faccessat|faccessat2|readlink|readlinkat|unlink|unlinkat|rename|renameat|renameat2|mkdir|mkdirat|link|linkat|symlink|symlinkat|chmod|fchmodat|chown|truncate|utimensat|chdir|statfs)\(' |
        grep -oE '"([^"\\]|\\.)*"' | sed 's/^"//; s/"$//' | sort -u |
        grep -vxF -- "$diptych" | grep -vE '^(|/etc/ld\.so\.(cache|preload)|(/usr)?/lib/.*|/proc/(cpuinfo|meminfo|stat|self/(maps|exe|cmdline|environ|cgroup|mountinfo|status|task(/.*)?))|/sys/(devices|fs/cgroup)/.*|/etc/localtime|/usr/share/zoneinfo/.*|/dev/null)$' \
            >paths
    return $status
}

# stays_inside WHAT PATTERN: no other path was named; no network, no program, no process
stays_inside()
{
    foreign=$(grep -vE "^($2)\$" paths)
    [ -z "$foreign" ] || complain "$1 looked at: $foreign"
    [ "$(grep -c 'execve(' calls)" -eq 1 ] || complain "$1 started a program: $(grep 'execve(' calls)"
    if grep -E '(socket|connect|sendto|bind|accept4?)\(' calls >network; then
        complain "$1 uses the network: $(head -n 2 network)"
    fi
    if grep -E '(clone3?|v?fork)\(' calls | grep -v CLONE_THREAD >processes; then
        complain "$1 makes a process: $(head -n 2 processes)"
    fi
}

# Everything that changes a file system.
writes()
{
    grep -E 'O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND' calls | grep -v '"/dev/null"'
    grep -E '^[0-9]+ +(creat|unlink|unlinkat|rename|renameat2?|mkdir|mkdirat|link|linkat|symlink|symlinkat|chmod|fchmodat|chown|truncate)\(' calls
}

reads_only()
{
    [ -z "$(writes)" ] || complain "$1 writes: $(writes | head -n 3)"
}

shard='hostile\.tar(\.idx)?'
trace "$diptych" inspect --shards hostile.tar --verify --json || [ $? -eq 2 ] || complain "inspect: $(cat err)"
grep -q "\"n_pairs\":$n" out || complain "not $n pairs: $(head -c 300 out)"
stays_inside inspect "$shard"
reads_only inspect
grep -q hostile.tar paths || complain "the trace of inspect does not show the shard: $(cat paths)"

trace "$diptych" bench data hostile.tar --workers 2 --size 32 || complain "bench data: $(cat err)"
stays_inside "bench data" "$shard"
reads_only "bench data"

# Writing: only below the folder that was named, from a folder with only what is in it.
trace "$diptych" shard --input parts --output 'made/{00000..}.tar' || complain "shard: $(cat err)"
stays_inside shard '\.|parts(/[a-z.]*)?|made(/.*)?'
writes | grep -vE '"made(/[^"]*)?"' >elsewhere && complain "shard writes elsewhere: $(cat elsewhere)"
[ -n "$(writes)" ] || complain "the trace of shard shows no write"

# The same from an archive: its names go into the new one and nowhere else.
trace "$diptych" shard --input hostile.tar --output 'again/{0..}.tar' || complain "shard: $(cat err)"
stays_inside "shard of an archive" "\.|$shard|again(/.*)?"
writes | grep -vE '"again(/[^"]*)?"' >elsewhere && complain "shard writes elsewhere: $(cat elsewhere)"
[ "$(tar -tPf again/0.tar | grep -c '\.png$')" -eq "$n" ] || complain "not $n pictures in the new archive"

# And the checks notice what they are for.
before=$failures
trace sh -c 'cat /etc/passwd >stolen; mv stolen taken' || true
stays_inside control "$shard" >control
reads_only control >>control
for part in /etc/passwd 'started a program' 'makes a process' 'writes'; do
    grep -qF -- "$part" control || complain "the checks do not see \"$part\": $(cat control)"
done
[ $((failures - before)) -eq 4 ] && failures=$before

for left in "$scratch/deep/x.png" "$scratch/absolute.png" owned; do
    [ ! -e "$left" ] || complain "$left was written"
done
finish isolation
