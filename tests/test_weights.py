"""published weights: every tensor lands where it belongs, and files that are damaged or of another model are refused by name"""
import json
import math
import random
import re

import pytest
import regex  # comes with tiktoken
import torch

import tokenizer as T
from model import VLA, ModelConfig
from formats import weights
from formats.weights import gpt2_tokenizer, load_gpt2, load_vit, read_safetensors
from tokenizer import ActionTokenizer, prompt

SMALL = dict(n_vocab=50, image_size=16, patch_size=4, vit_layer=2, vit_head=2, vit_embd=16, n_layer=2, n_head=2, n_embd=8,
             max_text=12, gelu="tanh", attention="causal", vit_cls=True, vit_eps=1e-12)
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8", torch.int64: "I64"}


def make(**settings):
    torch.manual_seed(0)
    return VLA(ModelConfig(**{**SMALL, **settings})).eval()


def write(path, tensors, **header):
    """a safetensors file, as its specification says"""
    data = b""
    for key, x in tensors.items():
        raw = x.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        header[key] = {"dtype": NAMES[x.dtype], "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def gpt2(n_layer=2, width=8, rows=50, length=16, prefix="transformer."):
    """numbers under the names that GPT-2 is published with"""
    g = torch.Generator().manual_seed(0)
    shapes = {"wte.weight": (rows, width), "wpe.weight": (length, width), "ln_f.weight": (width,), "ln_f.bias": (width,)}
    for i in range(n_layer):
        for part, a, b in (("attn.c_attn", 1, 3), ("attn.c_proj", 1, 1), ("mlp.c_fc", 1, 4), ("mlp.c_proj", 4, 1)):
            shapes |= {f"h.{i}.{part}.weight": (a * width, b * width), f"h.{i}.{part}.bias": (b * width,)}
        shapes |= {f"h.{i}.ln_{j}.{kind}": (width,) for j in (1, 2) for kind in ("weight", "bias")}
    return {prefix + key: torch.randn(shape, generator=g) for key, shape in shapes.items()}


def vit(n_layer=2, width=16, P=4, grid=4, prefix="vit."):
    """numbers under the names that ViTs are published with"""
    g = torch.Generator().manual_seed(0)
    shapes = {"embeddings.cls_token": (1, 1, width), "embeddings.position_embeddings": (1, 1 + grid ** 2, width),
              "embeddings.patch_embeddings.projection.weight": (width, 3, P, P),
              "embeddings.patch_embeddings.projection.bias": (width,), "layernorm.weight": (width,), "layernorm.bias": (width,)}
    for i in range(n_layer):
        for part, a, b in (*((f"attention.attention.{x}", 1, 1) for x in ("query", "key", "value")),
                           ("attention.output.dense", 1, 1), ("intermediate.dense", 4, 1), ("output.dense", 1, 4)):
            shapes |= {f"encoder.layer.{i}.{part}.weight": (a * width, b * width), f"encoder.layer.{i}.{part}.bias": (a * width,)}
        shapes |= {f"encoder.layer.{i}.layernorm_{x}.{y}": (width,) for x in ("before", "after") for y in ("weight", "bias")}
    return {prefix + key: torch.randn(shape, generator=g) for key, shape in shapes.items()}


def refused(load, model, path, match):
    """a ValueError that names the file, and no weight has changed"""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=match) as e:
        load(model, path)
    assert str(path) in str(e.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# -- the file

def test_safetensors_come_back_in_every_type(tmp_path):
    tensors = {"a": torch.randn(3, 5), "b": torch.randn(7).half(), "c": torch.randn(2, 1, 2).bfloat16(), "d": torch.tensor(3.5),
               "e": torch.tensor([1, 255], dtype=torch.uint8), "ü": torch.tensor([[2 ** 40]]), "empty": torch.zeros(0, 4)}
    again = read_safetensors(write(tmp_path / "x.safetensors", tensors, __metadata__={"format": "pt"}))
    assert again.keys() == tensors.keys()
    assert all(again[k].dtype == x.dtype and torch.equal(again[k], x) for k, x in tensors.items())


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = write(tmp_path / "x.safetensors", {"w": torch.randn(2, 3), "b": torch.randn(2)})
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read_safetensors(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        read_safetensors(path)


def test_a_damaged_header_gives_clear_errors_only(tmp_path):
    """whatever one byte of the header becomes, the file is refused by name, or all its numbers are read"""
    path = write(tmp_path / "x.safetensors", {"w": torch.randn(2, 3), "b": torch.randn(2)})
    whole, refusals = path.read_bytes(), 0
    end = 8 + int.from_bytes(whole[:8], "little")
    for i in range(end):
        for byte in {*b'09-,:]}" ', 255, whole[i] ^ 1} - {whole[i]}:
            path.write_bytes(whole[:i] + bytes([byte]) + whole[i + 1:])
            try:
                assert sum(x.nbytes for x in read_safetensors(path).values()) == len(whole) - end
            except ValueError as e:
                refusals += 1
                assert str(path) in str(e)
    assert refusals > 5 * end


@pytest.mark.parametrize("spans, at", [(((0, 16), (0, 16)), "'b' begins at byte 0"), (((0, 16), (8, 24)), "'b' begins at byte 8"),
                                       (((0, 16), (20, 36)), "'b' begins at byte 20"), (((4, 20), (20, 36)), "'a' begins at byte 4")])
def test_tensors_that_overlap_or_leave_a_hole_are_refused(tmp_path, spans, at):
    path = tmp_path / "x.safetensors"
    header = json.dumps({key: {"dtype": "F32", "shape": [4], "data_offsets": span} for key, span in zip("ab", spans)})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(spans[1][1]))
    with pytest.raises(ValueError, match=f"{path}: {at}"):
        read_safetensors(path)


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "a" * 5000], ids=["break", "separator", "long"])
def test_an_error_is_one_line_whatever_a_tensor_is_called(tmp_path, name):
    makes = [lambda path: write(path, {name: torch.full((2,), math.nan)}), lambda path: write(path, gpt2() | {name: torch.ones(1)})]
    for n, made in enumerate(makes):
        (tmp_path / f"{n}").mkdir()
        with pytest.raises(ValueError) as e:
            load_gpt2(make(), made(tmp_path / f"{n}/model.safetensors"))
        assert len(str(e.value).splitlines()) == 1 and len(str(e.value)) < 500 and str(tmp_path) in str(e.value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, number):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        path = write(tmp_path / "x.safetensors", {"a": torch.ones(3), "b": torch.tensor([1, number], dtype=dtype)})
        with pytest.raises(ValueError, match=f"{path}: 'b' has numbers that are NaN or infinite"):
            read_safetensors(path)


