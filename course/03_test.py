"""Assignment 3: one block and its cache (model.py: attend, Attention, Block, KVCache, flops)"""
import math

import torch
import torch.nn as nn

from course.grading import points
from model import VLA, Attention, Block, KVCache, ModelConfig, attend


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@points(2, read="the handout, by hand: two keys")
def attention_by_hand():
    q, k = torch.tensor([[[[2., 0., 0., 0.]]]]), torch.tensor([[[[math.log(3.), 0, 0, 0], [0., 0., 0., 0.]]]])
    v = torch.tensor([[[[1., 0., 0., 0.], [0., 1., 0., 0.]]]])
    found = attend(q, k, v)[0, 0, 0].tolist()          # q k' = 2 log 3, divided by sqrt(4): weights 3 : 1
    assert torch.allclose(torch.tensor(found[:2]), torch.tensor([.75, .25])), \
        f"weights are {found[:2]}, not .75, .25"


@points(1, read="the docstring of attend: bias")
def what_is_minus_infinity_is_not_seen():
    q, k, v = numbers(1, 2, 3, 4), numbers(1, 2, 5, 4, seed=1), numbers(1, 2, 5, 4, seed=2)
    bias = torch.zeros(1, 1, 3, 5)
    bias[..., 4] = -torch.inf
    assert torch.allclose(attend(q, k, v, bias), attend(q, k[:, :, :4], v[:, :, :4]), atol=1e-6)
    assert torch.allclose(attend(q, k, v, bias), attend(q, k, v, bias, fused=True), atol=1e-5), \
        "fused=True: the same"


@points(2, read="torch.nn.MultiheadAttention computes the same")
def the_layer_equals_torchs():
    torch.manual_seed(0)
    mine, torchs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    torchs.load_state_dict({"in_proj_weight": mine.c_attn.weight, "in_proj_bias": mine.c_attn.bias,
                            "out_proj.weight": mine.c_proj.weight, "out_proj.bias": mine.c_proj.bias})
    x = numbers(2, 5, 12)
    assert torch.allclose(mine(x), torchs(x, x, x)[0], atol=1e-5), \
        "other numbers than torch.nn.MultiheadAttention"


@points(2, read="the handout: norm, then attention or MLP, then add")
def a_block_adds_to_what_it_got():
    torch.manual_seed(0)
    block, x = Block(8, 2), numbers(1, 3, 8)
    for layer in (block.attn.c_proj, block.mlp.c_proj):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    assert torch.equal(block(x), x), "with both outputs zero a block changes nothing"
    nn.init.normal_(block.mlp.c_proj.weight)
    seen = []
    block.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    block(x * 10)
    assert abs(seen[0].std(-1, unbiased=False).mean().item() - 1) < .05, "the MLP reads the norm of x, not x"


@points(1, read="the docstring of KVCache")
def the_cache_grows():
    cache = KVCache()
    k, v = numbers(1, 2, 6, 4), numbers(1, 2, 6, 4, seed=1)
    first = cache.append(k[:, :, :3], v[:, :, :3])
    assert first[0].shape == (1, 2, 3, 4), "after three tokens it gives three"
    cache.append(k[:, :, 3:4], v[:, :, 3:4])
    all_k, all_v = cache.append(k[:, :, 4:], v[:, :, 4:])
    assert torch.equal(all_k, k) and torch.equal(all_v, v), "six tokens in three parts are not those six"


@points(2, read="the handout: cached equals uncached")
def cached_equals_uncached():
    torch.manual_seed(0)
    blocks, x = [Block(8, 2).eval() for _ in range(2)], numbers(1, 6, 8)
    bias = torch.zeros(1, 1, 6, 6).masked_fill(~torch.ones(6, 6).tril().bool(), -torch.inf)
    whole, parts = x, []
    for block in blocks:
        whole = block(whole, bias)
    caches = [KVCache() for _ in blocks]
    for begin, end in ((0, 3), (3, 4), (4, 6)):
        y = x[:, begin:end]
        for block, cache in zip(blocks, caches):
            y = block(y, bias[:, :, begin:end, :end], cache)
        parts.append(y)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5), \
        "a sequence read in parts gives other numbers"


@points(2, read="the handout: six operations a weight and token")
def operations_are_counted():
    small = ModelConfig(n_vocab=100, image_size=8, patch_size=2, vit_layer=1, vit_head=1, vit_embd=8,
                        n_layer=2, n_head=1, n_embd=10)
    model = VLA(small)
    # by hand: ViT 16 * 12 * 8 + 16 * (12 * 64 + 2 * 16 * 8); projector 4 * 32 * 10; GPT of 4 + 20 tokens:
    # 24 * 2 * (12 * 100 + 2 * 24 * 10); head 5 * 10 * 100
    vit, gpt = 16 * 12 * 8 + 16 * (12 * 64 + 2 * 16 * 8), 24 * 2 * (1200 + 480)
    wanted = 6 * (vit + 4 * 32 * 10 + gpt + 5 * 10 * 100)
    found = model.flops(20, 5)
    assert found == wanted, f"{found} instead of {wanted}"
