"""
Assignment 9: weights of 8 bits. A weight takes 4 bytes; here it takes one, and each output channel (a row of
the matrix) has one number more, its scale:

    weight (out, in)  is about  q (out, in) int8  times  scale (out, 1)

    row               scale            q                 means again
    -1.0  0.4  0.2    1 / 127          -127  51  25      -1.0   0.4016  0.1969
    0.02  0.0 -0.012  0.02 / 127        127   0 -76      0.02   0.0    -0.0120

With one scale for the whole matrix the second row would be 3, 0, -2: that is why each row has its own.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F


def quantize(weight, bits=8):
    """
    weight (out, in) float -> q (out, in) int8 and scale (out, 1) float. In each row the weight that is
    farthest from zero becomes plus or minus 2 ** (bits - 1) - 1 (127 for 8 bits), and all others are rounded
    to whole numbers. A row of zeros has scale 1.

    Example: quantize(torch.tensor([[-1.0, 0.4, 0.2]])) -> [[-127, 51, 25]], [[0.00787]]
    """
    most = 2 ** (bits - 1) - 1
    largest = weight.abs().amax(dim=1, keepdim=True)
    scale = torch.where(largest > 0, largest / most, torch.ones_like(largest))
    return torch.round(weight / scale).to(torch.int8), scale


def dequantize(q, scale):
    """q (out, in) int8, scale (out, 1) -> the weights that they mean, (out, in) float"""
    return q.to(scale.dtype) * scale


class Int8Linear(nn.Module):
    """
    A torch.nn.Linear whose weight is kept as int8. q, scale and bias are buffers, so that they move with the
    model and stand in its state_dict; nothing in it is trained.
    """

    def __init__(self, linear, bits=8):
        """linear: the torch.nn.Linear whose place it takes"""
        super().__init__()
        q, scale = quantize(linear.weight.detach(), bits)
        self.register_buffer("q", q)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x):
        """x (..., in) -> (..., out)"""
        return F.linear(x, dequantize(self.q, self.scale).to(x.dtype), self.bias)


def quantize_model(model, bits=8):
    """
    Puts an Int8Linear in the place of every Linear inside the blocks of a model.VLA (the ViT's and the
    GPT's). Patches, projector, embeddings and norms stay as they are. Returns the model.
    """
    for block in (*model.vit.blocks, *model.blocks):
        for module in list(block.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, Int8Linear(child, bits))
    return model


def n_bytes(model):
    """what the weights of a model take in memory (given)"""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
