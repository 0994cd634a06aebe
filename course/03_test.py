"""Assignment 3: one block and its cache (model.py: attend, Attention, Block, KVCache, flops)"""
import math

import torch
import torch.nn as nn

from course.grading import expect, points
from model import VLA, Attention, Block, KVCache, ModelConfig, attend


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@points(2, read="the handout, by hand: two keys")
def attention_by_hand():
    q, k = torch.tensor([[[[2., 0., 0., 0.]]]]), torch.tensor([[[[math.log(3.), 0, 0, 0], [0., 0., 0., 0.]]]])
    v = torch.tensor([[[[1., 0., 0., 0.], [0., 1., 0., 0.]]]])
    # q k' = 2 log 3, divided by sqrt(4): weights 3 : 1
    expect("weights of the two keys", attend(q, k, v)[0, 0, 0, :2], [.75, .25], off=1e-5)


@points(1, read="the docstring of attend: bias")
def what_is_minus_infinity_is_not_seen():
    q, k, v = numbers(1, 2, 3, 4), numbers(1, 2, 5, 4, seed=1), numbers(1, 2, 5, 4, seed=2)
    bias = torch.zeros(1, 1, 3, 5)
    bias[..., 4] = -torch.inf
    four = attend(q, k[:, :, :4], v[:, :, :4])
    expect("five keys, the last behind a bias of -inf (wanted: as with the first four alone)",
           attend(q, k, v, bias), four, off=1e-6)
    expect("the same with fused=True", attend(q, k, v, bias, fused=True), four, off=1e-5)
    expect("fused=True without a bias", attend(q, k, v, fused=True), attend(q, k, v), off=1e-5)


@points(2, read="torch.nn.MultiheadAttention computes the same")
def the_layer_equals_torchs():
    torch.manual_seed(0)
    mine, torchs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    torchs.load_state_dict({"in_proj_weight": mine.c_attn.weight, "in_proj_bias": mine.c_attn.bias,
                            "out_proj.weight": mine.c_proj.weight, "out_proj.bias": mine.c_proj.bias})
    x = numbers(2, 5, 12)
    theirs, weights = torchs(x, x, x, average_attn_weights=False)
    expect("numbers of the layer (wanted: torch.nn.MultiheadAttention's)", mine(x), theirs, off=1e-5)
    mine.watch = []
    mine(x)
    expect("with watch = [], how many attentions a pass leaves in it", len(mine.watch), 1)
    expect("who looked where, (B, H, T, T')", mine.watch[0], weights, off=1e-5)


@points(2, read="the handout: norm, then attention or MLP, then add")
def a_block_adds_to_what_it_got():
    torch.manual_seed(0)
    block, x = Block(8, 2), numbers(1, 3, 8)
    for layer in (block.attn.c_proj, block.mlp.c_proj):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    expect("a block whose two outputs are zero (wanted: what it was given)", block(x), x, off=1e-7)
    nn.init.normal_(block.mlp.c_proj.weight)
    seen = []
    for part in (block.attn, block.mlp):
        part.register_forward_pre_hook(
            lambda _, args: seen.append(args[0].std(-1, unbiased=False).mean().item()))
    block(x * 10)
    expect("spread of what attention and MLP read (1 after a norm; 10 without)", seen, [1., 1.], off=.05)


@points(1, read="the docstring of KVCache")
def the_cache_grows():
    cache = KVCache()
    k, v = numbers(1, 2, 6, 4), numbers(1, 2, 6, 4, seed=1)
    expect("shape of the keys after three tokens", tuple(cache.append(k[:, :, :3], v[:, :, :3])[0].shape),
           (1, 2, 3, 4))
    cache.append(k[:, :, 3:4], v[:, :, 3:4])
    all_k, all_v = cache.append(k[:, :, 4:], v[:, :, 4:])
    expect("the keys of six tokens that came in three parts", all_k, k, off=1e-9)
    expect("their values", all_v, v, off=1e-9)


@points(2, read="the handout: cached equals uncached")
def cached_equals_uncached():
    torch.manual_seed(0)
    blocks, x = [Block(8, 2).eval() for _ in range(2)], numbers(1, 6, 8)
    bias = torch.zeros(1, 1, 6, 6).masked_fill(~torch.ones(6, 6).tril().bool(), -torch.inf)
    whole = x
    for block in blocks:
        whole = block(whole, bias)
    caches = [KVCache() for _ in blocks]
    for begin, end in ((0, 3), (3, 4), (4, 6)):
        y = x[:, begin:end]
        for block, cache in zip(blocks, caches):
            y = block(y, bias[:, :, begin:end, :end], cache)
        expect(f"tokens {begin} to {end - 1}, read with a cache (wanted: as read in one go)",
               y, whole[:, begin:end], off=1e-5)


@points(2, read="the handout: six operations a weight and token")
def operations_are_counted():
    small = dict(n_vocab=100, image_size=8, patch_size=2, vit_layer=1, vit_head=1, vit_embd=8, n_layer=2,
                 n_head=1, n_embd=10)
    # by hand: ViT 16 * 12 * 8 + 16 * (12 * 64 + 2 * 16 * 8); projector 4 * 32 * 10; GPT of 4 + 20 tokens:
    # 24 * 2 * (12 * 100 + 2 * 24 * 10); head 5 * 10 * 100
    vit, gpt = 16 * 12 * 8 + 16 * (12 * 64 + 2 * 16 * 8), 24 * 2 * (1200 + 480)
    rest = 4 * 32 * 10 + 5 * 10 * 100
    expect("operations of 20 words, 5 of them with loss", VLA(ModelConfig(**small)).flops(20, 5),
           6 * (vit + gpt + rest))
    cls = 16 * 12 * 8 + 17 * (12 * 64 + 2 * 17 * 8)
    expect("the same with a class token in the ViT", VLA(ModelConfig(**small, vit_cls=True)).flops(20, 5),
           6 * (cls + gpt + rest))
    two = 28 * 2 * (1200 + 2 * 28 * 10) + 8 * 32 * 10 + 5 * 10 * 100
    expect("the same with two pictures", VLA(ModelConfig(**small, pictures=2)).flops(20, 5),
           6 * (2 * vit + two))
