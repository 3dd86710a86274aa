# check.sh - what the tests that run the program begin with.
#
# Usage:   . "$(dirname "$0")/../check.sh"   in tests/ROOM/test_*.sh PROGRAM SCRATCH
# Sets $diptych and $golden, both absolute, and $scratch, absolute and empty. The working directory
# stays. What goes wrong is told to complain, which counts; finish ends the script.
set -u

diptych=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
golden=$(cd "$(dirname "$0")/../golden" && pwd)
rm -rf "$2"
mkdir -p "$2" || exit 1
scratch=$(cd "$2" && pwd)
subcommand="" # words that expect puts before its own
failures=0

complain()
{
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# skip WHY: ctest counts it as skipped.
skip()
{
    echo "SKIPPED: $*"
    exit 77
}

# expect STATUS WORDS...: run the program, leave its output in $out and $err, and in files of these
# names in $scratch.
expect()
{
    wanted=$1
    shift
    # shellcheck disable=SC2086
    "$diptych" $subcommand "$@" >"$scratch/out" 2>"$scratch/err"
    status=$?
    out=$(cat "$scratch/out")
    err=$(cat "$scratch/err")
    [ "$status" -eq "$wanted" ] ||
        complain "diptych $subcommand $(echo "$*" | cut -c1-300): exit $status, not $wanted:" \
            "$(tail -n 5 "$scratch/err" | cut -c1-400)"
}

# says TEXT PART...: each part is in the text.
says()
{
    text=$1
    shift
    [ $# -gt 0 ] || complain "says was not told what"
    for part in "$@"; do
        case $text in
        *"$part"*) ;;
        *) complain "\"$part\" is not in: $(printf %s "$text" | head -c 900)" ;;
        esac
    done
}

# is WHAT WANTED GOT
is()
{
    [ "$2" = "$3" ] || complain "$1: wanted '$2', got '$3'"
}

# number KEY: a number of the JSON in $out, the first under that key.
number()
{
    printf '%s\n' "$out" |
        sed -n "s/.*\"$1\":[[:space:]]*\(-\{0,1\}[0-9.][0-9.e+-]*\).*/\1/p" | head -n 1
}

# finish WHAT
finish()
{
    [ "$failures" -eq 0 ] || exit 1
    echo "$1: all as expected"
    exit 0
}
