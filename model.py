"""
The vision-language-action model: a ViT that reads the picture, a GPT that reads words and writes words or
actions.

    picture (H, W, 3) -> patches -> ViT -> 2x2 pooling -> projector -> n_image tokens --+
                                                                                        +-> GPT -> next token
    text    "Q: what action should the robot take to pick apple? A:"  -> embeddings ----+

- One pre-LayerNorm Block serves both; its parts have GPT-2's names.
- An action is eight more words of the same vocabulary: there is no action head (RT-2, section 3.2).
- The token embedding is tied to the output head: knowing a word and saying it is one matrix.
- Several questions may follow each other behind one picture. A question sees the picture and itself, nothing
  else, so a packed sequence gives the very numbers that the questions would give one by one.
- A sample may have several pictures, one after the other (two cameras; the last step's and this one's).

This file knows tensors only: no words, no robot, no files. The options gelu, vit_cls and vit_eps are there
so that published weights fit into the same Block (formats/weights.py).
"""
import math
from dataclasses import dataclass, fields

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


@dataclass
class ModelConfig:
    """The sizes of a model, and what published weights need of it (formats/weights.py)."""
    n_vocab: int = 2816
    image_size: int = 64        # pixels a side
    patch_size: int = 8
    vit_layer: int = 2
    vit_head: int = 4
    vit_embd: int = 96
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 96
    max_text: int = 64          # tokens of text behind a picture
    attention: str = "prefix"   # prompts see themselves both ways (like PaLI-X), or "causal" (like PaLM-E)
    pictures: int = 1           # of a sample: cameras x frames
    gelu: str = "none"          # of the GPT: exact, or "tanh", GPT-2's approximation; the ViT's is exact
    vit_cls: bool = False       # a class token in front of the patches, as published ViTs have
    vit_eps: float = 1e-5       # epsilon of the ViT's LayerNorms; published ViTs have 1e-12

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            if type(value) is not f.type or f.type is int and value < 1:
                raise ValueError(f"{f.name} is {value!r}; it must be of type {f.type.__name__}"
                                 + ", and at least 1" * (f.type is int))
        if self.image_size % (2 * self.patch_size):
            raise ValueError(f"image_size {self.image_size} must be a multiple of 2 * patch_size = "
                             f"{2 * self.patch_size}")
        for width, heads in ((self.vit_embd, self.vit_head), (self.n_embd, self.n_head)):
            if width % heads:
                raise ValueError(f"width {width} must be a multiple of the number of heads {heads}")
        if self.attention not in ("prefix", "causal"):
            raise ValueError(f"attention must be 'prefix' or 'causal', not {self.attention!r}")
        if self.gelu not in ("none", "tanh"):
            raise ValueError(f"gelu must be 'none' (exact) or 'tanh' (as GPT-2 has it), not {self.gelu!r}")

    @property
    def n_image(self) -> int:
        """tokens that all the pictures of a sample take in the GPT"""
        return self.pictures * (self.image_size // (2 * self.patch_size)) ** 2


# --------------------------------------------------------------------------------------------------------
# who sees whom

def attention_mask(segment, causal):
    """
    Which position may look at which. segment (B, T) int: 0 = picture, 1, 2, ... = the questions, -1 =
    padding. causal (B, T) int: 1 where a token must not be seen by those before it. Returns (B, T, T)
    bool; [b, i, j] = i sees j.

    Token i sees token j if j is picture or of the same question, and if j's rank is not above i's. The rank
    of a token counts the causal tokens up to it, itself among them.
    Padding is like a question of its own: no other sees it.

    Example, two picture tokens, then a question of two prompt tokens (prefix) and two answer tokens (causal):
        segment 0 0 1 1 1 1      rank 0 0 0 0 1 2      i\\j  0 1 2 3 4 5
        causal  0 0 0 0 1 1                           0,1   x x . . . .    the picture sees itself only,
                                                      2,3   x x x x . .    the prompt sees picture and prompt,
                                                      4     x x x x x .    an answer token sees all before it
                                                      5     x x x x x x
    With causal = 0 0 1 1 1 1 instead, row 2 loses column 3: plain GPT attention over the text.
    """
    rank = causal.cumsum(1)                                                                 # (B, T)
    before = rank[:, None, :] <= rank[:, :, None]                                           # (B, T, T)
    same = (segment[:, None, :] == segment[:, :, None]) | (segment[:, None, :] == 0)        # (B, T, T)
    return before & same


# --------------------------------------------------------------------------------------------------------
# the transformer

def attend(q, k, v, bias=None, fused=False):
    """
    softmax(q k' / sqrt(D) + bias) v; q (B, H, T, D), k and v (B, H, T', D), bias (B, 1, T, T'): 0 to see,
    -inf not to.
    """
    if fused:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
    # to learn on a CPU: there the fused kernel's backward pass is twice as slow as these three lines
    att = (q * q.size(-1) ** -0.5) @ k.transpose(-2, -1)                                    # (B, H, T, T')
    att = att if bias is None else att + bias.to(att.dtype)
    return F.softmax(att, dim=-1).to(v.dtype) @ v                                           # (B, H, T, D)


class Attention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.watch = None           # set it to a list: each pass appends who looked where, (B, H, T, T')

    def forward(self, x, bias=None, cache=None):
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)                   # (B, T, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                                                # 3 x (B, H, T, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, T so far, D)
        y = attend(q, k, v, bias, fused=x.device.type != "cpu" or not torch.is_grad_enabled())
        if self.watch is not None:      # with the identity as values, what comes out is the attention itself
            self.watch.append(attend(q, k, torch.eye(k.size(2), device=x.device), bias))
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))                              # (B, T, C)


