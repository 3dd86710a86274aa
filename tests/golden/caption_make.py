"""Make caption_expected.txt: what open_clip's cleaning makes of captions.

    python caption_make.py       (in this folder; open_clip 3.3.0, ftfy 6.3.1, Python 3.11)

Lines: MODE IN OUT, both in hexadecimal UTF-8 with "-" before it. The captions are random rows of the pieces
below. whitespace_underscore is open_clip 4.2's: whitespace after '_' became a space. Left out are captions
that ftfy takes for mojibake or whose characters it composes (data/caption/caption.h says that neither is done), and
a final sigma before the long s, which has no capital of its own.
"""
import random

import ftfy
import open_clip
from open_clip.tokenizer import basic_clean, get_clean_fn, whitespace_clean

PIECES = """a A The cat CAT. photo, of - -- _ a_b don't "quoted" (left) [x] {} {c} 50% 7 & && &; &# &#; &#x; AT&T
&amp; &lt;b&gt; &quot; &apos; &#39; &#x27; &#8217; &#233; &eacute; &Eacute; &AMP; &nbsp; &hellip; &euro; &notin; &copy
&copyright &ampamp; &amp;amp; &amp;amp;lt; &amp;lt;br&amp;gt; &bogus; &#0; &#128; &#150 &#xD800; &#1114112; &#11; &#65534;
&#99999999999999; &#4294967361; &#x100000041; &hellip &alphax &eurox; < <b> \u201cgut\u201d \u201etief\u201f \u2018ein\u2019 \u201a\u201b \u02bcn \u00e9t\u00e9 \u00c9T\u00c9 \u00d1 \u00df \u1e9e
\ufb01sch \ufb00 \ufb03 \ufb04 \ufb05 \ufb06 \u0132ssel \u0133 \u0149 \uff21\uff22\uff23\uff01 \u3000 \uff5e \u039f\u0394\u039f\u03a3 \u03a3\u03a3 \u03a3 \u0391\u03a3' \u0391\u03a3'\u0391
\u0391\u0301\u03a3. \u041c\u041e\u0421\u041a\u0412\u0410 \u0490 \u0531\u0532\u0533 \u10a0\u10d0 \u13a0 \u2c00 \u0130STANBUL \u023a \u1e9e\u1e00 \u01c4 \u01c5 \U00010400
\u4e2d\u6587 \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \U0001f468\u200d\U0001f469\u200d\U0001f467 \u200f\u202b \u2028 \u2029 \u00a0 \u2003 \u1680 \u2014 \u2026 \u00ab\u00bb \u20ac
\x00 \x01 \x0b \x0c \x1b \x1f \x7f \ufeff \ufffe \ufffc \u206a \t \r x\u0300 \u212b \u01c7 \u2160 \u24b6 \u03f4 \u1c80 \u205f \u202f \u2000 \u200a \u0100\u0101\u0102\u0103 \u0416\u0436 \u0139\u013a""".replace("\n", " ").split(" ")
rng = random.Random(31)


def underscore(text):
    return whitespace_clean(basic_clean(text).replace("_", " "))


MODES = {name: get_clean_fn(name) for name in ("whitespace", "lower", "canonicalize")}
MODES["whitespace_underscore"] = underscore


def is_beyond(text):
    """Does ftfy do more here than the repairs that are claimed?"""
    partial = ftfy.TextFixerConfig(fix_encoding=False, normalization=None, fix_c1_controls=False, remove_terminal_escapes=False)
    return ftfy.fix_text(text) != ftfy.fix_text(text, partial) or any(c in text for c in "\u01c4\u01c5\u01c7") or (
        "\u03a3" in text and "\ufb05" in text)


if (open_clip.__version__, ftfy.__version__) != ("3.3.0", "6.3.1"):
    raise SystemExit(f"other versions: open_clip {open_clip.__version__}, ftfy {ftfy.__version__}")
with open("caption_expected.txt", "w") as file:
    n = 0
    while n < 4000:
        count = 1 if n < len(PIECES) * 4 else rng.randint(1, 9)
        row = [PIECES[n // 4 % len(PIECES)]] if count == 1 else [rng.choice(PIECES) for _ in range(count)]
        text = rng.choice(["", " ", " ", "  "]).join(row)
        mode = list(MODES)[n % 4]
        n += 1
        if is_beyond(text):
            continue
        file.write(f"{mode} -{text.encode().hex()} -{MODES[mode](text).encode().hex()}\n")
