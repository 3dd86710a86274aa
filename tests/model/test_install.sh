#!/bin/sh
# Install into a scratch prefix; then build tests/model/example.c against it, once with pkg-config
# and once with CMake, and run both.
# Usage: sh test_install.sh path/to/diptych scratch-dir
set -eu
build=$(cd "$(dirname "$1")" && pwd)
tests=$(cd "$(dirname "$0")/.." && pwd)
scratch=$2
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch"
prefix=$scratch/prefix

fail()
{
    echo "FAILED: $*"
    exit 1
}

cmake --install "$build" --prefix "$prefix" >install.log || fail "install: $(cat install.log)"
lib=$(dirname "$(dirname "$(find "$prefix" -name diptych.pc)")")
for file in "$prefix/bin/diptych" "$lib/libdiptych.a" "$prefix/include/diptych/diptych.h" \
    "$prefix/include/diptych/core/status.h" "$lib/pkgconfig/diptych.pc" \
    "$lib/cmake/diptych/diptychConfig.cmake"; do
    [ -f "$file" ] || fail "$file is not installed"
done
"$prefix/bin/diptych" --version >/dev/null || fail "the installed program does not run"

# A library built with sanitizers needs their run time in the program too.
flags=
grep -q '^DIPTYCH_SANITIZE:BOOL=ON' "$build/CMakeCache.txt" && flags="-fsanitize=address,undefined"
compiler=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")

export PKG_CONFIG_PATH="$lib/pkgconfig"
# Word splitting is meant: these are lists of flags.
$compiler -std=c17 -Wall -Wextra -Werror $flags "$tests/model/example.c" -o by_pkg_config \
    $(pkg-config --cflags --libs diptych) || fail "pkg-config build"

mkdir project
cat >project/CMakeLists.txt <<END
cmake_minimum_required(VERSION 3.25)
project(example LANGUAGES C CXX)
find_package(diptych 0.1 REQUIRED)
add_executable(by_cmake "$tests/model/example.c")
target_link_libraries(by_cmake PRIVATE diptych::diptych)
END
cmake -S project -B project/build -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$compiler" \
    -DCMAKE_C_FLAGS="$flags" -DCMAKE_EXE_LINKER_FLAGS="$flags" >cmake.log 2>&1 ||
    fail "cmake: $(cat cmake.log)"
cmake --build project/build >build.log 2>&1 || fail "cmake build: $(cat build.log)"

model=$tests/golden/model
for program in ./by_pkg_config project/build/by_cmake; do
    $program "$model" "$model/0.png" "a red square" "two green dots" >out || fail "$program"
    [ "$(wc -l <out)" -eq 2 ] || fail "$program printed: $(cat out)"
    awk '{ sum += $1 } END { exit !(sum > 0.999 && sum < 1.001) }' out || fail "$(cat out)"
    $program nowhere "$model/0.png" text 2>err && fail "$program opened a model that is not there"
    grep -q nowhere err || fail "no reason given: $(cat err)"
done
echo "both builds work"
