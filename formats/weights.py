"""
Weights that others have trained, read from this disk: GPT-2 of any size for the GPT, its words for the
tokenizer, and a ViT (ViT-B/16 and its kin) for the ViT. In a preset:

    pretrained = {gpt2 = "weights/gpt2-medium", vit = "weights/vit-base-patch16-224-in21k"}

Both are folders with model.safetensors and config.json, as hugging face publishes them; GPT-2's also has
vocab.json and merges.txt. The preset states the sizes (n_layer, vit_embd ...), which are checked; what else
config.json decides (GELU, class token, epsilon) is read from it.

RT-2 starts from a vision-language model. These are its two halves. The projector that joins them is in
neither file and stays random, so the web stage of training has to teach the one to listen to the other.

A function takes every number that it needs, or leaves the model as it was. A key that is missing, unknown or
of another shape is a ValueError that names it, and a model of another size is told which keys of its preset
to set.
"""
import math
import re
from pathlib import Path

import torch
import torch.nn.functional as F

from formats.index import parse_json, read_json, short
from tokenizer import BEGIN_ACTION, BYTES, INTEGERS, KINDS, Tokenizer

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}


# -----------------------------------------------------------------------------------------------------------
# safetensors: the length of a header in 8 bytes (little-endian), the header, which is JSON, and the numbers

def read_header(path) -> tuple[int, dict]:
    """
    Where the numbers of a safetensors file begin, and what is there: name -> (dtype, shape, begin, end),
    checked. ValueError, with file and tensor, if the tensors do not fill the file from there to its end,
    each once.

    Example of a header: {"ln_f.bias": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]},
    "__metadata__": {}}
    """
    path, found = Path(path), {}
    try:
        with open(path, "rb") as f:
            size, n = path.stat().st_size, int.from_bytes(f.read(8), "little")
            header = dict(parse_json(f.read(n if n <= size else 0)))
    except OSError as e:
        raise ValueError(f"{path} cannot be read ({e})") from None
    except (ValueError, TypeError):
        raise ValueError(f"{path} has no header of a safetensors file; it is cut short, damaged or of "
                         "another kind") from None
    header.pop("__metadata__", None)
    for key, entry in header.items():
        try:
            dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
            # types first: ["ab", 10 ** 9] has a product, too
            fits = (type(shape) is list and len(shape) <= 8
                    and all(type(i) is int and 0 <= i <= size for i in (*shape, begin, end))
                    and end - begin == math.prod(shape) * dtype.itemsize and 8 + n + end <= size)
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"{path}: {short(key)} is {short(entry, 200)}, which does not fit a file of "
                             f"{size} bytes or is not of type {', '.join(DTYPES)}; the file is cut short or "
                             "damaged")
        found[key] = dtype, shape, begin, end
    at = 0
    for key, (_, _, begin, end) in sorted(found.items(), key=lambda item: item[1][2:]):
        if begin != at:
            raise ValueError(f"{path}: {short(key)} begins at byte {begin} of the numbers, but the one "
                             f"before ends at {at}; the file is damaged")
        at = end
    if 8 + n + at != size:
        raise ValueError(f"{path} has {size} bytes, of which header and tensors fill {8 + n + at}; it is "
                         "damaged")
    return 8 + n, found


