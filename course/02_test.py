"""Assignment 2: who sees whom (model.py: attention_mask, VLA.embed, VLA.attention_bias)"""
import torch

from course.grading import points
from model import VLA, ModelConfig, attention_mask

SMALL = dict(n_vocab=64, image_size=8, patch_size=2, vit_layer=1, vit_head=1, vit_embd=8, n_layer=1,
             n_head=1, n_embd=16, max_text=12)                                       # four picture tokens


def mask(segment, causal):
    return attention_mask(torch.tensor([segment]), torch.tensor([causal]))[0].int().tolist()


def model(**options):
    torch.manual_seed(0)
    m = VLA(ModelConfig(**{**SMALL, **options})).eval()
    m.vit.blocks = torch.nn.ModuleList()                        # blocks are assignment 3
    return m


def inputs(*questions, fill=12):
    """questions: (prompt ids, answer ids) -> images, tokens, segment, answer"""
    tokens, segment, answer = [], [], []
    for n, (asked, said) in enumerate(questions, 1):
        tokens += asked + said
        segment += [n] * len(asked + said)
        answer += [False] * len(asked) + [True] * len(said)
    empty = fill - len(tokens)
    images = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(1))
    return (images, torch.tensor([tokens + [0] * empty]), torch.tensor([segment + [-1] * empty]),
            torch.tensor([answer + [False] * empty]))


@points(3, read="model.py: the example in the docstring of attention_mask")
def the_example_of_the_docstring():
    found = mask([0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1])
    wanted = [[1, 1, 0, 0, 0, 0]] * 2 + [[1, 1, 1, 1, 0, 0]] * 2 + [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    assert found == wanted, f"row i, column j = i sees j:\n{found}"


@points(2, read="the handout, by hand: two questions behind one picture")
def two_questions_do_not_see_each_other():
    found = mask([0, 1, 1, 2, 2, -1], [0, 0, 1, 0, 1, 0])
    assert [row[3:] for row in found[:3]] == [[0, 0, 0]] * 3, "question 1 or the picture sees question 2"
    assert found[3] == [1, 0, 0, 1, 0, 0], "the prompt of question 2 sees the picture and itself"
    assert found[4] == [1, 0, 0, 1, 1, 0]
    assert all(row[5] == 0 for row in found[:5]), "nobody sees the padding"


@points(2, read="the last line of the docstring of attention_mask")
def with_causal_prompts_it_is_plain_gpt_attention():
    assert mask([0, 1, 1, 1], [0, 1, 1, 1]) == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


@points(2, read="the docstring of attention_bias; F.pad puts the picture in front")
def the_bias_is_zero_or_minus_infinity_with_the_picture_in_front():
    segment, answer = torch.tensor([[1, 1, 1, -1]]), torch.tensor([[False, False, True, False]])
    bias = model().attention_bias(segment, answer)
    assert bias.shape == (1, 1, 8, 8), f"shape is {tuple(bias.shape)}"
    see = (bias[0, 0] == 0).int().tolist()
    assert set(bias.unique().tolist()) == {0., -torch.inf}
    assert see[0] == [1] * 4 + [0] * 4 and see[4] == [1] * 6 + [0] * 2 and see[6] == [1] * 7 + [0], see
    causal = model(attention="causal").attention_bias(segment, answer)
    assert (causal[0, 0, 4] == 0).int().tolist() == [1] * 5 + [0] * 3, \
        "attention = causal: prompts are causal, too"


@points(2, read="the handout: every question counts from its own first token")
def a_packed_question_is_embedded_as_if_alone():
    a, b, m = ([3, 4], [5]), ([6, 7, 8], [9, 10]), model()
    both, _ = m.embed(*inputs(a, b))
    alone, _ = m.embed(*inputs(b))
    assert both.shape == (1, 16, 16), "picture tokens, then text"
    assert torch.allclose(both[:, :4], alone[:, :4]), "the picture stands in front, and is the same"
    assert torch.allclose(both[:, 7:12], alone[:, 4:9], atol=1e-6), \
        "the second question stands at other positions than alone"
    moved, _ = m.embed(*inputs(b), shift=torch.tensor([2]))
    assert torch.allclose(moved[0, 4], alone[0, 4] + m.wpe.weight[6] - m.wpe.weight[4], atol=1e-6), \
        "shift = 2: the first word stands two positions farther on"


@points(1, read="the docstring of embed, and max_text")
def too_much_text_is_an_error():
    m = model(max_text=6)
    try:
        m.embed(*inputs(([1] * 4, [2] * 4), fill=8))
    except ValueError:
        return
    raise AssertionError("8 tokens do not fit max_text = 6: a ValueError that says so")
