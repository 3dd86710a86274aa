# shard_check.sh - what the test_shard_*.sh scripts begin with: check.sh, whose expect now runs
# `diptych shard`; two whole images of a few bytes, $png and $jpg; and what looks into shards.
. "$(dirname "$0")/../check.sh"
subcommand=shard
png=$golden/shard_pixel.png
jpg=$golden/shard_pixel.jpg

# holds TAR MEMBER WANTED: a member's text
holds()
{
    is "$1 $2" "$3" "$(tar xOf "$1" "$2")"
}

# words: standard input on one line
words()
{
    tr '\n' ' ' | sed 's/ $//'
}
