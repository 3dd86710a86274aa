#!/bin/sh
# Search the fuzz targets for inputs that crash, leak, take over 2 seconds, or over 256 MB at once.
#
#   sh tests/fuzz.sh [SECONDS [NAME...]]
#
# Each target (tests/fuzz/fuzz_NAME.c) is searched for SECONDS (60), as many at a time as there are
# cores, from the seeds on, in build/fuzz. First each must find the canary behind its real work: a
# target that has stopped reaching anything fails here. What is found stays in build/fuzz/found; the
# exit status is 0 only when every canary was found and nothing else.
set -u
cd "$(dirname "$0")/.." || exit 1
dir=$PWD/build/fuzz
seconds=${1:-60}
[ $# -eq 0 ] || shift
case $seconds in
*[!0-9]* | "")
    echo "fuzz.sh: \"$seconds\" is no number of seconds" >&2
    exit 2
    ;;
esac

known=$(cd tests/fuzz && echo fuzz_*.c | sed 's/fuzz_//g; s/\.c//g')
[ $# -gt 0 ] || set -- $known
for name; do
    case " $known " in *" $name "*) continue ;; esac
    echo "fuzz.sh: no target \"$name\" ($known)" >&2
    exit 2
done

sh tools/install_packages.sh build fuzz || exit 1
rm -rf "$dir/found" "$dir/logs" "$dir/corpus"
mkdir -p "$dir/found" "$dir/logs"
cmake -S tests/fuzz -B "$dir" -G Ninja -DCMAKE_C_COMPILER=clang >"$dir/logs/build" 2>&1 &&
    cmake --build "$dir" >>"$dir/logs/build" 2>&1 || {
    tail -n 40 "$dir/logs/build"
    echo "fuzz.sh: the targets could not be built" >&2
    exit 1
}
memory=/dev/shm # the files that a target reads are written a thousand times a second
[ -w "$memory" ] || memory=$dir
TMPDIR=$(mktemp -d "$memory/diptych-fuzz-XXXXXX") || exit 1
export TMPDIR
lanes="" # processes
trap 'rm -rf "$TMPDIR"' EXIT
trap 'kill $lanes; exit 130' INT TERM
# A quarantine of the default size would count against the limit on memory.
export ASAN_OPTIONS="quarantine_size_mb=8:detect_leaks=1:abort_on_error=0"

# fuzz PROGRAM LOG WORDS...
fuzz()
{
    program=$1
    log=$dir/logs/$2
    words=tests/fuzz/${2%.*}.dict
    shift 2
    [ ! -f "$words" ] || set -- "-dict=$words" "$@"
    "$dir/$program" -timeout=2 -rss_limit_mb=512 -malloc_limit_mb=256 -print_final_stats=1 \
        -close_fd_mask=2 "$@" >"$log" 2>&1
}

# The seeds must pass by the canary, and the search must come upon it.
find_canary()
{
    mkdir -p "$dir/corpus/$1_canary"
    if ! fuzz "fuzz_$1_canary" "$1.seeds" -runs=0 "-artifact_prefix=$dir/found/$1-" \
        "$dir/seeds/$1"; then
        tail -n 30 "$dir/logs/$1.seeds"
        echo "$1: a seed fails"
        return 1
    fi
    fuzz "fuzz_$1_canary" "$1.canary" -seed=1 -max_total_time=120 \
        "-artifact_prefix=$dir/found/$1-" "$dir/corpus/$1_canary" "$dir/seeds/$1"
    if grep -q "canary: " "$dir/logs/$1.canary"; then
        rm -f "$dir/found/$1-"* # that was it
        return 0
    fi
    tail -n 30 "$dir/logs/$1.canary"
    echo "$1: the canary was not found"
    return 1
}

search()
{
    find_canary "$1" || return 1
    mkdir -p "$dir/corpus/$1"
    fuzz "fuzz_$1" "$1.search" "-max_total_time=$seconds" "-artifact_prefix=$dir/found/$1-" \
        "$dir/corpus/$1" "$dir/seeds/$1"
    status=$?
    stat() { sed -n "s/^stat::$2: *//p" "$dir/logs/$1.$3"; }
    reached=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$dir/logs/$1.search" | tail -n 1)
    if [ "$status" -ne 0 ]; then
        grep -v '^#' "$dir/logs/$1.search" | head -n 60
        echo "$1: FOUND $(ls "$dir/found" | grep "^$1-" | tr '\n' ' ')"
        return 1
    fi
    echo "$1: canary after $(stat "$1" number_of_executed_units canary) runs;" \
        "$(stat "$1" number_of_executed_units search) runs, $reached edges, nothing found"
}

# A lane takes every n_lanes-th target, beginning with its own number.
lane()
{
    number=$1 at=0 bad=0
    shift
    for name; do
        [ $((at % n_lanes)) -ne "$number" ] || search "$name" || bad=1
        at=$((at + 1))
    done
    return $bad
}

n_lanes=$(nproc)
failed=0 number=0
while [ "$number" -lt "$n_lanes" ]; do
    lane "$number" "$@" &
    lanes="$lanes $!"
    number=$((number + 1))
done
for process in $lanes; do wait "$process" || failed=1; done

[ "$failed" -eq 0 ] && echo "$# targets, nothing found"
exit $failed
