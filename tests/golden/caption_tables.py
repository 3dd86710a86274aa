"""Make core/utf8_lower.inc and data/caption/html_entities.inc from Python's own tables.

    python caption_tables.py       (in this folder; Python 3.11 with Unicode 14.0.0)

utf8_lower.inc: runs of capital letters {first, last, step, what to add} of str.lower(), one character to
one (U+0130 and the final sigma are in utf8_lower.c). html_entities.inc: the named entities of HTML 4, apos,
and the capital spellings html.unescape takes; {name, character, needs no semicolon}, sorted by name.
"""
import html.entities
import unicodedata

if unicodedata.unidata_version != "14.0.0":
    raise SystemExit(f"another Unicode: {unicodedata.unidata_version}")

HEADER = "/* Made by tests/golden/caption_tables.py: %s. */\n"


def write(path, title, rows):
    line, lines = "   ", []
    for row in rows:
        if len(line) + len(row) + 2 > 100:
            lines.append(line)
            line = "   "
        line += " " + row + ","
    with open(path, "w") as file:
        file.write(HEADER % title + "/* clang-format off */\n" + "\n".join(lines + [line]) + "\n/* clang-format on */\n")


runs = []
for code in range(0x110000):
    lower = chr(code).lower()
    if 0xD800 <= code < 0xE000 or lower == chr(code) or len(lower) != 1:
        continue
    add = ord(lower) - code
    first, last, step, same = runs[-1] if runs else (0, 0, 0, None)
    gap = code - last
    if same == add and gap == (step or gap) and gap <= 2:
        runs[-1] = (first, code, gap, add)
    else:
        runs.append((code, code, 0, add))
write("../../data/utf8_lower.inc", "str.lower() of Unicode 14.0.0",
      ["{0x%x, 0x%x, %d, %d}" % (first, last, step or 1, add) for first, last, step, add in runs])

names = {name: code for name, code in html.entities.name2codepoint.items()}
names["apos"] = ord("'")
for name in ("AMP", "COPY", "GT", "LT", "QUOT", "REG"):
    names[name] = ord(html.entities.html5[name])
for name, code in names.items():
    assert html.entities.html5[name + ";"] == chr(code) or name in ("lang", "rang"), name
    names[name] = ord(html.entities.html5[name + ";"])
write("../../data/html_entities.inc", "entities that html.unescape of Python 3.11 knows",
      ['{"%s", 0x%x, %d}' % (name, names[name], name in html.entities.html5) for name in sorted(names)])