@pytest.mark.parametrize("header", ["", "[]", "null", "7", '{"w": 7}', '{"w": {}}', "[" * 100_000,
                                    '{"w": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}',
                                    '{"w": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}',
                                    '{"w": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}',
                                    '{"w": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}',
                                    '{"w": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}}',
                                    '{"w": {"dtype": "F32", "shape": ["xx", 1000000000000], "data_offsets": [0, 8]}}',
                                    '{"w": {"dtype": "F32", "shape": [[2], 1000000000000], "data_offsets": [0, 8]}}',
                                    '{"w": {"dtype": "F32", "shape": [0, 1000000000000], "data_offsets": [0, 0]}}',
                                    '{"w": {"dtype": "F32", "shape": %s, "data_offsets": [0, 8]}}' % ([2] + [1] * 99),
                                    '{"w": {"dtype": "F32", "shape": [true, 2], "data_offsets": [0, 8]}}',
                                    '{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 1%s]}}' % ("0" * 400),
                                    '{"w": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}',
                                    '{"w": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}',
                                    '{"w": {"dtype": "F32", "shape": [99999999999999], "data_offsets": [0, 399999999999996]}}'])
def test_a_header_that_makes_no_sense_is_refused(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    with pytest.raises(ValueError, match=re.escape(str(path)) + ("" if "dtype" not in header else ".*'w'")):
        read_safetensors(path)


# -- names and places

@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_gpt2_fills_blocks_tokens_and_the_positions_of_text(tmp_path, prefix):
    theirs, model, fresh = gpt2(prefix=""), make(n_vocab=53), make(n_vocab=53)
    extra = {f"h.{i}.attn.{name}": x for i in range(2) for name, x in (("bias", torch.ones(1, 1, 16, 16, dtype=torch.uint8)),
                                                                       ("masked_bias", torch.tensor(-1e4)))}
    file = {prefix + k: v for k, v in {**theirs, **extra}.items()}
    load_gpt2(model, write(tmp_path / "model.safetensors", {**file, "lm_head.weight": theirs["wte.weight"]}))
    N = model.config.n_image
    assert torch.equal(model.wte.weight, torch.cat((theirs["wte.weight"], fresh.wte.weight[50:])))
    assert torch.equal(model.wpe.weight, torch.cat((fresh.wpe.weight[:N], theirs["wpe.weight"][:12])))
    assert torch.equal(model.blocks[1].mlp.c_fc.weight, theirs["h.1.mlp.c_fc.weight"].T)
    changed = {name for (name, a), b in zip(model.named_parameters(), fresh.parameters()) if not torch.equal(a, b)}
    assert changed == {name for name, _ in model.named_parameters() if name.startswith(("blocks", "ln_f", "wte", "wpe"))}


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_vit_fills_the_vit_and_nothing_else(tmp_path, prefix):
    theirs, model, fresh = vit(prefix=""), make(), make()
    file = {prefix + k: v for k, v in theirs.items()}
    extra = {"classifier.weight": torch.ones(3, 16), prefix + "pooler.dense.bias": torch.ones(16)}
    load_vit(model, write(tmp_path / "model.safetensors", {**file, **extra}).parent)
    kernel = theirs["embeddings.patch_embeddings.projection.weight"]
    assert torch.equal(model.vit.patch.weight.view(16, 4, 4, 3)[:, 1, 2, 0], kernel[:, 0, 1, 2])     # red, row 1, column 2
    assert torch.equal(model.vit.position, theirs["embeddings.position_embeddings"][0, 1:])
    assert torch.equal(model.vit.cls, theirs["embeddings.cls_token"][0, 0] + theirs["embeddings.position_embeddings"][0, 0])
    changed = {name for (name, a), b in zip(model.named_parameters(), fresh.parameters()) if not torch.equal(a, b)}
    assert changed == {name for name, _ in model.named_parameters() if name.startswith("vit.")}


def test_half_precision_is_read(tmp_path):
    for dtype in (torch.float16, torch.bfloat16):
        model, theirs = make(), {k: v.to(dtype) for k, v in gpt2().items()}
        load_gpt2(model, write(tmp_path / "x.safetensors", {**theirs, "lm_head.weight": theirs["transformer.wte.weight"]}))
        assert model.wte.weight.dtype == torch.float32 and torch.equal(model.wte.weight, theirs["transformer.wte.weight"].float())


def test_positions_of_another_image_size_are_stretched(tmp_path):
    """positions that grow to the right, alike in every row, do so on the finer grid: half a cell is half as much"""
    theirs, model = vit(), make(image_size=32)
    columns = torch.arange(4.).repeat(4)[:, None].expand(16, 16)
    theirs["vit.embeddings.position_embeddings"][0, 1:] = columns
    load_vit(model, write(tmp_path / "x.safetensors", theirs))
    row = model.vit.position.view(8, 8, 16)[3, :, 5]
    assert (model.vit.position.view(8, 8, 16)[:, :, 5] - row).abs().max() < 1e-5
    torch.testing.assert_close(row[3:5], torch.tensor([1.25, 1.75]), atol=.06, rtol=0)


# -- what is refused

@pytest.mark.parametrize("settings, match", [
    (dict(n_layer=3), "set n_layer = 2 "), (dict(n_embd=16), "set n_embd = 8 .*heads"), (dict(gelu="none"), "set gelu = 'tanh'"),
    (dict(n_layer=1, n_embd=16), "set n_layer = 2, n_embd = 8"), (dict(max_text=17), "set max_text = 16"),
    (dict(n_vocab=49), "set n_vocab = 50")])
def test_a_gpt2_of_another_size_says_what_to_set(tmp_path, settings, match):
    refused(load_gpt2, make(**settings), write(tmp_path / "model.safetensors", gpt2()), match)


@pytest.mark.parametrize("settings, match", [
    (dict(vit_layer=1), "set vit_layer = 2 "), (dict(vit_embd=32), "set vit_embd = 16 "),
    (dict(patch_size=2), "set patch_size = 4 "), (dict(vit_cls=False), "set vit_cls = True")])
def test_a_vit_of_another_size_says_what_to_set(tmp_path, settings, match):
    refused(load_vit, make(**settings), write(tmp_path / "model.safetensors", vit()), match)


@pytest.mark.parametrize("load, tensors, about, match", [
    (load_gpt2, gpt2, dict(n_head=4), "set n_head = 4$"), (load_gpt2, gpt2, dict(activation_function="gelu"), "gelu = 'none'$"),
    (load_gpt2, gpt2, dict(activation_function="relu"), "activation_function = 'relu'; it can be gelu, "),
    (load_gpt2, gpt2, dict(activation_function=["gelu"]), "it can be gelu, "), (load_vit, vit, dict(layer_norm_eps="1e-6"), "eps"),
    (load_gpt2, gpt2, dict(layer_norm_epsilon=1e-6), "epsilon = 1e-06"), (load_gpt2, gpt2, dict(model_type="bert"), "bert"),
    (load_gpt2, gpt2, dict(scale_attn_by_inverse_layer_idx=True), "scale_attn"), (load_vit, vit, dict(hidden_act="relu"), "relu"),
    (load_vit, vit, dict(num_attention_heads=4), "vit_head = 4$"), (load_vit, vit, dict(layer_norm_eps=1e-6), "vit_eps = 1e-06")])
def test_what_config_json_says_is_compared(tmp_path, load, tensors, about, match):
    path = write(tmp_path / "model.safetensors", tensors())
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=match):
        load(make(), path)
    for damaged in ('{"n_head', "[1]", "\xff", "[" * 100_000):
        (tmp_path / "config.json").write_text(damaged, "latin-1")
        with pytest.raises(ValueError, match="config.json cannot be read"):
            load(make(), path)


