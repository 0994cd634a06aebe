"""Assignment 2: who sees whom (model.py: attention_mask, VLA.embed, VLA.attention_bias)"""
import torch

from course.grading import expect, fails, points
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
    expect("row i, column j = i sees j", mask([0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]),
           [[1, 1, 0, 0, 0, 0]] * 2 + [[1, 1, 1, 1, 0, 0]] * 2 + [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])


@points(2, read="the handout, by hand: two questions behind one picture")
def two_questions_do_not_see_each_other():
    found = mask([0, 1, 1, 2, 2, -1], [0, 0, 1, 0, 1, 0])
    expect("what picture and question 1 (rows) see of question 2 and the padding",
           [row[3:] for row in found[:3]],
           [[0, 0, 0]] * 3)
    expect("what question 2 sees: first its prompt, then its answer", found[3:5],
           [[1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 1, 0]])
    expect("who of the others sees the padding", [row[5] for row in found[:5]], [0] * 5)
    expect("what the padding sees of the picture (a row that sees nothing is NaN after the softmax)",
           found[5][0], 1)


@points(2, read="the last line of the docstring of attention_mask")
def with_causal_prompts_it_is_plain_gpt_attention():
    expect("row i, column j = i sees j", mask([0, 1, 1, 1], [0, 1, 1, 1]),
           [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])


@points(2, read="the docstring of attention_bias; F.pad puts the picture in front")
def the_bias_is_zero_or_minus_infinity_with_the_picture_in_front():
    segment, answer = torch.tensor([[1, 1, 1, -1]]), torch.tensor([[False, False, True, False]])
    bias = model().attention_bias(segment, answer)
    expect("shape, with four picture tokens and four of text", tuple(bias.shape), (1, 1, 8, 8))
    expect("numbers in it", sorted(set(bias.unique().tolist())), [-torch.inf, 0.])
    see = (bias[0, 0] == 0).int().tolist()
    for row, who, wanted in ((0, "a picture token", [1] * 4 + [0] * 4),
                             (4, "the first word", [1] * 6 + [0] * 2),
                             (6, "the answer", [1] * 7 + [0])):
        expect(f"row {row}, what {who} sees (1 where the bias is 0)", see[row], wanted)
    causal = model(attention="causal").attention_bias(segment, answer)
    expect("attention = causal, row 4: what the first word sees", (causal[0, 0, 4] == 0).int(),
           [1] * 5 + [0] * 3)


@points(2, read="the handout: every question counts from its own first token")
def a_packed_question_is_embedded_as_if_alone():
    a, b, m = ([3, 4], [5]), ([6, 7, 8], [9, 10]), model()
    alone, _ = m.embed(*inputs(b))
    for at, word, position in ((4, 6, 0), (5, 7, 1), (8, 10, 4)):
        expect(f"word {at - 4} of a question is wte[{word}] + wpe[n_image + {position}]", alone[0, at],
               m.wte.weight[word] + m.wpe.weight[4 + position], off=1e-6)
    both, _ = m.embed(*inputs(a, b))
    expect("shape: picture tokens, then text", tuple(both.shape), (1, 16, 16))
    expect("the picture stands in front", both[0, :4], m.encode_images(inputs(a)[0])[0], off=1e-6)
    expect("the second of two questions, embedded as if alone", both[0, 7:12], alone[0, 4:9], off=1e-6)
    mine = m.attention_bias(*inputs(a, b)[2:])
    expect("what embed returns besides: attention_bias of these questions",
           (m.embed(*inputs(a, b))[1] == 0).int(), (mine == 0).int())


@points(1, read="the docstring of embed, and max_text")
def too_much_text_is_an_error():
    fails("8 tokens where max_text = 6", model(max_text=6).embed, *inputs(([1] * 4, [2] * 4), fill=8))
