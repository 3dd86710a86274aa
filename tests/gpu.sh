#!/bin/sh
# Everything that needs a GPU, in one go: parity of every op, whole-model gradients, a real training
# run, compute-sanitizer, benchmarks beside the peer, and one JSON with all figures.
#
#   sh tests/gpu.sh pack FOLDER [PEER.py]   on a machine with nvcc (no GPU needed): a folder that holds
#                                           all that is needed, CUDA's own libraries excepted
#   sh FOLDER/gpu.sh run [OUT]              on a machine with a GPU: writes OUT/gpu.json and logs
#
# PEER.py is a program that takes --config --batch --dtype --device --compile --steps and prints one
# JSON line (a PyTorch training step of the same shapes). PHASES="parity model demo ops train
# sanitizer" chooses parts of a run; PYTHON the interpreter of the peer; CUDA_ARCHITECTURES what is
# compiled for. The exit status of `run` is 0 only if no test failed.
set -u

here=$(cd "$(dirname "$0")" && pwd)
kernel_tests="test_matmul test_attention test_layernorm test_embed test_pool test_contrastive
    test_optimizer test_backend test_cuda_host test_fp8 test_fp8_scales"
model_tests="test_stack test_gradients test_loss test_step test_step_memory test_training test_update
    test_checkpoint test_fp8_training"
data=/usr/share/datasets/fashion-mnist

fail()
{
    echo "gpu.sh: $1" >&2
    exit 1
}

# ---- pack --------------------------------------------------------------------------------