@pytest.mark.parametrize("load, tensors", [(load_gpt2, gpt2), (load_vit, vit)])
def test_a_key_that_is_missing_unknown_or_misshapen_is_named(tmp_path, load, tensors):
    path, whole, model = tmp_path / "x.safetensors", tensors(), make()
    for key, x in whole.items():
        short = re.escape(key.split(".", 1)[1])
        for change in ({key: None}, {key: torch.cat((x, x), -1)}, {key: x[..., None]}, {key: x.long()}):
            write(path, {k: v for k, v in {**whole, **change}.items() if v is not None})
            # without one of these the file is of another model altogether
            refused(load, model, path, "vit_cls" if "cls_token" in key and change[key] is None else
                    "wte|n_embd" if "wte" in key else "projection|vit_embd" if "projection" in key else short)
    for name in ("h.2.ln_1.weight", "h.0.attn.bias2", "encoder.layer.0.attention.bias", "nonsense"):
        refused(load, model, write(path, {**whole, name: torch.ones(8)}), re.escape(name) + "|_layer = 3")
    other = {load_gpt2: vit, load_vit: gpt2}[load]
    refused(load, model, write(path, other()), "right kind of model")


def test_a_head_of_its_own_and_missing_files_are_refused(tmp_path):
    refused(load_gpt2, make(), write(tmp_path / "x.safetensors", {**gpt2(), "lm_head.weight": torch.ones(50, 8)}), "lm_head")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "nothing.safetensors"):
        refused(load_gpt2, make(), path, "there is no")


