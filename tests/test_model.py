"""the model: who sees whom, cached = uncached, packed = one by one, loss on targets only, several pictures, it can learn"""
import pytest
import torch

from model import VLA, ModelConfig, attend, attention_mask

SMALL = dict(n_vocab=300, image_size=16, patch_size=4, vit_layer=2, vit_head=2, vit_embd=16, n_layer=2, n_head=2, n_embd=24, max_text=32)


def make(seed=0, **settings):
    torch.manual_seed(seed)
    model = VLA(ModelConfig(**{**SMALL, **settings}))
    for p in model.parameters():                            # larger than at birth, so that differences show
        torch.nn.init.normal_(p, std=0.2)
    return model.eval()


def sample(B=3, seed=0):
    """three questions packed behind a picture, with padding"""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (B, 16, 16, 3), dtype=torch.uint8, generator=g)
    segment = torch.tensor([1] * 6 + [2] * 5 + [3] * 7 + [-1] * 2).expand(B, -1)
    target = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0]).bool().expand(B, -1)
    return images, torch.randint(0, 300, (B, 20), generator=g), segment, target


# -- who sees whom

def test_mask_example_of_the_docstring():
    segment = torch.tensor([[0, 0, 1, 1, 1, 1]])
    prefix = attention_mask(segment, torch.tensor([[0, 0, 0, 0, 1, 1]]).bool())[0]
    assert prefix.int().tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0],
                                     [1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    causal = attention_mask(segment, torch.tensor([[0, 0, 1, 1, 1, 1]]).bool())[0]
    assert causal.int().tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0],
                                     [1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]


def test_mask_of_two_questions_and_padding():
    see = attention_mask(torch.tensor([[0, 1, 1, 2, 2, -1]]), torch.tensor([[0, 0, 1, 0, 1, 0]]).bool())[0]
    assert see.int().tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0],
                                  [1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]]
    assert see.any(-1).all()                                # a row that sees nothing would be NaN


@pytest.mark.parametrize("attention", ["prefix", "causal"])
def test_packed_questions_give_what_they_give_one_by_one(attention):
    model, (images, tokens, segment, target) = make(attention=attention), sample()
    packed, _ = model(images, tokens, segment, target)
    packed = packed.view(3, 8, -1)
    alone = [model(images, tokens[:, a:b], torch.ones_like(segment[:, a:b]), target[:, a:b])[0].view(3, -1, 300)
             for a, b in ((0, 6), (6, 11), (11, 18))]
    torch.testing.assert_close(packed, torch.cat(alone, 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention, sees", [("prefix", True), ("causal", False)])
def test_prompt_looks_forward_only_in_prefix_attention(attention, sees):
    """the answer's first logits depend on the prompt either way; the first prompt token's state on the second only in prefix"""
    model, (images, tokens, segment, target) = make(attention=attention), sample(1)
    other = tokens.clone()
    other[0, 1] = (other[0, 1] + 1) % 300
    states = [model.transform(*model.embed(images, t, segment, target))[0, model.config.n_image] for t in (tokens, other)]
    assert torch.equal(*states) != sees


def test_answers_do_not_look_ahead():
    model, (images, tokens, segment, target) = make(), sample(1)
    other = tokens.clone()
    other[0, 5] = (other[0, 5] + 1) % 300                   # the last token of the first answer
    a, b = (model(images, t, segment, target)[0] for t in (tokens, other))
    assert torch.equal(a[:3], b[:3])


def test_explicit_attention_equals_the_fused_kernel():
    q, k, v = torch.randn(3, 2, 4, 9, 8).unbind()
    see = attention_mask(torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2, -1]] * 2), torch.tensor([[0, 0, 0, 1, 1, 0, 0, 1, 0]] * 2).bool())
    bias = torch.zeros(see.shape).masked_fill(~see, -torch.inf)[:, None]
    for b in (bias, None):
        torch.testing.assert_close(attend(q, k, v, b), attend(q, k, v, b, fused=True))


# -- loss

