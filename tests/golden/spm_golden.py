"""Golden models and ids for tests/text/test_tokenizer.c.

Needs sentencepiece 0.2.3 (the reference package); run it in this folder. Writes
  spm_t5.model      unigram, identity normalizer, pad 0, eos 1, unk 2: the layout of T5 and SigLIP
  spm_bpe.model     bpe with byte fallback, nmt_nfkc left out to keep the file small
  spm_no_eos.model  a model without an end-of-text piece
  spm_nul.model     spm_t5.model with a piece that holds a NUL byte
  spm_golden.h      texts and the ids the reference gives
"""
import io

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb

GARMENTS = "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle boot".split()
COLOURS = "red green blue black white grey".split()
CORPUS = [f"a {look} of a {c} {g}" for look in ("photo", "drawing", "close-up") for c in COLOURS for g in GARMENTS]

TEXTS = ["", "a photo of a red dress", "A  drawing,   of two boots!", "</s> <pad> <unk> a coat",
         "gr\u00fcner Mantel \u2603", "a\tphoto\nof", "sneakersneakersneaker", "\U0001f600 bag"]


def train(**settings):
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=out, character_coverage=1.0,
                                   normalization_rule_name="identity", hard_vocab_limit=False,
                                   num_threads=1, minloglevel=2, **settings)
    return out.getvalue()


def write(name, data):
    with open(name, "wb") as f:
        f.write(data)


t5 = train(model_type="unigram", vocab_size=90, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
bpe = train(model_type="bpe", vocab_size=400, byte_fallback=True, pad_id=0, unk_id=1, bos_id=2, eos_id=3)
no_eos = train(model_type="unigram", vocab_size=60, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1)
proto = pb.ModelProto()
proto.ParseFromString(t5)
proto.pieces[-1].piece = "q\0q"
write("spm_t5.model", t5)
write("spm_bpe.model", bpe)
write("spm_no_eos.model", no_eos)
write("spm_nul.model", proto.SerializeToString())

lines = [f"/* Written by spm_golden.py with sentencepiece {spm.__version__}. */", "#ifndef SPM_GOLDEN_H", "#define SPM_GOLDEN_H", "",
         "typedef struct golden_text {", "    const char *text;", "    int n_t5, t5[64], n_bpe, bpe[64];", "} golden_text;", "",
         "static const golden_text golden_texts[] = {"]
for text in TEXTS:
    escaped = "".join(f"\\{b:03o}" if b < 32 or b > 126 or b in b'"\\?' else chr(b) for b in text.encode())
    row = [f'    {{"{escaped}"']
    for model in (t5, bpe):
        ids = spm.SentencePieceProcessor(model_proto=model).encode(text)
        assert len(ids) <= 64
        row.append(f"     {len(ids)}, {{{', '.join(map(str, ids or [0]))}}}")
    lines.append(",\n".join(row) + "},")
lines += ["};", "", "#endif", ""]
write("spm_golden.h", "\n".join(lines).encode())
