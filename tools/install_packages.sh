#!/bin/sh
# Install the Debian packages Diptych needs, those that are missing only.
#
#   sh tools/install_packages.sh [build] [test] [data] [fuzz]      (no group: build test)
#
# build  compiler, CMake and the libraries the program links
# test   what the tests need besides: the images they read, a browser (122 MB) that shows the pages
#        the program writes, and strace, which sees the files it opens
# data   the two packages with images alone
# fuzz   clang with libFuzzer, for tests/fuzz.sh
#
# Works as root or through sudo. When nothing is missing it touches neither the network nor apt.
set -eu

build="build-essential cmake ninja-build pkg-config libdnnl-dev libjpeg62-turbo-dev libpng-dev
       libwebp-dev zlib1g-dev libcjson-dev libsentencepiece-dev"
data="dataset-fashion-mnist tuxpaint-stamps-default"
test="libcmocka-dev chromium strace $data"
fuzz="clang libclang-rt-14-dev"

wanted=""
[ $# -gt 0 ] || set -- build test
for group in "$@"; do
    case $group in
    build) wanted="$wanted $build" ;;
    test) wanted="$wanted $test" ;;
    data) wanted="$wanted $data" ;;
    fuzz) wanted="$wanted $fuzz" ;;
    *)
        echo "install_packages.sh: no group \"$group\" (build, test, data, fuzz)" >&2
        exit 2
        ;;
    esac
done

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "install_packages.sh: this is no Debian system; needed are:" $wanted >&2
    exit 1
fi

# One query for all; a package that is unknown to dpkg is not in its answer.
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null |
    sed -n 's/^installed //p') || true
missing=""
for package in $wanted; do
    printf '%s\n' "$installed" | grep -qxF -- "$package" && continue
    case " $missing " in *" $package "*) continue ;; esac
    missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root="env"
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo env"
else
    echo "install_packages.sh: neither root nor sudo; please install:$missing" >&2
    exit 1
fi
echo "installing:$missing"
$as_root DEBIAN_FRONTEND=noninteractive apt-get update -qq
$as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
