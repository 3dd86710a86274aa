#!/usr/bin/env python3
"""Makes the tar files that the shard tests read, and what a reader must find in them.

    shard_make.py OUTPUT_FOLDER

The files came from Python 3.11.7's tarfile and webdataset 1.0.2 (members written as they are, so
that the bytes are the members' own). Each line of shard_expected.txt is
    FILE <tab> MEMBER NAME <tab> SIZE <tab> CRC-32 of the bytes
as tarfile reads the file back.
"""
import io
import os
import sys
import tarfile
import zlib

out = sys.argv[1]


def member(tar, name, data, **headers):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.pax_headers = len(data), 0o444, headers
    tar.addfile(info, io.BytesIO(data))


def samples(tar, keys):
    for key in keys:
        member(tar, key + ".jpg", ("image of " + key).encode() * 9)
        member(tar, key + ".txt", ("caption of " + key).encode())


def checksummed(header):
    header = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def path(name):
    return os.path.join(out, "shard_" + name + ".tar")


# PAX: names over 100 bytes, names that are not ASCII, names that ustar could not split.
with tarfile.open(path("pax"), "w", format=tarfile.PAX_FORMAT) as tar:
    samples(tar, ["short", "dir/" + "long" * 40, "größe/été-猫", "x" * 300])

# PAX records of the whole archive, and a float time before each member.
with tarfile.open(path("pax_global"), "w", format=tarfile.PAX_FORMAT,
                  pax_headers={"comment": "one for all"}) as tar:
    member(tar, "a.jpg", b"image of a", mtime="1.5")
    member(tar, "a.txt", b"caption of a", mtime="2.5")

# GNU: long names and a long link target.
with tarfile.open(path("gnu"), "w", format=tarfile.GNU_FORMAT) as tar:
    samples(tar, ["short", "dir/" + "long" * 40, "y" * 200])
    link = tarfile.TarInfo("link.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "target" * 30
    tar.addfile(link)
    samples(tar, ["last"])

# ustar: names split into prefix and name; a folder between.
with tarfile.open(path("ustar"), "w", format=tarfile.USTAR_FORMAT) as tar:
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    tar.addfile(folder)
    samples(tar, ["folder/" + "p" * 90 + "/" + "n" * 80, "plain"])

# Sizes: base-256, and a PAX record that contradicts (and beats) the ustar field.
tar = io.BytesIO()
with tarfile.open(fileobj=tar, mode="w", format=tarfile.GNU_FORMAT) as t:
    samples(t, ["sized"])
raw = bytearray(tar.getvalue())
raw[124:136] = b"\x80" + (len("image of sized") * 9).to_bytes(11, "big")
raw[:512] = checksummed(bytes(raw[:512]))
head = tarfile.TarInfo("pax-sized.txt")
head.size = 20
wrong = bytearray(head.tobuf(tarfile.USTAR_FORMAT))
record = b"11 size=18\n"
ext = tarfile.TarInfo("PaxHeaders/x")
ext.type, ext.size = tarfile.XHDTYPE, len(record)
pax = ext.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")
body = b"caption, 18 bytes."
raw = raw[:2048] + pax + wrong + body.ljust(512, b"\0") + bytes(1024)
with open(path("sizes"), "wb") as f:
    f.write(raw)

import webdataset  # noqa: E402

with webdataset.TarWriter(path("webdataset"), encoder=False) as sink:
    for i in range(4):
        key = "%09d" % i
        sink.write({"__key__": key, "jpg": ("image of " + key).encode() * 9,
                    "txt": ("caption of " + key).encode(), "json": b'{"caption": "c%d"}' % i})

with open(os.path.join(out, "shard_expected.txt"), "w", encoding="utf-8") as f:
    for name in ["pax", "pax_global", "gnu", "ustar", "sizes", "webdataset"]:
        with tarfile.open(path(name)) as tar:
            for info in tar:
                if info.isreg():
                    data = tar.extractfile(info).read()
                    print("shard_%s.tar\t%s\t%d\t%08x" % (name, info.name, len(data),
                                                          zlib.crc32(data)), file=f)

# A whole PNG and a whole JPEG of one grey pixel (Pillow 13.0.0), for the command's test.
from PIL import Image  # noqa: E402

pixel = Image.new("L", (1, 1), 77)
pixel.save(os.path.join(out, "shard_pixel.png"), optimize=True)
pixel.save(os.path.join(out, "shard_pixel.jpg"), quality=50, optimize=True)
