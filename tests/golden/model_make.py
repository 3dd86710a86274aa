"""Write model/: a small random model and its features, by the reference packages.

Made with open_clip_torch 3.3.0, torch 2.13.0, torchvision 0.28.0, Pillow 13.0.0 and
sentencepiece 0.2.3.    Usage: python model_make.py
"""
import io
import json
import math
import pathlib

import numpy
import open_clip
import sentencepiece
import torch
from PIL import Image
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent / "model"
here.mkdir(exist_ok=True)
VOCABULARY = 28
CAPTIONS = ["a red square", "a blue circle on white", "two green dots", "a red circle",
            "blue square and green circle", "white dots on red", "one white square"]

# The tokenizer: pad 0, unknown 1, the end of a text the last id.
pieces = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(CAPTIONS * 4), model_writer=pieces, vocab_size=VOCABULARY,
    model_type="unigram", pad_id=0, unk_id=1, bos_id=-1, eos_id=VOCABULARY - 1,
    normalization_rule_name="identity", minloglevel=2)
(here / "spiece.model").write_bytes(pieces.getvalue())
tokenizer = sentencepiece.SentencePieceProcessor(model_proto=pieces.getvalue())
assert tokenizer.vocab_size() == VOCABULARY and tokenizer.eos_id() == VOCABULARY - 1

# The model: every parameter random, biases and norms too, so that none can be forgotten.
config = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 4},
    "text_cfg": {"context_length": 10, "vocab_size": VOCABULARY, "width": 16, "heads": 1,
                 "layers": 2},
}
preprocess = {"mean": [0.5, 0.4, 0.45], "std": [0.25, 0.3, 0.2], "interpolation": "bicubic",
              "resize_mode": "shortest"}
torch.manual_seed(3)
model = open_clip.CLIP(**config).eval()
with torch.no_grad():
    for name, p in model.named_parameters():
        if name == "logit_scale":
            p.fill_(math.log(20))
        elif name.endswith("bias"):
            p.normal_(0, 0.1)
        elif "ln_" in name:
            p.normal_(1, 0.1)
        else:
            p.normal_(0, 1.5 / math.sqrt(p.shape[-1]) if p.ndim > 1 else 0.5)
save_file(model.state_dict(), here / "open_clip_model.safetensors", {"format": "pt"})
(here / "open_clip_config.json").write_text(
    json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2) + "\n")

# Images: one of the model's size, one wide and one tall that are resized and cropped.
transform = open_clip.image_transform(
    16, is_train=False, mean=preprocess["mean"], std=preprocess["std"], interpolation="bicubic",
    resize_mode="shortest")
random = numpy.random.default_rng(5)
expected = {"logit_scale": 20.0, "images": [], "texts": []}
for i, (height, width) in enumerate([(16, 16), (23, 41), (37, 20)]):
    y, x, c = numpy.mgrid[:height, :width, :3]
    waves = 128 + 80 * numpy.sin(x * (0.2 + 0.1 * i) + c) + 40 * numpy.cos(y * 0.5 - c)
    pixels = numpy.clip(waves + random.normal(0, 5, waves.shape), 0, 255).astype(numpy.uint8)
    Image.fromarray(pixels).save(here / f"{i}.png")
    image = transform(Image.open(here / f"{i}.png")).unsqueeze(0)
    with torch.no_grad():
        features = model.encode_image(image, normalize=True)[0]
    expected["images"].append({"file": f"{i}.png", "features": features.tolist()})

for text in CAPTIONS[:3] + ["", "red " * 20, "zebra"]:
    ids = tokenizer.encode(text)[:9] + [VOCABULARY - 1]
    padded = torch.tensor([ids + [0] * (10 - len(ids))])
    with torch.no_grad():
        features = model.encode_text(padded, normalize=True)[0]
    expected["texts"].append({"text": text, "ids": ids, "features": features.tolist()})
(here / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