# -- pretrained = {gpt2 = folder, vit = folder} in a preset

def published_folder(path, tensors, **about):
    path.mkdir()
    write(path / "model.safetensors", tensors)
    if about:
        (path / "config.json").write_text("\ufeff" + json.dumps(about), "utf-8")
    return str(path)


def test_what_the_folders_decide_is_read_there(tmp_path):
    bare = {k: v for k, v in vit().items() if "cls_token" not in k}
    for n, (tensors, about, want) in enumerate([
            (gpt2(), {}, {"gelu": "tanh"}), (gpt2(), {"activation_function": "gelu"}, {"gelu": "none"}),
            (vit(), {}, {"vit_cls": True, "vit_eps": 1e-12}), (vit(prefix=""), {"layer_norm_eps": 1e-6}, {"vit_cls": True, "vit_eps": 1e-6}),
            (bare, {"layer_norm_eps": 0.5}, {"vit_cls": False, "vit_eps": .5})]):
        folder = published_folder(tmp_path / str(n), tensors, **about)
        assert weights.settings({"gpt2" if "gelu" in want else "vit": folder}) == want
    assert weights.settings({}) == {}
    both = {"gpt2": str(tmp_path / "1"), "vit": str(tmp_path / "3")}
    model = make(**weights.settings(both))
    weights.load(model, both)
    assert torch.equal(model.wte.weight, gpt2()["transformer.wte.weight"])
    assert torch.equal(model.vit.ln_f.weight, vit()["vit.layernorm.weight"])