def test_loss_is_on_targets_only():
    model, (images, tokens, segment, target) = make(), sample()
    logits, ce = model(images, tokens, segment, target)
    assert ce.shape == (int(target.sum()),) and logits.shape == (int(target.sum()), 300)
    everything = model.logits(model.transform(*model.embed(images, tokens, segment, target))).log_softmax(-1)
    want = [-everything[b, model.config.n_image + t - 1, tokens[b, t]] for b in range(3) for t in range(20) if target[b, t]]
    torch.testing.assert_close(ce, torch.stack(want))
    padded = tokens.clone()
    padded[:, 18:] = 7                                      # what stands in the padding is nobody's business
    torch.testing.assert_close(model(images, padded, segment, target)[1], ce)


def test_one_batch_can_be_learnt_by_heart():
    torch.manual_seed(0)
    model, batch = VLA(ModelConfig(**SMALL)), sample()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(250):
        loss = model(*batch)[1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


# -- generation

@pytest.mark.parametrize("attention", ["prefix", "causal"])
def test_cached_equals_uncached_token_for_token(attention):
    model, images = make(attention=attention), sample(4)[0]
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [3, 3]]
    cached, uncached = (model.generate(images, prompts, 8, cache=cache) for cache in (True, False))
    assert torch.equal(cached, uncached) and len({tuple(r) for r in cached.tolist()}) > 1


@pytest.mark.parametrize("attention", ["prefix", "causal"])
def test_generation_agrees_with_the_training_pass(attention):
    """what generate() says is the argmax of what forward() predicts for it: the two paths see the same thing"""
    model, images = make(attention=attention), sample(2)[0]
    prompts = [[5, 6, 7, 8], [9, 10]]
    said = model.generate(images, prompts, 5)
    for i, p in enumerate(prompts):
        tokens = torch.tensor([[*p, *said[i].tolist()]])
        target = torch.tensor([[False] * len(p) + [True] * 5])
        logits, _ = model(images[i:i + 1], tokens, torch.ones_like(tokens), target)
        assert logits.argmax(-1).tolist() == said[i].tolist()


def test_a_prompt_gives_the_same_alone_and_in_a_batch():
    model, images = make(), sample(3)[0]
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14]]
    together = model.generate(images, prompts, 6)
    for i, p in enumerate(prompts):
        assert torch.equal(model.generate(images[i:i + 1], [p], 6)[0], together[i])


def test_generation_never_leaves_the_allowed_tokens():
    images = sample(4)[0]
    allowed = torch.zeros(6, 300, dtype=torch.bool)
    for t in range(6):
        allowed[t, 40 * t:40 * t + (2 if t == 0 else 7)] = True
    for seed in range(5):
        said = make(seed).generate(images, [[1], [2, 3], [4], [5]], 6, lambda new: allowed[new.size(1)].expand(4, -1))
        assert all(allowed[t, token] for row in said for t, token in enumerate(row))


def test_generation_stops_at_eos():
    model, images = make(), sample(2)[0]
    free = model.generate(images, [[1, 2], [3]], 8)
    eos = int(free[0, 2])
    said = model.generate(images, [[1, 2], [3]], 8, eos=eos)
    first = free[0].tolist().index(eos)
    assert said[0].tolist() == free[0, :first].tolist() + [eos] * (8 - first)


def test_drawn_tokens_are_allowed_and_depend_on_the_random_numbers_of_their_own_row():
    model, images = make(), sample(4)[0]
    allowed = torch.zeros(6, 300, dtype=torch.bool)
    allowed[:, 50:60] = True
    uniform = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))

    def draw(uniform, rows=slice(None)):
        return model.generate(images[rows], [[1], [2, 3], [4], [5]][rows], 6, lambda new: allowed[new.size(1)].expand(len(new), -1),
                              temperature=3.0, uniform=uniform[rows])
    drawn, other = draw(uniform), uniform.clone()
    other[2] = 1 - other[2]
    assert (50 <= drawn).all() and (drawn < 60).all() and torch.equal(drawn[1:3], draw(uniform, slice(1, 3)))
    assert torch.equal((draw(other) == drawn).all(1), torch.tensor([True, True, False, True]))
    assert (draw(torch.zeros(4, 6)) == 50).all() and (draw(torch.full((4, 6), 1 - 2**-24)) == 59).all()


