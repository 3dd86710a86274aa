# Sourced by the test_shard_*.sh scripts: . shard_check.sh path/to/diptych scratch-dir
# Sets $diptych, $scratch (empty), $golden, and two whole images of a few bytes, $png and $jpg.
diptych=$1
scratch=$2
golden=$(dirname "$0")/../golden
png=$golden/shard_pixel.png
jpg=$golden/shard_pixel.jpg
rm -rf "$scratch"
mkdir -p "$scratch" || exit 1
failures=0

complain()
{
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# expect STATUS WORDS...: run `diptych shard`, leave its output in $out and $err.
expect()
{
    wanted=$1
    shift
    "$diptych" shard "$@" >"$scratch/out" 2>"$scratch/err"
    status=$?
    out=$(cat "$scratch/out")
    err=$(cat "$scratch/err")
    [ "$status" -eq "$wanted" ] || complain "shard $*: exit $status, not $wanted: $err"
}

# says TEXT PART
says()
{
    case $1 in
    *"$2"*) ;;
    *) complain "\"$2\" is not in: $1" ;;
    esac
}

# is WHAT WANTED GOT
is()
{
    [ "$2" = "$3" ] || complain "$1: wanted '$2', got '$3'"
}

# holds TAR MEMBER WANTED: a member's text
holds()
{
    is "$1 $2" "$3" "$(tar xOf "$1" "$2")"
}

# figure NAME: a number of the JSON in $out, the first under that name
figure()
{
    printf %s "$out" | sed -n "s/.*\"$1\":[^0-9]*\([0-9]*\).*/\1/p" | head -1
}

# words: standard input on one line
words()
{
    tr '\n' ' ' | sed 's/ $//'
}

finish()
{
    [ "$failures" -eq 0 ] || exit 1
    echo "$1: all as expected"
    exit 0
}