@pytest.mark.parametrize("pretrained, match", [({"bert": "x"}, "bert = 'x'; it can say"), ({"vit": 7}, "vit = 7; it can say"),
                                               ({"vit": "nowhere"}, "there is no nowhere"), ({"gpt2": "nowhere"}, "there is no nowhere")])
def test_folders_that_are_not_there_and_unknown_keys_are_refused(pretrained, match):
    with pytest.raises(ValueError, match=match):
        weights.settings(pretrained)


# -- GPT-2's words

LACKING = [7, 41, 128, 130, 200, 255, *range(262, 1000)]    # integers that the tiny GPT-2 below has no token of


def gpt2_files():
    """a tiny tokenizer as GPT-2's files hold one: the bytes of its tokens by id; vocab.json; merges.txt"""
    visible = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    order = visible + [b for b in range(256) if b not in visible]
    letter = {b: chr(b if b in visible else 256 + i - len(visible)) for i, b in enumerate(order)}
    words = [" %d" % i for i in range(1000) if i not in LACKING] + [" the", " red", "block", "hello", "über", "'re", "\n\n"]
    tokens, merges = [bytes([b]) for b in order], []
    for word in words:                                      # merged from the right, so that " 130" does not need " 13"
        for i in range(len(word.encode()) - 2, -1, -1):
            if word.encode()[i:] not in tokens:
                tokens.append(word.encode()[i:])
                merges.append((word.encode()[i:i + 1], word.encode()[i + 1:]))
    written = ["".join(letter[b] for b in t) for t in tokens]
    vocab = {t: i for i, t in enumerate([*written, "<|endoftext|>"])}
    lines = ["#version: 0.2", *(" ".join("".join(letter[b] for b in half) for half in pair) for pair in merges), ""]
    return tokens, json.dumps(vocab, ensure_ascii=False), "\n".join(lines)


def write_gpt2_files(folder):
    for name, text in zip(("vocab.json", "merges.txt"), gpt2_files()[1:]):
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return gpt2_tokenizer(write_gpt2_files(tmp_path_factory.mktemp("gpt2")))