def test_tokens_are_drawn_as_often_as_the_softmax_says():
    model, images = make(), sample(1)[0].expand(2000, -1, -1, -1)
    with torch.no_grad():
        model.wte.weight[:] *= 20                           # chances that are far apart
    allowed = torch.zeros(1, 300, dtype=torch.bool)
    allowed[:, 50:55] = True
    drawn = model.generate(images, [[1]] * 2000, 1, lambda new: allowed, temperature=1.0, uniform=torch.arange(2000)[:, None] / 2000)
    tokens = torch.tensor([[1, 0]])
    logits, _ = model(images[:1], tokens, torch.ones_like(tokens), torch.tensor([[False, True]]))
    wanted = logits[0, 50:55].softmax(0)
    assert torch.allclose(torch.bincount(drawn[:, 0] - 50, minlength=5) / 2000, wanted, atol=2e-3) and wanted.max() > .3


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(ValueError, match="no tokens"):
        make().generate(sample(2)[0], [[1], []], 3)


# -- shape

def test_a_picture_token_shows_its_own_four_patches():
    """with no ViT block in between, changing one patch changes the one picture token that holds it: nothing is transposed"""
    model, images = make(vit_layer=1), sample(1)[0]
    model.vit.blocks = torch.nn.ModuleList()
    for row in range(4):
        for column in range(4):
            other = images.clone()
            other[0, 4 * row:4 * row + 4, 4 * column:4 * column + 4] += 100
            changed = (model.encode_images(images) != model.encode_images(other)).any(-1)[0].nonzero().flatten().tolist()
            assert changed == [row // 2 * 2 + column // 2]


def test_embedding_and_head_are_one_matrix():
    model = make()
    names = [name for name, p in model.named_parameters() if 300 in p.shape]
    assert names == ["wte.weight"]


@pytest.mark.parametrize("settings", [{}, dict(pictures=2, vit_cls=True)])
def test_flops_agree_with_a_count_of_the_matrix_products(settings):
    from torch.utils.flop_counter import FlopCounterMode
    model, batch = make(**settings), sample(1)
    if settings:
        batch = batch[0].expand(2, -1, -1, -1)[None], *batch[1:]
    with FlopCounterMode(display=False) as counter:
        model(*batch)[1].sum().backward()
    assert model.flops(20, 8) == pytest.approx(counter.get_total_flops(), rel=.05)


# -- several pictures

def test_picture_tokens_of_the_frames_follow_each_other():
    """each frame gives what it gives alone, in its own place; which place it is, the position embedding says"""
    two, one = make(pictures=2), make()
    one.load_state_dict({**two.state_dict(), "wpe.weight": one.wpe.weight})
    images = torch.stack([sample(seed=seed)[0] for seed in (0, 1)], 1)      # (B, 2, S, S, 3)
    assert two.config.n_image == 8 and one.config.n_image == 4
    alone = [one.encode_images(images[:, i]) - one.wpe.weight[:4] for i in range(2)]
    torch.testing.assert_close(two.encode_images(images) - two.wpe.weight[:8], torch.cat(alone, 1))
    assert torch.equal(one.encode_images(images[:, :1]), one.encode_images(images[:, 0]))     # one frame may be said either way
    _, tokens, segment, target = sample()
    assert not torch.equal(two(images, tokens, segment, target)[0], two(images.flip(1), tokens, segment, target)[0])


@pytest.mark.parametrize("attention", ["prefix", "causal"])
def test_with_two_frames_generation_agrees_with_the_training_pass(attention):
    model, images = make(pictures=2, attention=attention), torch.stack([sample(2, seed)[0] for seed in (0, 1)], 1)
    prompts = [[5, 6, 7, 8], [9, 10]]
    said = model.generate(images, prompts, 5)
    assert torch.equal(said, model.generate(images, prompts, 5, cache=False))
    for i, p in enumerate(prompts):
        tokens, target = torch.tensor([[*p, *said[i].tolist()]]), torch.tensor([[False] * len(p) + [True] * 5])
        assert model(images[i:i + 1], tokens, torch.ones_like(tokens), target)[0].argmax(-1).tolist() == said[i].tolist()


def test_neighbouring_numbers_begin_alike_and_other_words_do_not():
    torch.manual_seed(0)
    model = VLA(ModelConfig(n_vocab=600, n_embd=96))
    other = model.wte.weight[300:].clone()
    model.add_sinusoids(range(256))
    close = lambda i, j: torch.cosine_similarity(model.wte.weight[i], model.wte.weight[j], dim=0).item()            # noqa: E731
    assert close(20, 21) > .7 > .5 > close(20, 60) and close(20, 21) > close(20, 24)
    assert torch.equal(model.wte.weight[300:], other)
    VLA(ModelConfig(n_vocab=600, n_embd=33, n_head=3)).add_sinusoids(range(256))       # an odd width has a last sine


def test_vit_pixels_run_from_minus_one_to_one():
    model, seen = make(), []
    model.vit.patch.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model.encode_images(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 16, 16, 3))
    assert (seen[0][0] == -1).all() and (seen[0][1] == 1).all()


