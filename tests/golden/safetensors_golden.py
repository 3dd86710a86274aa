"""Golden files for tests/model/test_safetensors.c.

Needs safetensors 0.8.0 (the reference package) and torch 2.13; run it in this folder. Writes
  safetensors_reference.safetensors  ten tensors, written by the package
  safetensors_empty.safetensors      no tensors at all
Checking a file of ours with the package: safetensors_golden.py FILE lists what it reads.
"""
import math
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

if len(sys.argv) > 1:
    with safe_open(sys.argv[1], framework="pt") as f:
        print("metadata", dict(sorted(f.metadata().items())))
        for name in sorted(f.keys()):
            t = f.get_slice(name)
            print(name.encode("unicode_escape").decode(), t.get_dtype(), t.get_shape())
    sys.exit()

T = torch.tensor
tensors = {
    "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": T([1, -0.5, 6e-8, 65504], dtype=torch.float16),
    "brain": T([1.5, -2.0, 0.25], dtype=torch.bfloat16),
    "double": T([[math.pi]], dtype=torch.float64),
    "scalar": T(2.6592600369, dtype=torch.float32),
    "none": torch.zeros(0, 5),
    "steps": T([7, -9], dtype=torch.int64),
    "bytes": T(list(b"abc"), dtype=torch.uint8),
    "flags": T([True]),
    "n\u00e4me \"q\"\n": T([-5], dtype=torch.int32),
}
save_file(tensors, "safetensors_reference.safetensors", {"format": "pt"})
save_file({}, "safetensors_empty.safetensors")