class MLP(nn.Module):
    def __init__(self, n_embd, gelu="none"):
        super().__init__()
        self.gelu = gelu
        self.c_fc = nn.Linear(n_embd, 4 * n_embd)
        self.c_proj = nn.Linear(4 * n_embd, n_embd)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate=self.gelu))


class Block(nn.Module):
    """the one pre-LayerNorm block of both the ViT and the GPT"""

    def __init__(self, n_embd, n_head, gelu="none", eps=1e-5):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd, eps)
        self.attn = Attention(n_embd, n_head)
        self.ln_2 = nn.LayerNorm(n_embd, eps)
        self.mlp = MLP(n_embd, gelu)
        self.recompute = False

    def forward(self, x, bias=None, cache=None):
        # recompute is activation checkpointing: keep only what passes between blocks, and compute what is
        # inside again on the way back. A third more work, a fraction of the memory, the same numbers.
        # preserve_rng_state: there is no dropout, so there is no random state to keep.
        if self.recompute and self.training:
            return checkpoint(self._forward, x, bias, use_reentrant=False, preserve_rng_state=False)
        return self._forward(x, bias, cache)

    def _forward(self, x, bias=None, cache=None):
        x = x + self.attn(self.ln_1(x), bias, cache)
        x = x + self.mlp(self.ln_2(x))
        return x


class KVCache:
    """keys and values of one layer, as far as the sequence has been read: (B, H, T, D), D a head's width"""
    k = v = None

    def append(self, k, v):
        if self.k is not None:
            k, v = torch.cat((self.k, k), dim=2), torch.cat((self.v, v), dim=2)
        self.k, self.v = k, v
        return k, v


class ViT(nn.Module):
    """picture -> patches -> blocks -> one vector a patch"""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.patch_size, width = config.patch_size, config.vit_embd
        n_patch = (config.image_size // config.patch_size) ** 2
        self.patch = nn.Linear(3 * config.patch_size ** 2, width)
        self.position = nn.Parameter(torch.randn(n_patch, width) * 0.02)
        self.cls = nn.Parameter(torch.randn(width) * 0.02) if config.vit_cls else None
        self.blocks = nn.ModuleList(Block(width, config.vit_head, eps=config.vit_eps)
                                    for _ in range(config.vit_layer))
        self.ln_f = nn.LayerNorm(width, config.vit_eps)

    def forward(self, images):
        """images (B, S, S, 3) uint8 -> (B, n_patch, vit_embd); a class token is not among them"""
        B, S, _, _ = images.shape
        P, G = self.patch_size, S // self.patch_size
        x = images.to(self.patch.weight.dtype) / 127.5 - 1                                  # -1 .. 1
        x = x.view(B, G, P, G, P, 3).permute(0, 1, 3, 2, 4, 5)  # (B, G, G, P, P, 3)
        x = self.patch(x.reshape(B, G * G, P * P * 3)) + self.position                      # (B, n_patch, C)
        if self.cls is not None:
            x = torch.cat((self.cls.expand(B, 1, -1), x), dim=1)  # (B, 1 + n_patch, C)
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x if self.cls is None else x[:, 1:])


