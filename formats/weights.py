"""
Weights that others have trained, read from this disk: GPT-2 of any size for the GPT, a ViT (ViT-B/16 and its kin) for the ViT.

    model = VLA(ModelConfig(n_vocab=50257, n_layer=12, n_head=12, n_embd=768, gelu="tanh", image_size=224, patch_size=16,
                            vit_layer=12, vit_head=12, vit_embd=768, vit_cls=True, vit_eps=1e-12))
    load_gpt2(model, "gpt2")                            # folders with model.safetensors and config.json, as hugging face
    load_vit(model, "vit-base-patch16-224-in21k")       # publishes them; words go through Tokenizer.gpt2("gpt2")

RT-2 starts from a vision-language model. Here are its two halves; the projector that joins them is in neither file and stays
as drawn, so the web stage of training has to teach the one to listen to the other.

A function takes every number it needs or leaves the model as it was: a key that is missing, unknown or of another shape is a
ValueError that names it, and a model of another size is told which keys of its configuration to set.
"""
import json
import math
import re
from pathlib import Path

import torch
import torch.nn.functional as F

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}


def read_safetensors(path) -> dict[str, torch.Tensor]:
    """
    The tensors of a safetensors file, by name. The file is the length of a header in 8 bytes (little-endian), the header, which
    is JSON, and the numbers, tensor after tensor. ValueError, with file and tensor, if they do not fit together.

    Example of a header: {"ln_f.bias": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}, "__metadata__": {}}
    """
    path, tensors = Path(path), {}
    with open(path, "rb") as f:
        size, n = path.stat().st_size, int.from_bytes(f.read(8), "little")
        try:
            header = json.loads(f.read(n if n <= size else 0))
            header.pop("__metadata__", None)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"{path} has no header of a safetensors file; it is cut short, damaged or of another kind") from None
        for key, entry in header.items():
            try:
                dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
                count = math.prod(shape)
                fits = (all(type(i) is int and i >= 0 for i in (*shape, begin, end))
                        and end - begin == count * dtype.itemsize and 8 + n + end <= size)
            except (KeyError, TypeError, ValueError):
                fits = False
            if not fits:
                raise ValueError(f"{path}: {key!r} is {str(entry)[:200]}, which does not fit a file of {size} bytes or is not of "
                                 f"type {', '.join(DTYPES)}; the file is cut short or damaged")
            x = torch.empty(count, dtype=dtype)
            f.seek(8 + n + begin)
            f.readinto(x.view(torch.uint8).numpy())
            tensors[key] = x.view(shape)
    used = 8 + n + sum(x.nbytes for x in tensors.values())
    if used != size:
        raise ValueError(f"{path} has {size} bytes, of which header and tensors fill {used}; it is damaged")
    return tensors


class Weights:
    """the tensors of one file, to be taken by name and shape until none is left; about: what the config.json beside it says"""

    def __init__(self, path, prefix, ignored, newer={}):
        path = Path(path)
        self.path = path / "model.safetensors" if path.is_dir() else path
        if not self.path.is_file():
            raise ValueError(f"there is no {self.path}; give a .safetensors file, whole and not in pieces, or the folder of one")
        self.tensors, config = {}, self.path.with_name("config.json")
        for key, x in read_safetensors(self.path).items():
            key = key.removeprefix(prefix)
            for new, published in newer.items():
                key = key.replace(new, published)
            if not re.fullmatch(ignored, key):
                self.tensors[key] = x
        try:
            self.about = dict(json.loads(config.read_text())) if config.is_file() else {}
        except (ValueError, TypeError):
            raise ValueError(f"{config} cannot be read; mend it, or take it away") from None

    def shape(self, key, ndim):
        x = self.tensors.get(key)
        if x is None or x.ndim != ndim or not x.is_floating_point():
            what = "is missing" if x is None else f"is {x.dtype} of shape {tuple(x.shape)}, not {ndim}-dimensional floats"
            raise ValueError(f"{self.path}: {key} {what}; is it the right kind of model?")
        return tuple(x.shape)

    def take(self, key, *shape):
        if self.shape(key, len(shape)) != shape:
            raise ValueError(f"{self.path}: {key} has shape {self.shape(key, len(shape))}, but it should be {shape}")
        return self.tensors.pop(key)

    def count(self, pattern):
        return 1 + max((int(m[1]) for m in map(re.compile(pattern).match, self.tensors) if m), default=-1)

    def agree(self, fixed, **settings):
        """fixed: what config.json must say, if it says it; settings: our key = (the model's value, the file's or None)"""
        for key, value in fixed.items():
            if self.about.get(key, value) != value:
                raise ValueError(f"{self.path.with_name('config.json')}: {key} = {self.about[key]!r}; this reads {value!r} only")
        wrong = [f"{key} = {theirs!r}" for key, (ours, theirs) in settings.items() if theirs not in (None, ours)]
        if wrong:
            hint = "" if self.about else " (how many heads is not in the weights; mostly width / 64)"
            raise ValueError(f"{self.path} holds another model; set {', '.join(wrong)}{hint}")

    def fill(self, module, new):
        if self.tensors:
            keys = ", ".join(sorted(self.tensors)[:5])
            raise ValueError(f"{self.path}: {keys}: not understood; is it the right kind of model?")
        with torch.no_grad():
            for name, x in new.items():
                module.get_parameter(name).copy_(x)