def test_gpt2_ids_are_its_own_and_missing_words_stand_behind_them(words):
    tokens, n = gpt2_files()[0], len(gpt2_files()[0])
    missing = [" 7", " 41", " 128", " 130", " 200", " 255", " Action:"]
    assert words.eos == n and words.tokens[:n] == tokens and words.n_vocab == n + 1 + len(missing)
    assert [words.enc.decode_bytes([i]) for i in range(n)] == tokens and words.decode([n]) == "<|endoftext|>"
    assert [words.decode([i]) for i in range(n + 1, words.n_vocab)] == missing and words.begin_action == words.n_vocab - 1
    assert [words.encode(f" {i}") for i in range(256)] == [[i] for i in words.integers[:256]]
    assert words.integers[44] == tokens.index(b" 44") and words.integers[7] == n + 1 and len(words.integers) == 262
    assert words.encode("red 41, 130")[-3:] == [words.integers[41], tokens.index(b","), words.integers[130]]
    assert words.encode(" Plan: the. Action: 44")[-2:] == [words.begin_action, words.integers[44]]


def plainly_merged(text, ranks):
    """BPE, one piece after the other, by the smallest rank of two neighbours: slow, and easy to follow"""
    ids = []
    for piece in regex.findall(T.GPT2_PATTERN, text):
        parts = [piece.encode()[i:i + 1] for i in range(len(piece.encode()))]
        while len(parts) > 1:
            rank, i = min((ranks.get(parts[i] + parts[i + 1], 10 ** 9), i) for i in range(len(parts) - 1))
            if rank == 10 ** 9:
                break
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[piece.encode()]] if piece.encode() in ranks else [ranks[part] for part in parts]
    return ids


def test_gpt2_encodes_as_the_plainest_encoder_does(words):
    ranks, rng = {words.enc.decode_bytes([i]): i for i in range(words.n_vocab) if i != words.eos}, random.Random(0)
    letters = "aeé 月\n\t'0123789.,:Q<|>\U0001f600\x00"
    texts = ["".join(rng.choices(letters, k=rng.randrange(40))) for _ in range(200)]
    texts += [f"a {i} {i}{i} {i}, {i}a" for i in range(0, 400, 3)] + [prompt("push the red block")]
    for s in [*texts, "we're don't", "hello the red block\n\n\n x  y   \n", "<|endoftext|>"]:
        ids = words.encode(s)
        assert ids == plainly_merged(s, ranks) and words.enc.decode_bytes(ids) == s.encode() and words.eos not in ids


def test_gpt2_overwrites_its_last_merges(words):
    """they are the least used; bytes, " 0" .. " 255" and eos stay"""
    tokens = gpt2_files()[0]
    last = [i for i in range(len(tokens) - 1, 255, -1) if not re.fullmatch(rb" ([01]?\d?\d|2[0-4]\d|25[0-5])", tokens[i])]
    assert words.least_used == last and ActionTokenizer(words, [0], [1], "overwrite", ["x"]).ids.tolist() == last[:256]


def test_gpt2_is_read_under_both_spellings_of_its_files(words, tmp_path):
    _, vocab, merges = gpt2_files()
    (tmp_path / "encoder.json").write_text(vocab, "utf-8")
    (tmp_path / "merges.txt").write_text(merges, "utf-8")   # one of each is not enough
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ".*vocab.json and merges.txt.*encoder.json and vocab.bpe"):
        gpt2_tokenizer(tmp_path)
    (tmp_path / "vocab.bpe").write_bytes(merges.replace("\n", "\r\n").encode("utf-8-sig"))
    assert gpt2_tokenizer(tmp_path).state() == gpt2_tokenizer(str(tmp_path)).state() == words.state()


