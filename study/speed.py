"""
A training step of this project against one of the same model made of two libraries, in one run: forward,
backward and optimizer, at the sizes of configs/small.toml.

    pip install vit-pytorch x-transformers
    OMP_NUM_THREADS=1 python -m study.speed             # also: --repeats 20 --batch_size 64

The libraries' model has their ViT and their transformer in place of our blocks. Embeddings, mask, pooling and
loss are ours in both, and so is the head on answer tokens alone: that row compares blocks only. "every
position" is their model with logits at every token of text, as their own wrappers compute them. The models
take turns, a step each. Times are of the CPU, all threads together, so other programs disturb them little.
"""
import argparse
import importlib.util
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import train
from data import ACTION, ASKED
from model import VLA, ModelConfig


class Libraries(VLA):
    """VLA with vit-pytorch's ViT and x-transformers' layers; everywhere: logits at all T tokens of text"""

    def __init__(self, config: ModelConfig, everywhere=False):
        super().__init__(config)
        from x_transformers import Encoder
        # the file alone: the package would import torchvision
        folder = importlib.util.find_spec("vit_pytorch").submodule_search_locations[0]
        spec = importlib.util.spec_from_file_location("vit", folder + "/vit.py")
        spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
        c, self.everywhere = config, everywhere
        self.vit = module.ViT(image_size=c.image_size, patch_size=c.patch_size, num_classes=1, dim=c.vit_embd,
                              depth=c.vit_layer, heads=c.vit_head, dim_head=c.vit_embd // c.vit_head,
                              mlp_dim=4 * c.vit_embd)
        self.vit.mlp_head = self.vit.to_latent = nn.Identity()          # every patch goes on, not one answer
        self.vit.forward = self.patches
        self.blocks, self.ln_f = nn.ModuleList(), nn.Identity()
        self.layers = Encoder(dim=c.n_embd, depth=c.n_layer, heads=c.n_head,
                              attn_dim_head=c.n_embd // c.n_head, attn_flash=False)

    def patches(self, images):
        """images (B, S, S, 3) uint8 -> (B, n_patch, vit_embd)"""
        x = self.vit.to_patch_embedding(images.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return self.vit.transformer(x + self.vit.pos_embedding[-x.size(1):])

    def transform(self, x, bias, caches=None):
        return self.layers(x, attn_mask=bias == 0)                                          # (B, N + T, C)

    def forward(self, images, tokens, segment, answer):
        if not self.everywhere:
            return super().forward(images, tokens, segment, answer)
        x = self.transform(*self.embed(images, tokens, segment, answer))
        logits = self.logits(x[:, self.config.n_image - 1:-1])                              # (B, T, n_vocab)
        return logits[answer], F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")[answer]


def batch_of(B, config: ModelConfig):
    """random pictures and words: two questions of half a row each, the last quarter of each is answered"""
    T = config.max_text
    segment = 1 + (torch.arange(T) >= T // 2).long().expand(B, T)
    answered = (torch.arange(T) % (T // 2) >= T // 2 * 3 // 4).expand(B, T)
    return {"images": torch.randint(256, (B, config.image_size, config.image_size, 3), dtype=torch.uint8),
            "tokens": torch.randint(config.n_vocab, (B, T)), "segment": segment,
            "label": torch.where(answered, ACTION, ASKED)}


def adamw(model, config):
    """AdamW for all, under the two names that train_step() looks for"""
    parts = [[p for p in model.parameters() if (p.ndim == 2) == matrix] for matrix in (True, False)]
    return {name: torch.optim.AdamW(part, lr=config.lr_adam) for name, part in zip(("muon", "adam"), parts)}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=64)
    args = parser.parse_args()
    if not all(map(importlib.util.find_spec, ("vit_pytorch", "x_transformers"))):
        sys.exit("error: two libraries are missing; pip install vit-pytorch x-transformers")
    torch.manual_seed(0)
    train.quicken_cpu()
    config = train.Config(device="cpu", batch_size=args.batch_size)
    shape = ModelConfig(n_vocab=1669, n_layer=config.n_layer)
    ranks, batch = train.Ranks(config), batch_of(args.batch_size, shape)
    runs = {"this project, Muon and AdamW": (VLA(shape), train.make_optimizers),
            "this project, AdamW": (VLA(shape), adamw),
            "libraries, AdamW": (Libraries(shape), adamw),
            "libraries, AdamW, every position": (Libraries(shape, True), adamw)}
    runs = {name: (model, make(model, config), []) for name, (model, make) in runs.items()}
    for _ in range(args.repeats + 2):
        for model, optimizers, times in runs.values():
            began = time.process_time()
            train.train_step(model, [batch], optimizers, .1, config, ranks)
            times.append(1000 * (time.process_time() - began))
    print(f"batch {args.batch_size}, {torch.get_num_threads()} threads, {args.repeats} steps, CPU time in ms")
    median = {name: sorted(times[2:])[args.repeats // 2] for name, (_, _, times) in runs.items()}
    for name, (model, _, times) in runs.items():
        ratios = ", ".join(f"{median[other] / median[name]:.2f}" for other in runs if "libraries" in other)
        print(f"{name:34}{model.n_weights():>9,} weights  median {median[name]:6.1f}  least {min(times):6.1f}"
              f"  the libraries' over this: {ratios}")


if __name__ == "__main__":
    main()
