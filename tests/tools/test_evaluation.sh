#!/bin/sh
# zeroshot, recall, embed, export and inspect on the reference model of tests/golden/model: what
# they print, what they count, what they refuse.
# Usage: sh test_evaluation.sh path/to/diptych scratch-dir
. "$(dirname "$0")/../check.sh"
reference=$golden/model
cd "$scratch" || exit 1
mkdir members

# json KEY VALUE: the last output is one JSON object on one line, with this number or string in it.
json()
{
    [ "$(wc -l <out)" -eq 1 ] || complain "not one line: $out"
    case $out in
    "{"*"\"$1\":$2"[,}]*) ;;
    *) complain "\"$1\":$2 is not in: $out" ;;
    esac
}

# floats FILE.npy: one number a line.
floats()
{
    tail -c +129 "$1" | od -An -v -t f4 | tr -s ' \n' '\n\n' | sed '/^$/d'
}

# --- data: three images, five captions, labels 0 1 2; then three samples that cannot be used.
for i in 0 1 2; do
    cp "$reference/$i.png" "members/$i.png"
    echo $i >"members/$i.cls"
done
printf '\357\273\277a red square\r\n\r\na blue circle on white\r\n' >members/0.txt
printf 'two green dots\nblue square and green circle\n' >members/1.txt
printf 'a red square' >members/2.txt
(cd members && tar --format=ustar -cf ../good.tar ./*)
printf '<html>' >members/3.png
echo 0 >members/3.cls
printf 'words' >members/3.txt
head -c 100 "$reference/1.png" >members/4.png
echo 0 >members/4.cls
printf 'words' >members/4.txt
cp "$reference/0.png" members/5.png
echo 0 >members/5.cls
printf ' \n' >members/5.txt
(cd members && tar --format=ustar -cf ../mixed.tar ./*)
printf 'red\nblue\ngreen\n' >names
printf 'a {c} square\n\n{c}\n' >templates

# --- recall, against ranks computed here from the features
run="--model $reference --precision fp32"
expect 0 embed $run --data good.tar --output images.npy
expect 0 embed $run --data good.tar --data-kind text --output texts.npy --json
json n 5
json dropped 0
json precision '"fp32"'
[ "$(sed 's|^\./||' texts.npy.keys.txt | tr '\n' ' ')" = "0 0 1 1 2 " ] ||
    complain "keys are: $(cat texts.npy.keys.txt)"
[ "$(sed 's|^\./||' images.npy.keys.txt | tr '\n' ' ')" = "0 1 2 " ] ||
    complain "keys are: $(cat images.npy.keys.txt)"
{
    floats images.npy
    floats texts.npy
} | awk '
    { x[NR - 1] = $1 }
    function score(t, i,   e, sum) {
        for (e = 0; e < 16; e++) sum += x[16 * i + e] * x[48 + 16 * t + e]
        return sum
    }
    END {
        split("0 0 1 1 2", owner, " ")
        for (t = 0; t < 5; t++) {
            rank = 1
            for (i = 0; i < 3; i++)
                if (score(t, i) > score(t, owner[t + 1])) rank++
            if (rank == 1) t2i++
            t2i_sum += rank
        }
        for (i = 0; i < 3; i++) {
            best = 6
            for (t = 0; t < 5; t++) {
                if (owner[t + 1] != i) continue
                rank = 1
                for (o = 0; o < 5; o++)
                    if (score(o, i) > score(t, i) || (score(o, i) == score(t, i) && o < t)) rank++
                if (rank < best) best = rank
            }
            if (best == 1) i2t++
            i2t_sum += best
        }
        print NR, t2i / 5, i2t / 3, t2i_sum / 5, i2t_sum / 3
    }' >expected
read -r n_numbers t2i i2t t2i_rank i2t_rank <expected
[ "$n_numbers" -eq 128 ] || complain "$n_numbers numbers in the two files, not 128"
expect 0 recall $run --data good.tar --json
json n_images 3
json n_texts 5
json n_distinct_texts 4
json dropped 0
json image_retrieval_recall@5 1
# printed with more digits than awk's
for pair in "image_retrieval_recall@1 $t2i" "text_retrieval_recall@1 $i2t" \
    "text_to_image_mean_rank $t2i_rank" "image_to_text_mean_rank $i2t_rank"; do
    set -- $pair
    figure=$(number "$1")
    echo "$figure $2" | awk '{ d = $1 - $2; exit !(d < 1e-5 && d > -1e-5) }' ||
        complain "$1 is $figure, expected $2"
done
expect 0 recall $run --data good.tar
says "$out" "image_retrieval_recall@1 "
says "$out" "n_distinct_texts "

# --- what cannot be used is counted and named
expect 0 recall $run --data mixed.tar --json
json n_images 3
json n_texts 5
json dropped 3
says "$err" "mixed.tar"
says "$err" "3"
expect 0 zeroshot $run --data mixed.tar --classnames names --templates templates --json
json n 4
json dropped 2
json n_classes 3
json n_templates 2
json acc5 1
expect 0 embed $run --data mixed.tar --output mixed.npy --json
json n 4
json dropped 2

# --- zero-shot: the three images by class vectors made here
expect 0 embed $run --texts "a red square" red "a blue square" blue "a green square" green \
    --output prompts.npy
[ ! -e prompts.npy.keys.txt ] || complain "texts have no keys"
{
    floats images.npy
    floats prompts.npy
} | awk '
    { x[NR - 1] = $1 }
    END {
        for (i = 0; i < 3; i++) {
            top = -1
            for (c = 0; c < 3; c++) {
                dot = square = 0
                for (e = 0; e < 16; e++) {
                    v = x[48 + 32 * c + e] + x[48 + 32 * c + 16 + e]
                    dot += v * x[16 * i + e]
                    square += v * v
                }
                if (top < 0 || dot / sqrt(square) > best) {
                    best = dot / sqrt(square)
                    top = c
                }
            }
            hits += top == i
        }
        print hits / 3
    }' >expected
expect 0 zeroshot $run --data good.tar --classnames names --templates templates --json
json n 3
figure=$(number acc1)
echo "$figure $(cat expected)" | awk '{ d = $1 - $2; exit !(d < 1e-5 && d > -1e-5) }' ||
    complain "acc1 is $figure, expected $(cat expected)"

# --- workers, threads and batch size change nothing
for way in "--workers 1 --threads 1 --batch-size 1" "--workers 3 --threads 2 --batch-size 2"; do
    expect 0 recall $run $way --data good.tar --json
    sed 's/,"pairs_per_second.*//' out >"recall.${way##* }"
done
cmp -s recall.1 recall.2 || complain "recall depends on workers, threads or batch size"

# --- embed
expect 0 embed $run --images "$reference/0.png" "$reference/2.png" --output two.npy --json
json n 2
json embed_dim 16
head -c 6 two.npy | od -An -c | grep -q "N *U *M *P *Y" || complain "two.npy is no NumPy file"
expect 2 embed $run --output x.npy
says "$err" "one of --images, --texts and --data"
expect 2 embed $run --texts a --data good.tar --output x.npy
expect 2 embed $run --images "$reference/0.png" members/3.png --output x.npy
says "$err" "members/3.png"
mkfifo pipe
for input in absent.png members pipe; do
    expect 2 embed $run --images "$reference/0.png" $input --output x.npy
    says "$err" "$input"
done
expect 1 embed $run --texts a --output missing/x.npy
[ ! -e x.npy ] || complain "a refused command left x.npy"

# --- zero-shot refusals, before anything is computed
printf 'red\nblue\n' >two_names
expect 2 zeroshot $run --data good.tar --classnames two_names --templates templates
says "$err" "1 of 3 samples have a label outside 0..1"
printf 'a {c}\nno place\n' >bad_templates
expect 2 zeroshot $run --data good.tar --classnames names --templates bad_templates
says "$err" "line 2"
for input in absent members pipe; do
    expect 2 zeroshot $run --data good.tar --classnames $input --templates templates
    says "$err" "$input"
    expect 2 zeroshot $run --data good.tar --classnames names --templates $input
    says "$err" "$input"
done
expect 2 zeroshot $run --data good.tar
says "$err" "classnames"
says "$err" "templates"
expect 2 recall $run --data 'absent{0..1}.tar'
says "$err" "absent0.tar"
expect 2 recall --model nowhere --data good.tar
says "$err" "nowhere"
expect 2 recall $run --data good.tar --precision fp8
expect 2 recall $run --data good.tar --batch-sise 4
says "$err" "batch-size"

# --- export
expect 0 export --model "$reference" --output exported --json
json n_tensors 62
expect 0 embed --model exported --precision fp32 --data good.tar --output again.npy
cmp -s again.npy images.npy || complain "the exported model gives other features"
expect 2 export --model "$reference" --output exported
says "$err" "exists"
expect 0 export --model "$reference" --output exported --overwrite
expect 2 export --model exported --output exported --overwrite

# --- the average of the weights: asked for and not there is refused; reports say whose figures
cp -r exported averaging
for command in "export --output averaged" "embed --data good.tar --output x.npy" \
    "recall --data good.tar" "zeroshot --data good.tar --classnames names --templates templates"; do
    rm -f averaging/ema_model.safetensors
    expect 2 $command --model averaging --use-ema
    says "$err" "averaging has no average of the weights (ema_model.safetensors)"
    cp exported/open_clip_model.safetensors averaging/ema_model.safetensors
    expect 0 $command --model averaging --use-ema --json
    json ema true
done
expect 0 recall $run --data good.tar --json
json ema false

expect 2 export --model "$reference" --output members --overwrite
[ -e members/0.png ] || complain "export replaced a folder that holds no model"
[ -z "$(find . -name '*.tmp-*')" ] || complain "temporary files are left: $(find . -name '*.tmp-*')"

# --- inspect
expect 0 inspect --json
says "$out" '"ViT-B-32":{"n_parameters":151277313,'
expect 0 inspect --model ViT-B-16 --json
json n_parameters 149620737
json n_parameters_image 86192640
json n_tensors 302
expect 0 inspect --model "$reference" --json
json n_parameters 35617
expect 0 inspect --model "$reference" --parameters
says "$out" "visual.conv1.weight"
expect 0 inspect --checkpoint exported --json --parameters
json data_bytes 142468
says "$out" '"visual.conv1.weight":{"dtype":"F32","shape":[32,3,4,4]}'
expect 0 inspect --shards mixed.tar --json
json n_samples 6
json n_images 6
json dropped 3
json PNG 5
json other 1
says "$out" '"labels":{"0":4,"1":1,"2":1}'
says "$out" '"caption":"a red square"'
expect 0 inspect --shards mixed.tar --no-decode --json
json dropped 1
expect 0 inspect --shards mixed.tar
says "$out" "captions_per_sample"
mkdir apart
cp "$reference/0.png" apart/p.png
cp "$reference/0.png" apart/q.png
printf 'a\000b\033[1m\302\233c' >apart/p.txt
cp apart/p.txt apart/q.txt
echo one >apart/p.cls
tar --format=ustar -cf apart.tar -C apart q.png p.png p.txt p.cls q.txt
expect 0 inspect --shards apart.tar --json
json n_samples 3
json n_pairs 1
json dropped 3 # the label of p, and q twice: without caption, without image
says "$out" '"caption":"a\\x00b\\x1b[1m\\xc2\\x9bc"'
says "$err" "q (no txt member)"
says "$err" "the members of a sample must follow each other: pack with tar --sort=name"
says "$err" "unreadable class label"
expect 2 inspect --model ViT-B-33
says "$err" "ViT-B-32"
expect 2 inspect --model "$reference" --shards good.tar
printf '{"model_cfg": {' >broken.json
expect 2 inspect --model broken.json

finish evaluation