pack()
{
    folder=$1 peer=${2-}
    cd "$here/.." || exit 1
    build=build/gpu
    command -v nvcc >/dev/null 2>&1 || fail "there is no nvcc on the PATH"
    sh tools/install_packages.sh build test || fail "the packages could not be installed"
    cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DDIPTYCH_CUDA=ON -DDIPTYCH_ONEDNN=OFF \
        -DBUILD_SHARED_LIBS=ON \
        -DDIPTYCH_TEST_SOURCE=../source -DDIPTYCH_TEST_SCRATCH=. \
        ${CUDA_ARCHITECTURES:+"-DCMAKE_CUDA_ARCHITECTURES=$CUDA_ARCHITECTURES"} >/dev/null ||
        fail "configuring failed"
    programs=""
    for test in $kernel_tests $model_tests bench_cuda; do programs="$programs $test"; done
    cmake --build $build --target diptych $programs || fail "building failed"

    rm -rf "$folder"
    mkdir -p "$folder/bin" "$folder/lib" "$folder/data" "$folder/configs"
    cp $build/diptych $build/libdiptych.so "$folder/bin/"
    for program in $programs; do cp "$build/tests/$program" "$folder/bin/"; done
    strip "$folder"/bin/*
    mv "$folder/bin/libdiptych.so" "$folder/lib/"
    # What the programs load, but for CUDA and the C and C++ libraries: those of a machine that has a
    # current CUDA are newer, and its own programs need them.
    ldd "$folder"/bin/* "$folder/lib/libdiptych.so" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p' | sort -u |
        grep -v -e '/libc\.so' -e '/libm\.so' -e '/libpthread' -e '/libdl\.' -e '/librt\.' -e ld-linux \
            -e 'libstdc++' -e libgcc_s -e libcuda -e libcublas -e libdiptych |
        while read -r library; do cp -L "$library" "$folder/lib/"; done
    mkdir -p "$folder/source/tests/golden" "$folder/source/tests/kernels"
    cp "$data"/*.gz "$folder/data/" && cp -r configs/data configs/run "$folder/configs/" &&
        cp tests/golden/open_clip_schedule.txt "$folder/source/tests/golden/" &&
        cp tests/kernels/test_*.c "$folder/source/tests/kernels/" && cp tests/gpu.sh "$folder/" ||
        fail "something could not be copied"
    [ -z "$peer" ] || cp "$peer" "$folder/peer.py" || fail "no $peer"
    git rev-parse HEAD >"$folder/commit"
    [ -z "$(git status --porcelain)" ] || echo "and changes" >>"$folder/commit"
    du -sm "$folder" | awk '{ print $2 ": " $1 " MB" }'
}

# ---- run ---------------------------------------------------------------------------------

# A JSON string of a line of text.
quoted() { printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')"; }
seconds() { date +%s.%N; }
wants() { case " $phases " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# check NAME LIMIT COMMAND...: run it, log it, add a row to tests.json.
check()
{
    name=$1 limit=$2
    shift 2
    begin=$(seconds)
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    code=$?
    took=$(echo "$begin $(seconds)" | awk '{ printf "%.1f", $2 - $1 }')
    verdict=passed
    [ $code -eq 0 ] || verdict=failed
    [ $code -ne 124 ] || verdict="out of time"
    # A test that found no device has proved nothing.
    grep -a '^SKIPPED' "$out/$name.log" | grep -qv 'emulated GPU' && verdict=skipped
    printf '%-44s %-12s %8s s\n' "$name" "$verdict" "$took"
    if [ "$verdict" != passed ]; then
        failures=$((failures + 1))
        grep -a -e ERROR -e FAILED -e SKIPPED -e error "$out/$name.log" | head -n 6 | cut -c1-300
    fi
    printf '{"test":"%s","verdict":"%s","seconds":%s}\n' "$name" "$verdict" "$took" >>"$out/tests.jsonl"
}

facts()
{
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1
}

demo()
{
    texts=$here/configs/data/fashion-mnist
    d="$here/bin/diptych"
    for part in train t10k; do
        "$d" shard --input "$here/data/$part-images-idx3-ubyte.gz" \
            --labels "$here/data/$part-labels-idx1-ubyte.gz" --classnames "$texts/classnames.txt" \
            --templates "$texts/caption_templates.txt" --output "$work/$part/{00000..}.tar" \
            --samples-per-shard 10000 || return 1
    done
    "$d" tokenizer train --input-shards "$work/train" --vocab-size 256 --model-type bpe \
        --output "$work/spm.model" || return 1
    timeout 180 "$d" pretrain --config "$here/configs/run/fashion-mnist.json" --train-data "$work/train" \
        --tokenizer "$work/spm.model" --logs "$work/logs" --name run --device cuda --precision bf16 \
        --workers 8 --json >"$out/train.json" || return 1
    "$d" zeroshot --model "$work/logs/run/checkpoints/epoch_latest" --data "$work/t10k" --device cuda \
        --classnames "$texts/classnames.txt" --templates "$texts/prompt_templates.txt" --json \
        >"$out/zeroshot.json" || return 1
    # The CPU reaches 88.98 % (mean of three seeds); within a point of it.
    tr ',{}' '\n\n\n' <"$out/zeroshot.json" | sed -n 's/"acc1"://p' |
        awk '{ print "top-1 " $1; good = $1 >= 0.8798 } END { exit !good }'
}

# timed ARGUMENTS...: one JSON line of our own.
timed()
{
    timeout 60 "$here/bin/diptych" bench train --precision bf16 --device cuda --json "$@" \
        >>"$out/train.jsonl" 2>>"$out/train.log" || {
        echo "bench train $* failed: $(tail -n 1 "$out/train.log")"
        failures=$((failures + 1))
    }
}

# peer CONFIG BATCH: one JSON line of the peer, compiled if it can be.
peer()
{
    [ -f "$here/peer.py" ] || return 0
    env LD_LIBRARY_PATH="$their_libraries" timeout 150 "${PYTHON:-python3}" "$here/peer.py" --config "$1" --batch "$2" --dtype bf16 \
        --device cuda --compile --steps 10 --warmup 4 2>>"$out/peer.log" | tail -n 1
}

train_bench()
{
    for row in ViT-B-32:256 ViT-B-32:1024 ViT-B-16:256 ViT-B-16:1024 ViT-L-14:256; do
        config=${row%:*} batch=${row#*:}
        # the same work as the peer's: all 77 tokens, every row of the last block
        timed --config "$config" --batch "$batch" --text-lengths full --all-rows --steps 10 --warmup-steps 4
        timed --config "$config" --batch "$batch" --text-lengths 20 --steps 10 --warmup-steps 4
        timed --config "$config" --batch "$batch" --text-lengths full --all-rows --steps 5 --time-parts
        peer "$config" "$batch" >>"$out/train.jsonl"
        tail -n 4 "$out/train.jsonl" | tr ',' '\n' |
            grep -e '"pairs_s"' -e '"ms_step"' -e '"share_of' -e '"peer"' | tr '\n' ' '
        echo " $config $batch"
    done
}

# One JSON array of the lines of a file.
array() { [ ! -s "$1" ] || paste -s -d, "$1"; }

# What is known so far: written after every phase, for a run that is cut off.
write_figures()
{
    {
        printf '{"date":"%s","device":%s,"commit":%s,\n"tests":[%s],\n' "$(date -u +%F)" \
            "$(quoted "$device")" "$(quoted "$(paste -s -d' ' "$here/commit")")" "$(array "$out/tests.jsonl")"
        printf '"demo":[%s%s%s],\n' "$(cat "$out/train.json" 2>/dev/null)" \
            "$([ ! -s "$out/zeroshot.json" ] || echo ,)" "$(cat "$out/zeroshot.json" 2>/dev/null)"
        printf '"ops":[%s],\n"train":[%s]}\n' "$(array "$out/ops.jsonl")" "$(array "$out/train.jsonl")"
    } >"$out/gpu.json"
}

run()
{
    out=${1:-$here/out}
    phases=${PHASES:-parity model demo ops train sanitizer}
    work=$here/work
    rm -rf "$work"
    mkdir -p "$out" "$work"
    out=$(cd "$out" && pwd)
    rm -f "$out"/*.json "$out"/*.jsonl "$out"/*.log
    their_libraries=${LD_LIBRARY_PATH-}
    export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export XDG_CACHE_HOME="$work/cache" CHECK_BACKEND=cuda DIPTYCH_TEST_DEVICE=cuda
    cd "$work" || exit 1
    failures=0
    device=$(facts)
    [ -n "$device" ] || fail "nvidia-smi finds no GPU here"
    echo "$device"
    "$here/bin/diptych" bench train --config tiny --batch 16 --steps 1 --device cuda >"$out/first.log" 2>&1 ||
        fail "the GPU cannot be used: $(tail -n 1 "$out/first.log")"

    if wants parity; then for t in $kernel_tests; do check "$t" 120 "$here/bin/$t"; done; fi
    write_figures
    if wants model; then for t in $model_tests; do check "$t" 120 "$here/bin/$t"; done; fi
    write_figures
    if wants demo; then
        begin=$(seconds)
        demo >"$out/demo.log" 2>&1 && verdict=passed || { verdict=failed; failures=$((failures + 1)); }
        tail -n 3 "$out/demo.log"
        printf '{"test":"demo","verdict":"%s","seconds":%s}\n' "$verdict" \
            "$(echo "$begin $(seconds)" | awk '{ printf "%.1f", $2 - $1 }')" >>"$out/tests.jsonl"
    fi
    write_figures
    if wants ops; then
        timeout 120 "$here/bin/bench_cuda" --json >"$out/ops.jsonl" 2>"$out/ops.log" ||
            failures=$((failures + 1))
    fi
    write_figures
    if wants train; then train_bench; fi
    write_figures
    if wants sanitizer && ! command -v compute-sanitizer >/dev/null 2>&1; then
        echo "sanitizer: there is no compute-sanitizer here"
        failures=$((failures + 1))
    elif wants sanitizer; then
        export DIPTYCH_CUDA_TUNE=0 CHECK_SMALL=1
        for t in attention contrastive layernorm embed pool optimizer matmul; do
            check "memcheck_$t" 60 compute-sanitizer --tool memcheck --error-exitcode 1 "$here/bin/test_$t"
            [ $t = matmul ] ||
                check "racecheck_$t" 60 compute-sanitizer --tool racecheck --error-exitcode 1 "$here/bin/test_$t"
        done
    fi

    write_figures
    rm -rf "$work"
    echo "$failures failed; figures in $out/gpu.json"
    [ $failures -eq 0 ]
}

case ${1-} in
pack)
    [ $# -ge 2 ] || fail "pack FOLDER [PEER.py]"
    pack "$2" "${3-}"
    ;;
run) run "${2-}" ;;
*) fail "what to do is missing: pack FOLDER [PEER.py], or run [OUT]" ;;
esac