# -- options

def test_class_token_is_seen_by_the_patches_and_dropped():
    model, (images, *_) = make(vit_cls=True), sample()
    before = model.encode_images(images)
    assert before.shape == (3, 4, 24)
    with torch.no_grad():
        model.vit.cls += 1
    assert (model.encode_images(images) != before).any(-1).all()
    assert not any(name.endswith("cls") for name, _ in make().named_parameters())


def test_options_do_what_they_say():
    """gelu is the GPT's alone, vit_eps the ViT's alone"""
    images = sample()[0]
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    plain, tanh, eps = make(), make(gelu="tanh"), make(vit_eps=.5)
    assert torch.equal(plain.encode_images(images), tanh.encode_images(images)) and not torch.equal(plain.transform(x, None), tanh.transform(x, None))
    assert not torch.equal(plain.encode_images(images), eps.encode_images(images)) and torch.equal(plain.transform(x, None), eps.transform(x, None))
    assert {m.eps for m in eps.vit.modules() if isinstance(m, torch.nn.LayerNorm)} == {.5}


@pytest.mark.parametrize("settings", [{}, dict(pictures=2, vit_cls=True, gelu="tanh")])
def test_recompute_changes_no_number(settings):
    """the same loss and gradients, bit for bit, and it did compute again"""
    (images, *batch), results = sample(), []
    if settings:
        images = torch.stack((images, 255 - images), 1)
    for recompute in (False, True):
        model = make(**settings).train()
        calls = []
        for block in (*model.vit.blocks, *model.blocks):
            block.recompute = recompute
            block.attn.register_forward_hook(lambda *_: calls.append(1))
        loss = model(images, *batch)[1].mean()
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
        assert len(calls) == (8 if recompute else 4)
    assert all(torch.equal(a, b) for a, b in zip(*results))
    assert torch.equal(model.eval().generate(images, [[1], [2], [3]], 3), make(**settings).generate(images, [[1], [2], [3]], 3))


@pytest.mark.parametrize("settings, word", [(dict(image_size=18), "image_size"), (dict(n_embd=25), "width 25"), (dict(attention="x"), "attention"),
                                            (dict(gelu="relu"), "gelu"), (dict(pictures=0), "pictures")])
def test_impossible_shapes_are_named(settings, word):
    with pytest.raises(ValueError, match=word):
        ModelConfig(**{**SMALL, **settings})


def test_a_picture_of_another_shape_or_type_is_refused():
    model, (images, tokens, segment, target) = make(), sample()
    for bad in (images[:, :8], images.float(), images[0]):
        with pytest.raises(ValueError, match="images must be uint8"):
            model(bad, tokens, segment, target)
    for bad in (images, torch.stack([images] * 3, 1), torch.stack([images] * 2, 1).float()):
        with pytest.raises(ValueError, match=r"images must be uint8 of shape \(B, 2, 16, 16, 3\)"):
            make(pictures=2)(bad, tokens, segment, target)


def test_a_question_that_is_too_long_is_refused():
    model, (images, tokens, segment, target) = make(max_text=6), sample()
    with pytest.raises(ValueError, match="max_text"):
        model(images, tokens, segment, target)
    with pytest.raises(ValueError, match="max_text"):
        model.generate(images, [[1] * 4] * 3, 8)