def load_gpt2(model, path):
    """
    GPT-2 into the blocks, ln_f, wte and wpe of a VLA. Text counts its positions from its own first token, so GPT-2's rows 0, 1,
    ... go behind the picture's, which stay as they were; so do tokens that the model has beyond GPT-2's.
    """
    file = Weights(path, "transformer.", r"h\.\d+\.attn\.(masked_)?bias")       # the causal mask, which GPT-2 saves as numbers
    c, N, gelu = model.config, model.config.n_image, file.about.get("activation_function", "gelu_new")
    (rows, width), (length, _) = file.shape("wte.weight", 2), file.shape("wpe.weight", 2)
    file.agree(dict(model_type="gpt2", layer_norm_epsilon=1e-5, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False),
               n_layer=(c.n_layer, file.count(r"h\.(\d+)\.")), n_embd=(c.n_embd, width),
               n_head=(c.n_head, file.about.get("n_head")),
               gelu=(c.gelu, {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}.get(gelu, gelu)))
    if rows > c.n_vocab:
        raise ValueError(f"{file.path} has {rows} tokens and the model {c.n_vocab}; set n_vocab = {rows} (Tokenizer.gpt2)")
    if length < c.max_text:
        raise ValueError(f"{file.path} has {length} positions; set max_text = {length} or less (text_len in train.py)")
    words, places = file.take("wte.weight", rows, width), file.take("wpe.weight", length, width)
    if not torch.equal(file.tensors.pop("lm_head.weight", words), words):
        raise ValueError(f"{file.path}: lm_head.weight is not wte.weight; here knowing a word and saying it is one matrix")
    wte, wpe = model.wte.weight.detach().cpu(), model.wpe.weight.detach().cpu()
    new = {"wte.weight": torch.cat((words, wte[rows:])), "wpe.weight": torch.cat((wpe[:N], places[:c.max_text]))}
    for name, p in model.named_parameters():
        if name.startswith(("blocks.", "ln_f.")):       # GPT-2's matrices are (in, out), ours (out, in); t() leaves vectors alone
            new[name] = file.take(re.sub("^blocks", "h", name), *p.t().shape).t()
    file.fill(model, new)


# our names for the parts of a ViT's block: those of a published file
VIT = {"ln_1": "layernorm_before", "ln_2": "layernorm_after", "attn.c_proj": "attention.output.dense",
       "mlp.c_fc": "intermediate.dense", "mlp.c_proj": "output.dense"}
# transformers 5 has other names in memory, and writes them when told not to write the published ones
NEWER = {"layers.": "encoder.layer.", "attention.o_proj": "attention.output.dense", "mlp.fc1": "intermediate.dense",
         "mlp.fc2": "output.dense", **{f"attention.{x[0]}_proj": f"attention.attention.{x}" for x in ("query", "key", "value")}}


def load_vit(model, path):
    """
    A ViT, with a classifier (which is left out) or without, into the vit of a VLA. If the model's pictures have another number of
    patches than those it was trained on, the grid of position embeddings is stretched.
    """
    file = Weights(path, "vit.", r"(pooler|classifier)\..*", NEWER)
    c, about, cls = model.config, file.about, "embeddings.cls_token" in file.tensors
    width, _, P, _ = file.shape("embeddings.patch_embeddings.projection.weight", 4)
    g = math.isqrt(max(1, file.shape("embeddings.position_embeddings", 3)[1] - cls))
    file.agree(dict(model_type="vit", hidden_act="gelu", qkv_bias=True), patch_size=(c.patch_size, P),
               vit_layer=(c.vit_layer, file.count(r"encoder\.layer\.(\d+)\.")), vit_embd=(c.vit_embd, width),
               vit_head=(c.vit_head, about.get("num_attention_heads")), vit_cls=(c.vit_cls, cls),
               vit_eps=(c.vit_eps, about.get("layer_norm_eps")))
    position = file.take("embeddings.position_embeddings", 1, cls + g * g, width)[0].float()     # (1 + g*g, C)
    kernel = file.take("embeddings.patch_embeddings.projection.weight", width, 3, P, P)
    grid, G = position[cls:], c.image_size // P
    if g != G:
        grid = F.interpolate(grid.T.view(1, width, g, g), (G, G), mode="bicubic").flatten(2)[0].T          # (G*G, C)
    new = {"position": grid, "patch.weight": kernel.permute(0, 2, 3, 1).flatten(1),              # colours last, as in our patches
           "patch.bias": file.take("embeddings.patch_embeddings.projection.bias", width)}
    if cls:                                             # it stands in one place always, so its sum with that place is enough
        new["cls"] = file.take("embeddings.cls_token", 1, 1, width)[0, 0] + position[0]
    for name, p in model.vit.named_parameters():
        if m := re.fullmatch(r"blocks\.(\d+)\.(.*)\.(weight|bias)", name):
            i, part, kind = m.groups()
            if part == "attn.c_attn":
                new[name] = torch.cat([file.take(f"encoder.layer.{i}.attention.attention.{x}.{kind}", width, *p.shape[1:])
                                       for x in ("query", "key", "value")])
            else:
                new[name] = file.take(f"encoder.layer.{i}.{VIT[part]}.{kind}", *p.shape)
        elif name.startswith("ln_f."):
            new[name] = file.take(name.replace("ln_f", "layernorm"), *p.shape)
    file.fill(model.vit, new)
