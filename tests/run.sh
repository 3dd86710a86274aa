#!/bin/sh
# Build Diptych and run every test, from a bare Debian 12 on.
#
#   sh tests/run.sh [--sanitize | --threads]
#
# --sanitize  with AddressSanitizer and UndefinedBehaviorSanitizer, in build/sanitize instead of
#             build/release
# --threads   with ThreadSanitizer, in build/threads: the tests of what runs in threads of its own
#             (ledger, index, loader, the shard command). Not those of code that divides its
#             work by OpenMP: gcc's runtime for it is not built for ThreadSanitizer, which takes its
#             barriers for races.
#
# The last line is "N passed, N failed"; the exit status is 0 only if something passed and
# nothing failed.
set -u

cd "$(dirname "$0")/.." || exit 1

dir=build/release
set_up="-DCMAKE_BUILD_TYPE=Release -DDIPTYCH_SANITIZE=OFF"
only=""  # the tests to run, if not all; an extended regular expression
flags="" # of the compilers
case ${1-} in
"") ;;
# Debug information, but assert() stays: these are the builds that look for mistakes.
--sanitize)
    dir=build/sanitize
    set_up="-DCMAKE_BUILD_TYPE=RelWithDebInfo -DDIPTYCH_SANITIZE=ON"
    flags="-O1 -g"
    ;;
--threads)
    dir=build/threads
    set_up="-DCMAKE_BUILD_TYPE=RelWithDebInfo -DDIPTYCH_SANITIZE=OFF -DDIPTYCH_CUDA=OFF"
    flags="-O1 -g -fsanitize=thread"
    only="^test_(threads|faults|loader[a-z_]*|samples|shard_(command|inputs|options))$"
    ;;
*)
    echo "run.sh: unknown option \"$1\" (--sanitize, --threads)" >&2
    exit 2
    ;;
esac

# A step before the tests failed: that is one failure, and the summary still ends the output.
give_up()
{
    echo "run.sh: $1" >&2
    echo "0 passed, 1 failed"
    exit 1
}

sh tools/install_packages.sh build test || give_up "the packages could not be installed"
if [ -n "$flags" ]; then
    cmake -S . -B "$dir" -G Ninja $set_up -DDIPTYCH_WERROR=ON -DDIPTYCH_TESTS=ON \
        "-DCMAKE_C_FLAGS_RELWITHDEBINFO=$flags" "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=$flags" ||
        give_up "configuring failed"
else
    cmake -S . -B "$dir" -G Ninja $set_up -DDIPTYCH_WERROR=ON -DDIPTYCH_TESTS=ON ||
        give_up "configuring failed"
fi
targets=all
[ -z "$only" ] || targets="diptych $(ls tests/*/test_*.c | sed 's,.*/,,; s,\.c$,,' | grep -E "$only")"
cmake --build "$dir" --target $targets || give_up "building failed"

# The counts come from ctest's own report, one <testcase> a test with its status:
# run (passed), fail, or notrun and disabled (skipped).
report="$PWD/$dir/ctest.xml"
log="$dir/Testing/Temporary/LastTest.log"
rm -f "$report" "$log"
ctest --test-dir "$dir" ${only:+-R "$only"} --output-on-failure -j2 --output-junit "$report"
ctest_status=$?
[ -s "$report" ] || give_up "ctest left no report (status $ctest_status)"

count() { grep -c "<testcase .*status=\"$1\"" "$report"; }
passed=$(count run)
failed=$(count fail)
skipped=$(sed -n 's/.*<testcase name="\([^"]*\)".*status="\(notrun\|disabled\)".*/\1/p' "$report")
cases=""
[ ! -f "$log" ] || cases=$(sed -n 's/^\[  SKIPPED \] \([^ ]*\)$/\1/p' "$log" | sort -u)

[ -z "$skipped" ] || echo "skipped, $(echo "$skipped" | wc -l) tests:" $skipped
[ -z "$cases" ] || echo "skipped inside tests, $(echo "$cases" | wc -l) cases:" $cases
if [ "$ctest_status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    echo "run.sh: ctest says $ctest_status though no test is marked as failed" >&2
    failed=1
fi
if [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then
    echo "run.sh: no test ran" >&2
    failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