class VLA(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.vit = ViT(config)
        self.projector = nn.Linear(4 * config.vit_embd, config.n_embd)
        self.wte = nn.Embedding(config.n_vocab, config.n_embd)          # tokens; also the output head
        self.wpe = nn.Embedding(config.n_image + config.max_text, config.n_embd)
        self.blocks = nn.ModuleList(Block(config.n_embd, config.n_head, config.gelu)
                                    for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.watch = None           # set it to a list: each new token appends (logits, masked logits, choice)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for name, p in self.named_parameters():  # keep the residual stream's size at any depth, as GPT-2 does
            if name.endswith("c_proj.weight"):
                depth = config.vit_layer if name.startswith("vit") else config.n_layer
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * depth))

    @torch.no_grad()
    def add_sinusoids(self, ids):
        """
        Add sinusoids to the embeddings of the number tokens ids (n,), which mean 0, 1, 2, ..., so that
        neighbouring numbers start out similar: what is learnt of " 20" is half known of " 21". A pretrained
        language model knows that. The wavelengths go from a few numbers to a few hundred.
        """
        C = self.wte.weight.size(1)
        frequency = math.pi * torch.logspace(-2.4, -0.3, (C + 1) // 2)
        angle = torch.arange(len(ids))[:, None] * frequency                                 # (n, C / 2)
        waves = torch.cat((angle.sin(), angle.cos()), 1)[:, :C]                             # (n, C)
        # 0.06: about twice as large as a new embedding, whose numbers have a standard deviation of 0.02
        self.wte.weight[torch.as_tensor(ids)] += 0.06 * waves.to(self.wte.weight.device)

    # -- pictures and words become one sequence ------------------------------------------------------------

    def encode_images(self, images):
        """
        images (B, S, S, 3) uint8, or (B, pictures, S, S, 3), the oldest first -> picture tokens
        (B, n_image, n_embd): ViT, 2x2 pooling, projector. Each picture is seen by itself; the position of its
        tokens tells the GPT which one it is.
        """
        S, n = self.config.image_size, self.config.pictures
        several = images[:, None] if n == 1 and images.ndim == 4 else images                # (B, n, S, S, 3)
        if several.shape[1:] != (n, S, S, 3) or images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8 of shape (B, {f'{n}, ' * (n > 1)}{S}, {S}, 3), got "
                             f"{images.dtype} {tuple(images.shape)}; resize them, or set image_size, frames "
                             "and camera")
        x = self.vit(several.flatten(0, 1))                                                 # (B*n, G*G, C)
        G, C = S // self.config.patch_size, x.size(2)                                       # G patches a side
        x = x.view(-1, G // 2, 2, G // 2, 2, C).permute(0, 1, 3, 2, 4, 5)       # (B*n, G/2, G/2, 2, 2, C)
        x = self.projector(x.reshape(len(images), self.config.n_image, 4 * C))          # (B, n_image, n_embd)
        return x + self.wpe.weight[:self.config.n_image]

    def embed(self, images, tokens, segment, answer):
        """picture and text as one sequence: x (B, n_image + T, C), and who sees whom in it"""
        (B, T), N = tokens.shape, self.config.n_image
        if T > self.config.max_text:
            raise ValueError(f"{T} tokens of text do not fit max_text = {self.config.max_text}")
        # every question counts its positions from its own first token, as if alone behind the picture:
        # how many tokens before this one are of the same question?
        same = segment[:, :, None] == segment[:, None, :]                                   # (B, T, T)
        position = same.tril(-1).sum(2)                                                     # (B, T)
        text = self.wte(tokens) + self.wpe(N + position)                                    # (B, T, C)
        x = torch.cat((self.encode_images(images).to(text.dtype), text), dim=1)             # (B, N + T, C)
        return x, self.attention_bias(segment, answer)

    def attention_bias(self, segment, answer):
        """who sees whom, as numbers to add before the softmax: 0 or -inf, (B, 1, n_image + T, n_image + T)"""
        N = self.config.n_image
        causal = (answer if self.config.attention == "prefix" else torch.ones_like(answer)).long()
        see = attention_mask(F.pad(segment, (N, 0)), F.pad(causal, (N, 0)))  # (B, N + T, N + T)
        return torch.zeros(see.shape, device=see.device).masked_fill(~see, -torch.inf)[:, None]

    def transform(self, x, bias, caches=None):
        """the GPT's blocks: (B, T, n_embd) -> (B, T, n_embd)"""
        for i, block in enumerate(self.blocks):
            x = block(x, bias, caches[i] if caches else None)
        return self.ln_f(x)

    def logits(self, x):
        """(..., n_embd) -> (..., n_vocab) float32"""
        return (x @ self.wte.weight.to(x.dtype).T).float()

    # -- training ------------------------------------------------------------------------------------------

    def forward(self, images, tokens, segment, answer):
        """
        images as in encode_images; tokens (B, T) int64; segment (B, T) int64 (1, 2, ... a question each; -1
        padding); answer (B, T) bool: the tokens of answers. Only they are predicted, and with the attention
        "prefix" only they are causal. Returns, for the M answer tokens in reading order, the logits
        (M, n_vocab) and the cross-entropies (M,). Only they meet the output head, which saves most of its
        cost.
        """
        x = self.transform(*self.embed(images, tokens, segment, answer))                    # (B, N + T, C)
        x = x[:, self.config.n_image - 1:-1][answer]    # the position before a token predicts it: (M, C)
        logits = self.logits(x)                                                             # (M, n_vocab)
        return logits, F.cross_entropy(logits, tokens[answer], reduction="none")

    # -- generation ----------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, images, prompts, n_new, allowed=None, eos=None, cache=True, temperature=0.0,
                 uniform=None):
        """
        images as in encode_images; prompts: B lists of token ids. allowed: a function that takes the new
        tokens so far (B, t) and returns which may come next, (B, n_vocab) bool; None = all. With
        temperature 0 the likeliest token is taken. Otherwise tokens are drawn: uniform (B, n_new), numbers
        from 0 to below 1, decides each, so that no row's draws depend on the rows beside it. It stops early
        when every row has said eos. Returns (B, n_new) int64, eos after the end. With cache=False every step
        reads the whole sequence again: slower, the same tokens.

        Prompts of different length are padded on the right, and nobody sees the padding:
            [ picture(s) ][ prompt ... (padding) ][ answer ... ]
        """
        device, config = images.device, self.config
        if not prompts or not all(prompts):
            raise ValueError("a prompt has no tokens; ask something")
        B, N, P = len(prompts), config.n_image, max(map(len, prompts))
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        if P + n_new > config.max_text:
            raise ValueError(f"a prompt of {P} tokens and {n_new} new ones do not fit max_text = "
                             f"{config.max_text} (text_len in a preset); use fewer words")
        tokens = torch.tensor([[*p] + [0] * (P - len(p) + n_new) for p in prompts], device=device)
        index = torch.arange(P + n_new, device=device).expand(B, -1)
        answer = index >= P
        segment = torch.where((index < lengths[:, None]) | answer, 1, -1)                   # (B, P + n_new)
        bias = self.attention_bias(segment, answer)
        # the positions of an answer follow its own prompt, not the padding behind it
        place = self.wpe(N + torch.where(answer, lengths[:, None] + index - P, index))  # (B, P + n_new, C)
        picture = self.encode_images(images)
        caches = [KVCache() for _ in self.blocks] if cache else None

        done = torch.zeros(B, dtype=torch.bool, device=device)
        for t in range(n_new):
            begin = 0 if t == 0 or not cache else P + t - 1                 # text in [begin, end) is read now
            end = P + t
            x = self.wte(tokens[:, begin:end]) + place[:, begin:end]
            if begin == 0:
                x = torch.cat((picture, x), dim=1)
            # rows of the mask: the tokens read now; columns: all so far. The KV cache grows in here
            x = self.transform(x, bias[:, :, N + end - x.size(1):N + end, :N + end], caches)
            # the first answer token follows each prompt's own end, the others the token before
            last = x[torch.arange(B, device=device), N + lengths - 1] if t == 0 else x[:, -1]       # (B, C)
            logits = raw = self.logits(last)
            if allowed is not None:
                logits = logits.masked_fill(~allowed(tokens[:, P:P + t]), -torch.inf)
            if temperature:
                # chances laid end to end from 0 to 1: in which does this row's random number fall?
                ends = F.softmax(logits / temperature, dim=-1).cpu().double().cumsum(-1)        # (B, n_vocab)
                drawn = uniform[:, t, None] * ends[:, -1:]
                choice = torch.searchsorted(ends, drawn, right=True)[:, 0].to(device)
            else:
                choice = logits.argmax(-1)
            if eos is not None:
                choice = torch.where(done, eos, choice)
                done |= choice == eos
            if self.watch is not None:
                self.watch.append((raw, logits, choice))
            tokens[:, P + t] = choice
            if eos is not None and done.all():
                tokens[:, P + t:] = eos
                break
        return tokens[:, P:]

    # -- book-keeping --------------------------------------------------------------------------------------

    def n_weights(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def flops(self, n_text: int, n_target: int) -> int:
        """floating-point operations of a sample, forward and backward: 6 a weight and token, and attention"""
        c, N = self.config, self.config.n_image
        patches = (c.image_size // c.patch_size) ** 2
        T = patches + c.vit_cls
        vit = (patches * 3 * c.patch_size ** 2 * c.vit_embd
               + T * c.vit_layer * (12 * c.vit_embd ** 2 + 2 * T * c.vit_embd))
        gpt = (N + n_text) * c.n_layer * (12 * c.n_embd ** 2 + 2 * (N + n_text) * c.n_embd)
        return 6 * (c.pictures * vit + N * 4 * c.vit_embd * c.n_embd + gpt + n_target * c.n_embd * c.n_vocab)