def read_safetensors(path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, by name. ValueError, with file and tensor, for damage and NaN."""
    start, header = read_header(path)
    tensors = {}
    with open(path, "rb") as f:
        for key, (dtype, shape, begin, end) in header.items():
            x = torch.empty(end - begin, dtype=torch.uint8)
            f.seek(start + begin)
            f.readinto(x.numpy())
            tensors[key] = x.view(dtype).view(shape) if end > begin else torch.empty(shape, dtype=dtype)
            if not torch.isfinite(tensors[key]).all():
                raise ValueError(f"{path}: {short(key)} has numbers that are NaN or infinite; the file is "
                                 "damaged")
    return tensors


# -----------------------------------------------------------------------------------------------------------
# a file of weights, of which every tensor must be used

def file_of(path) -> Path:
    path = Path(path).expanduser()
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"there is no {path}; give a .safetensors file, whole and not in pieces, or the "
                         "folder of one")
    return path


def config_of(path) -> dict:
    """what the config.json beside a file of weights says; {} if there is none"""
    config = file_of(path).with_name("config.json")
    about = read_json(config) if config.is_file() else {}
    if type(about) is not dict:
        raise ValueError(f"{config} cannot be read; mend it, or take it away")
    return about


class Weights:
    """the tensors of one file, to be taken by name and shape until none is left; about: its config.json"""

    def __init__(self, path, prefix, ignored, newer={}):
        self.path, self.tensors = file_of(path), {}
        for key, x in read_safetensors(self.path).items():
            key = key.removeprefix(prefix)
            for new, published in newer.items():
                key = key.replace(new, published)
            if not re.fullmatch(ignored, key):
                self.tensors[key] = x
        self.about = config_of(path)

    def shape(self, key, ndim):
        x = self.tensors.get(key)
        if x is None or x.ndim != ndim or not x.is_floating_point():
            what = "is missing" if x is None else \
                f"is {x.dtype} of shape {tuple(x.shape)}, not floats of {ndim} axes"
            raise ValueError(f"{self.path}: {key} {what}; is it the right kind of model?")
        return tuple(x.shape)

    def take(self, key, *shape):
        found = self.shape(key, len(shape))
        if found != shape:
            raise ValueError(f"{self.path}: {key} has shape {found}, but it should be {shape}")
        return self.tensors.pop(key)

    def count(self, pattern):
        return 1 + max((int(m[1]) for m in map(re.compile(pattern).match, self.tensors) if m), default=-1)

    def agree(self, fixed, **settings):
        """fixed: what config.json must say, if it says it; settings: our key = (ours, the file's)"""
        for key, value in fixed.items():
            if self.about.get(key, value) != value:
                raise ValueError(f"{self.path.with_name('config.json')}: {key} = {short(self.about[key])}; "
                                 f"this reads {value!r} only")
        wrong = [f"{key} = {short(theirs)}" for key, (ours, theirs) in settings.items()
                 if theirs not in (None, ours)]
        if wrong:
            hint = "" if self.about else " (how many heads is not in the weights; mostly width / 64)"
            raise ValueError(f"{self.path} holds another model; set {', '.join(wrong)}{hint}")

    def fill(self, module, new):
        if self.tensors:
            keys = ", ".join(map(short, sorted(self.tensors)[:5]))
            raise ValueError(f"{self.path}: {keys}: not understood; is it the right kind of model?")
        with torch.no_grad():
            for name, x in new.items():
                module.get_parameter(name).copy_(x)


# -----------------------------------------------------------------------------------------------------------
# a preset's pretrained = {gpt2 = folder, vit = folder}

def settings(pretrained: dict) -> dict:
    """
    What the folders of a preset's `pretrained` decide of the model beside its sizes.

    Example: settings({"vit": "vit-base"}) -> {"vit_cls": True, "vit_eps": 1e-12}
    """
    for name, folder in pretrained.items():
        if name not in ("gpt2", "vit") or type(folder) is not str:
            raise ValueError(f"pretrained: {name} = {short(folder)}; it can say gpt2 = folder, vit = folder")
    found = {}
    if "gpt2" in pretrained:
        found["gelu"] = gelu_of(pretrained["gpt2"])
    if "vit" in pretrained:
        _, header = read_header(file_of(pretrained["vit"]))
        found["vit_cls"] = any(key.removeprefix("vit.") == CLS for key in header)
        found["vit_eps"] = eps_of(pretrained["vit"])
    return found


def load(model, pretrained: dict):
    """the weights of all folders of a preset's `pretrained` into a VLA"""
    for name, load_weights in (("gpt2", load_gpt2), ("vit", load_vit)):
        if name in pretrained:
            load_weights(model, pretrained[name])


# -----------------------------------------------------------------------------------------------------------
# GPT-2

GELUS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}      # GPT-2's name -> torch's


def gelu_of(path) -> str:
    name = config_of(path).get("activation_function", "gelu_new")
    if type(name) is not str or name not in GELUS:
        raise ValueError(f"{file_of(path).with_name('config.json')}: activation_function = {short(name)}; "
                         f"it can be {', '.join(GELUS)}")
    return GELUS[name]


def load_gpt2(model, path):
    """
    GPT-2 into the blocks, ln_f, wte and wpe of a VLA. Text counts its positions from its own first token, so
    GPT-2's rows 0, 1, ... go behind the picture's, which stay as they were. So do tokens that the model has
    beyond GPT-2's.
    """
    file = Weights(path, "transformer.", r"h\.\d+\.attn\.(masked_)?bias")    # its causal mask, as numbers
    config, N = model.config, model.config.n_image
    (rows, width), (length, _) = file.shape("wte.weight", 2), file.shape("wpe.weight", 2)
    file.agree(dict(model_type="gpt2", layer_norm_epsilon=1e-5, scale_attn_weights=True,
                    scale_attn_by_inverse_layer_idx=False),
               n_layer=(config.n_layer, file.count(r"h\.(\d{1,6})\.")), n_embd=(config.n_embd, width),
               n_head=(config.n_head, file.about.get("n_head")), gelu=(config.gelu, gelu_of(path)))
    if rows > config.n_vocab:
        raise ValueError(f"{file.path} has {rows} tokens and the model {config.n_vocab}; set n_vocab = "
                         f"{rows} (in training the words are GPT-2's own)")
    if length < config.max_text:
        raise ValueError(f"{file.path} has {length} positions; set max_text = {length} or less (text_len "
                         "in a preset)")
    words, places = file.take("wte.weight", rows, width), file.take("wpe.weight", length, width)
    if not torch.equal(file.tensors.pop("lm_head.weight", words), words):
        raise ValueError(f"{file.path}: lm_head.weight is not wte.weight; here both are one matrix")
    wte, wpe = model.wte.weight.detach().cpu(), model.wpe.weight.detach().cpu()
    new = {"wte.weight": torch.cat((words, wte[rows:])),
           "wpe.weight": torch.cat((wpe[:N], places[:config.max_text]))}
    for name, p in model.named_parameters():
        if name.startswith(("blocks.", "ln_f.")):       # GPT-2's matrices are (in, out), ours (out, in)
            new[name] = file.take(re.sub("^blocks", "h", name), *p.t().shape).t()
    file.fill(model, new)


def gpt2_tokenizer(folder) -> Tokenizer:
    """
    GPT-2's tokenizer, from a folder with vocab.json and merges.txt (hugging face's names) or encoder.json
    and vocab.bpe (OpenAI's). It keeps GPT-2's ids, so that its embedding rows fit: 0 .. 50255 are bytes and
    merges, 50256 is the end of text, here eos. Its merges are ordered by how often they were used, so the
    least used are the last. Those of " 0" .. " 255" that it lacks, and " Action:", are added behind.
    ValueError if files are missing or are another model's.

    Example: gpt2_tokenizer("gpt2").encode("Hello world") -> [15496, 995]
    """
    folder = Path(folder).expanduser()
    for names in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        words, merges = (folder / name for name in names)
        if words.is_file() and merges.is_file():
            break
    else:
        raise ValueError(f"{folder} has no tokenizer of GPT-2; it needs vocab.json and merges.txt (hugging "
                         "face's names) or encoder.json and vocab.bpe (OpenAI's)")
    # in these files each byte is a visible letter: itself, or the next one from 256 on
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(b): b for b in visible}
    letters |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in visible)}
    try:
        vocab = parse_json(words.read_bytes())
        eos = vocab.pop(KINDS["gpt2"][1])
        tokens = [bytes(letters[c] for c in t) for t in sorted(vocab, key=vocab.get)]
        lines = merges.read_text("utf-8-sig").split("\n")
        pairs = [line.split() for line in lines if line.strip() and line[:9] != "#version:"]
        merged = [bytes(letters[c] for c in a + b) for a, b in pairs]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        reason = f"{type(e).__name__}: {e}"
        raise ValueError(f"{words} or {merges} is damaged or not of GPT-2 ({reason})") from None
    # tiktoken merges in the order of the ids, so that must be the order of the merges
    in_order = [*sorted(vocab.values()), eos] == list(range(len(vocab) + 1))
    if not in_order or {*tokens[:256]} != {*BYTES} or tokens[256:] != merged:
        raise ValueError(f"{words} does not number 256 bytes, then the merges of {merges}, then "
                         "<|endoftext|>, as GPT-2 does")
    least_used = [i for i in range(eos - 1, 255, -1) if tokens[i] not in INTEGERS[:256]]
    missing = [t for t in (*INTEGERS[:256], BEGIN_ACTION.encode()) if t not in tokens]
    return Tokenizer(tokens + missing, least_used, "gpt2", eos)