def test_files_that_are_not_gpt2s_are_refused_by_name(tmp_path):
    tokens, vocab, merges = gpt2_files()
    known, lines = json.loads(vocab), merges.split("\n")
    swapped = {**known, "Ġ0": known["Ġ1"], "Ġ1": known["Ġ0"]}
    for v, m in ((vocab[:-1], merges), ("[]", merges), (vocab.replace("<|endoftext|>", "</s>"), merges), ("[" * 100_000, merges),
                 (json.dumps(swapped), merges), (json.dumps({**known, "Ġ0": "1"}), merges),
                 (json.dumps({**known, "€": 9999}), merges),
                 (json.dumps({**known, "<|endoftext|>": 0}), merges), (json.dumps({t: i + 1 for t, i in known.items()}), merges),
                 (vocab, "\n".join(lines[:-2])), (vocab, "\n".join([lines[2], lines[1], *lines[3:]])), (vocab, merges + "x"),
                 (vocab, ""), (json.dumps({t: i for i, t in enumerate(list(known)[256:])}), merges)):
        (tmp_path / "vocab.json").write_text(v, "utf-8")
        (tmp_path / "merges.txt").write_text(m, "utf-8")
        with pytest.raises(ValueError, match="vocab.json.*merges.txt"):
            gpt2_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="vocab.json.*merges.txt"):
        gpt2_tokenizer(tmp_path)


# -- the same numbers as the library that the files are published with

def published(module, seed=0):
    """a random model whose every tensor matters, biases and norms too"""
    torch.manual_seed(seed)
    for name, p in module.named_parameters():
        torch.nn.init.normal_(p, mean=float("ln" in name or "layernorm" in name) * name.endswith("weight"), std=.15)
    return module.eval()


def transformers():
    return pytest.importorskip("transformers", reason="pip install transformers")


@pytest.mark.parametrize("width, heads, layers", [(8, 2, 2), (24, 3, 1), (64, 4, 3)])
def test_gpt2_says_what_transformers_says(tmp_path, width, heads, layers):
    hf = transformers()
    config = hf.GPT2Config(vocab_size=50, n_positions=16, n_embd=width, n_layer=layers, n_head=heads,
                           bos_token_id=0, eos_token_id=0)
    theirs = published(hf.GPT2LMHeadModel(config))
    tokens = torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(1))
    for part, folder in ((theirs, tmp_path / "lm"), (theirs.transformer, tmp_path / "bare")):
        part.save_pretrained(folder)
        ours = make(n_vocab=60, n_embd=width, n_layer=layers, n_head=heads)
        load_gpt2(ours, folder)
        with torch.no_grad():
            x = ours.wte(tokens) + ours.wpe(ours.config.n_image + torch.arange(12))
            logits = ours.logits(ours.transform(x, torch.full((12, 12), -math.inf).triu(1)))
            want = theirs(tokens).logits
        assert want.std() > .1
        torch.testing.assert_close(logits[..., :50], want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("width, heads, layers, P", [(16, 2, 2, 4), (24, 3, 1, 8)])
def test_vit_sees_what_transformers_sees(tmp_path, width, heads, layers, P):
    hf = transformers()
    config = hf.ViTConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
                          image_size=4 * P, patch_size=P)
    theirs = published(hf.ViTForImageClassification(config))
    images = torch.randint(0, 256, (3, 8 * P, 8 * P, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for part, folder, published_names in ((theirs, "classifier", True), (theirs.vit, "bare", True), (theirs, "newer", False)):
        part.save_pretrained(tmp_path / folder, save_original_format=published_names)
        for size in (4 * P, 8 * P):                         # as trained, and stretched
            ours = make(vit_embd=width, vit_layer=layers, vit_head=heads, patch_size=P, image_size=size)
            load_vit(ours, tmp_path / folder)
            with torch.no_grad():
                seen = ours.vit(images[:, :size, :size])
                pixels = images[:, :size, :size].permute(0, 3, 1, 2) / 127.5 - 1
                want = theirs.vit(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
            assert want.std() > .1
            torch.testing.assert_close(seen, want, atol=1e-4, rtol=0)
