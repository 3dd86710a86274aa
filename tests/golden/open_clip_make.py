"""Write open_clip_tok/ and open_clip_avg/: small models, and what the reference makes of them.

Made with open_clip_torch 3.3.0, torch 2.13.0 and safetensors 0.8.0 (CPU).
Usage: python open_clip_make.py

Each folder holds open_clip_config.json and open_clip_model.safetensors, written by open_clip's own
functions, and expected.safetensors: features of the batch in open_clip_batch.safetensors, ClipLoss
in each of three AdamW steps on it, gradients of the first, weights after the last. The expectations are computed in float64, so that
their own error does not count; what torch makes of the same in float32 is printed.

Parameters without weight decay are those of open_clip 4: one dimension or less, and the class and
positional embeddings.
"""
import json
import math
import pathlib

import numpy
import torch
from open_clip import CLIP, ClipLoss
from open_clip.push_to_hf_hub import save_config_for_hf
from safetensors.torch import save_file

BATCH, CONTEXT, VOCABULARY = 8, 12, 40
LR, WEIGHT_DECAY, BETAS, EPS, STEPS = 1e-3, 0.2, (0.9, 0.98), 1e-6, 3
PREPROCESS = {"mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28), "interpolation": "bicubic",
              "resize_mode": "shortest"}
TEXT = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 16, "heads": 2, "layers": 2}
VISION = {"image_size": 28, "patch_size": 7, "width": 32, "layers": 2, "head_width": 16,
          "mlp_ratio": 2.0}
# As tensors of the file; the others are compared by their norms.
RECORDED = ("logit_scale", "visual.class_embedding", "visual.ln_pre.weight",
            "visual.ln_post.bias", "visual.proj",
            "visual.transformer.resblocks.0.mlp.c_fc.bias",
            "positional_embedding", "token_embedding.weight", "text_projection",
            "ln_final.weight", "transformer.resblocks.0.attn.in_proj_weight",
            "transformer.resblocks.1.ln_2.bias")


def perturb(model):
    """Every parameter random, norms and biases too, so that none can be forgotten."""
    for name, p in model.named_parameters():
        if name == "logit_scale":
            p.fill_(math.log(15))
        elif name.endswith("bias"):
            p.normal_(0, 0.1)
        elif "ln_" in name:
            p.normal_(1, 0.2)
        elif p.ndim > 1 and "embedding" not in name:
            p.normal_(0, 1.2 / math.sqrt(p[0].numel()))
        else:
            p.normal_(0, 0.5)


def make_batch(random):
    images = random.integers(0, 256, (BATCH, 28, 28, 3), dtype=numpy.uint8)
    # Smooth in part, as pictures are.
    images[: BATCH // 2] = images[: BATCH // 2, ::7, ::7].repeat(7, 1).repeat(7, 2)
    tokens = numpy.zeros((BATCH, CONTEXT), numpy.int32)
    for row in tokens:
        n = int(random.integers(1, CONTEXT + 1))
        row[: n - 1] = random.integers(1, VOCABULARY - 1, n - 1)
        row[n - 1] = VOCABULARY - 1
    tokens[0, :] = [VOCABULARY - 1] + [0] * (CONTEXT - 1)  # nothing but the end
    tokens[1, :] = list(range(3, 2 + CONTEXT)) + [VOCABULARY - 1]  # full
    tokens[5] = tokens[2]  # a caption twice
    return images, tokens


def is_decayed(name, p):
    return p.ndim > 1 and not name.endswith(("positional_embedding", "class_embedding"))


def run(model, images, tokens, dtype):
    """Features, loss, gradients, and weights after STEPS steps, in `dtype`."""
    model = model.to(dtype)
    mean = torch.tensor(PREPROCESS["mean"], dtype=dtype).view(3, 1, 1)
    std = torch.tensor(PREPROCESS["std"], dtype=dtype).view(3, 1, 1)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype) / 255 - mean) / std
    texts = torch.from_numpy(tokens).long()
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for n, p in named if not is_decayed(n, p)], "weight_decay": 0.0},
         {"params": [p for n, p in named if is_decayed(n, p)], "weight_decay": WEIGHT_DECAY}],
        lr=LR, betas=BETAS, eps=EPS)
    first = {n: p.detach().clone() for n, p in named}
    out = {}
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        image_features, text_features, scale = model(pixels, texts)
        loss = ClipLoss()(image_features, text_features, scale)
        loss.backward()
        out[f"loss.{step}"] = loss.detach()
        if step == 1:
            out["image_features"] = image_features.detach()
            out["text_features"] = text_features.detach()
            for n, p in named:
                out[f"grad_norm.{n}"] = p.grad.norm()
                if n in RECORDED:
                    out[f"grad.{n}"] = p.grad.clone()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
    for n, p in named:
        out[f"moved.{n}"] = (p.detach() - first[n]).norm()
        if n in RECORDED:
            out[f"after.{n}"] = p.detach().clone()
    return out


def write(name, seed, images, tokens, changes, quick_gelu, store):
    folder = pathlib.Path(__file__).parent / name
    folder.mkdir(exist_ok=True)
    config = {"embed_dim": 24, "vision_cfg": {**VISION, **changes}, "text_cfg": TEXT}
    if quick_gelu:
        config["quick_gelu"] = True
    torch.manual_seed(seed)
    build = lambda: CLIP(24, config["vision_cfg"], TEXT, quick_gelu=quick_gelu)
    model = build().eval()
    with torch.no_grad():
        perturb(model)
    model.to(store).float()  # exactly what the file will hold
    model.visual.image_mean, model.visual.image_std = PREPROCESS["mean"], PREPROCESS["std"]
    model.visual.preprocess_cfg = PREPROCESS
    save_config_for_hf(model, folder / "open_clip_config.json", config)
    state = {n: t.to(store) for n, t in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")

    copy = build().eval()
    copy.load_state_dict(model.state_dict())
    exact = run(copy, images, tokens, torch.float64)
    single = run(model, images, tokens, torch.float32)
    for prefix in ("image_f", "text_f", "loss", "grad.", "after"):
        print(name, prefix, "float32 differs by", max(
            float((single[k].double() - exact[k]).abs().max()) for k in exact
            if k.startswith(prefix)))
    expected = {k: v.to(torch.float32).contiguous() for k, v in exact.items()}
    save_file(expected, folder / "expected.safetensors")


images, tokens = make_batch(numpy.random.default_rng(1))
save_file({"images": torch.from_numpy(images), "tokens": torch.from_numpy(tokens)},
          pathlib.Path(__file__).parent / "open_clip_batch.safetensors")
write("open_clip_tok", 11, images, tokens, {}, False, torch.float32)
write("open_clip_avg", 12, images, tokens, {"pool_type": "avg", "layers": 1}, True, torch.bfloat16)
