"""Make pattern_expected.txt: what braceexpand gives for each pattern, separated by tabs.

    python pattern_make.py      (in this folder; braceexpand 0.1.7)
"""
from importlib.metadata import version

from braceexpand import braceexpand

PATTERNS = r"""plain
shards/{00000..00003}.tar
{8..011}
{-02..2}
{3..1}
{1..7..3}
{7..1..3}
{1..7..-3}
{1..3..0}
{5..5}
{a,b}
{a,b}{1,2}x
{a,}
{,}
{}
{a}
x{a{1..3}}y
{a,b{1..2},c}
{{a,b},{c,d}}
{a..e}
{e..a..2}
{X..c}
{Z..A..9}
{1..a}
{1..2..}
{1...3}
{0..10..5}
{00..10..5}
{-5..-3}
\{a,b\}
{a\,b}
{a\,b,c}
a\\b
pre{1,2}mid{3..4}post
{1..2}{a,b{x,y}}
{--1..2}
{+1..2}
${a,b}
{a,b}::{c..d}""".split("\n")

if version("braceexpand") != "0.1.7":
    raise SystemExit("made with braceexpand 0.1.7")
with open("pattern_expected.txt", "w") as file:
    for pattern in PATTERNS:
        paths = [path for part in pattern.split("::") for path in braceexpand(part)]
        file.write("\t".join([pattern, *paths]) + "\n")