# -----------------------------------------------------------------------------------------------------------
# ViT

CLS = "embeddings.cls_token"
# our names for the parts of a ViT's block: those of a published file
VIT = {"ln_1": "layernorm_before", "ln_2": "layernorm_after", "attn.c_proj": "attention.output.dense",
       "mlp.c_fc": "intermediate.dense", "mlp.c_proj": "output.dense"}
# transformers 5 has other names in memory, and writes them when told not to write the published ones
NEWER = {"layers.": "encoder.layer.", "attention.o_proj": "attention.output.dense",
         "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
         **{f"attention.{x[0]}_proj": f"attention.attention.{x}" for x in ("query", "key", "value")}}


def eps_of(path) -> float:
    eps = config_of(path).get("layer_norm_eps", 1e-12)
    if type(eps) not in (int, float) or not 0 < eps < 1:
        raise ValueError(f"{file_of(path).with_name('config.json')}: layer_norm_eps = {short(eps)}; it must "
                         "be a small number")
    return float(eps)


def load_vit(model, path):
    """
    A ViT, with a classifier (which is left out) or without, into the vit of a VLA. If the model's pictures
    have another number of patches than those it was trained on, the grid of position embeddings is
    stretched.
    """
    file = Weights(path, "vit.", r"(pooler|classifier)\..*", NEWER)
    config, cls, patch = model.config, CLS in file.tensors, "embeddings.patch_embeddings.projection"
    width, _, P, _ = file.shape(f"{patch}.weight", 4)
    g = math.isqrt(max(1, file.shape("embeddings.position_embeddings", 3)[1] - cls))
    file.agree(dict(model_type="vit", hidden_act="gelu", qkv_bias=True), patch_size=(config.patch_size, P),
               vit_layer=(config.vit_layer, file.count(r"encoder\.layer\.(\d{1,6})\.")),
               vit_head=(config.vit_head, file.about.get("num_attention_heads")),
               vit_embd=(config.vit_embd, width),
               vit_cls=(config.vit_cls, cls), vit_eps=(config.vit_eps, eps_of(path) if file.about else None))
    position = file.take("embeddings.position_embeddings", 1, cls + g * g, width)[0].float()    # (1 + g*g, C)
    kernel = file.take(f"{patch}.weight", width, 3, P, P)
    grid, G = position[cls:], config.image_size // P
    if g != G:
        grid = F.interpolate(grid.T.view(1, width, g, g), (G, G), mode="bicubic").flatten(2)[0].T
    new = {"position": grid, "patch.bias": file.take(f"{patch}.bias", width),
           "patch.weight": kernel.permute(0, 2, 3, 1).flatten(1)}       # colours last, as in our patches
    if cls:                             # it always stands in one place, so its sum with that place is enough
        new["cls"] = file.take(CLS, 1, 1, width)[0, 0] + position[0]
    for name, p in model.vit.named_parameters():
        if m := re.fullmatch(r"blocks\.(\d+)\.(.*)\.(weight|bias)", name):
            i, part, kind = m.groups()
            block = f"encoder.layer.{i}"
            if part == "attn.c_attn":
                new[name] = torch.cat([
                    file.take(f"{block}.attention.attention.{x}.{kind}", width, *p.shape[1:])
                    for x in ("query", "key", "value")])
            else:
                new[name] = file.take(f"{block}.{VIT[part]}.{kind}", *p.shape)
        elif name.startswith("ln_f."):
            new[name] = file.take(name.replace("ln_f", "layernorm"), *p.shape)
    file.fill(model.vit, new)
