#!/bin/sh
# The frame of the program: help, version, refusals, exit statuses, a broken standard output.
# Usage: sh test_cli.sh path/to/diptych scratch-dir
set -u
diptych=$1
scratch=$2
rm -rf "$scratch"
mkdir -p "$scratch" || exit 1
failures=0

complain()
{
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# expect STATUS WORDS...: run the program, leave its output in $out and $err.
expect()
{
    wanted=$1
    shift
    "$diptych" "$@" >"$scratch/out" 2>"$scratch/err"
    status=$?
    out=$(cat "$scratch/out")
    err=$(cat "$scratch/err")
    [ "$status" -eq "$wanted" ] || complain "diptych $*: exit $status, not $wanted: $err"
}

# says TEXT PART
says()
{
    case $1 in
    *"$2"*) ;;
    *) complain "\"$2\" is not in: $1" ;;
    esac
}

expect 0 --version
case $out in
"diptych "[0-9]*.[0-9]*.[0-9]*) ;;
*) complain "version is \"$out\"" ;;
esac
expect 2 --version extra
expect 2
says "$err" "SYNOPSIS"
expect 0 help
[ -z "$err" ] || complain "help writes on stderr: $err"
expect 0 --help
commands="tokenizer shard index pretrain zeroshot recall embed export inspect bench"
for command in $commands; do
    says "$out" "    $command "
done

for command in $commands; do
    expect 0 help "$command"
    page=$out
    for part in NAME SYNOPSIS DESCRIPTION "EXIT STATUS" "diptych $command - "; do
        says "$page" "$part"
    done
    long=$(awk 'length($0) > 100' "$scratch/out")
    [ -z "$long" ] || complain "help $command has long lines: $long"
    expect 0 "$command" --help
    [ "$out" = "$page" ] || complain "$command --help is another page than help $command"
    expect 2 "$command" --no-such-option-at-all
    says "$err" "diptych $command: "
done

expect 2 pretrian
says "$err" 'diptych: there is no command "pretrian", did you mean "pretrain"?'
expect 2 help tokeniser
says "$err" 'did you mean "tokenizer"?'
expect 2 help shard export
says "$err" 'unexpected word "export"'
expect 2 "$(printf 'a\033[31mb')"
case $err in
*"$(printf '\033')"*) complain "an escape byte reached the terminal" ;;
esac

# Output that cannot be written is a failure, not a success.
if [ -w /dev/full ]; then
    "$diptych" help >/dev/full 2>"$scratch/err"
    [ $? -eq 1 ] || complain "a full disk under standard output is not exit 1"
    says "$(cat "$scratch/err")" "cannot write to standard output: No space left on device"
fi
"$diptych" help >&- 2>"$scratch/err"
[ $? -eq 1 ] || complain "a closed standard output is not exit 1"
{
    "$diptych" help 2>"$scratch/err"
    echo $? >"$scratch/status"
} | true
# The reader may or may not be gone before the text arrives.
case $(cat "$scratch/status") in
0 | 1) ;;
*) complain "a closed pipe gives exit $(cat "$scratch/status")" ;;
esac

[ "$failures" -eq 0 ] || exit 1
echo "the command line's frame is as it should be"
