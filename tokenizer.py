"""
Words and robot actions in one vocabulary (RT-2, section 3.2).

RT-2 has no action head. A language model already has thousands of tokens that it can write; some of them
get a second meaning: a bin of a robot action. Then "which word comes next" and "how far should the hand
move" are the same question, with the same softmax and the same loss. This file has three parts:

    Tokenizer           byte-level BPE, run by tiktoken:        text <-> token ids
    ActionTokenizer     an action of D numbers <-> D token ids of that same vocabulary
    prompt, wish, plan  the sentences of the paper around them

An action has eight numbers. Each is cut into 256 uniform bins between its bounds, and the number of the bin
is written as a token. Going back, a bin means its centre. terminate chooses between 0 and 1, and its
two bins mean exactly these values:

    number       low     high    value   bin   token            means again
    terminate    0       1       0       0     256  = " 0"       0
    dx          -0.08    0.08    0.04    192   448  = " 192"     0.04031
    dy          -0.08    0.08    0.033   180   436  = " 180"     0.03281
    dz          -0.08    0.08   -0.08    0     256  = " 0"      -0.07969
    droll       -0.8     0.8     0       128   384  = " 128"     0.00313
    dpitch      -0.8     0.8     0.8     255   511  = " 255"     0.79688
    dyaw        -0.8     0.8    -0.4     64    320  = " 64"     -0.39688
    gripper      0       1       1       255   511  = " 255"     0.99805

    dy in full: floor((0.033 - -0.08) / 0.16 * 256) = floor(180.8) = 180, whose centre is
    -0.08 + (180 + 0.5) * 0.16 / 256 = 0.03281. It is at most half a bin off: 0.00031.

So the model reads "Q: what action should the robot take to pick up the red block? A:" and writes eight
tokens, " 0 192 180 0 128 255 64 255". Which tokens stand for the bins is the scheme:

    "integer"     Bin i is the token of the integer i. RT-2-PaLI-X: its integers up to 1000 have one token
                  each.
    "overwrite"   The 256 least used tokens of the vocabulary become the bins. RT-2-PaLM-E: it has no such
                  integers. What these tokens meant as text is lost, so text has to do without them.

Here terminate = 1 means stop. The paper does not say. The mid-task actions that it prints begin with 1, so
there a 1 probably means "go on".
"""
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import takewhile

import numpy as np
import tiktoken

NAMES = ("terminate", "dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
BEGIN_ACTION = " Action:"  # ends a thought: after it come the bins of an action, nothing else

# How text is split into pieces before BPE. Every character is a digit, a letter (all of non-ascii counts),
# white space or other, so nothing is left out. \d, \w and \s are avoided: python's re and tiktoken's regex
# disagree on them.
PATTERN = (r" ?[QA]:| Action:"                                # the frame of a prompt, and of a thought
           r"| ?[0-9]{1,3}"                                   # 0 .. 999 whole
           r"| ?[A-Za-z\x80-\U0010FFFF]+"                     # a word with the space before it
           r"| ?[^A-Za-z0-9 \t\r\n\x80-\U0010FFFF]+"          # punctuation
           r"|[ \t\r\n]+")
GPT2_PATTERN = r" Action:|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
KINDS = {"own": (PATTERN, "<eos>"), "gpt2": (GPT2_PATTERN, "<|endoftext|>")}      # pattern, how eos is shown

# A vocabulary that is trained here begins with these, so that the token of " 41" is 256 + 41. After them
# come the words that BPE merges from the corpus, the most frequent first. The last id is <eos>, which no text
# encodes to.
BYTES = [bytes([i]) for i in range(256)]                      # no text is ever unknown
INTEGERS = [b" %d" % i for i in range(1000)]
FRAME = [b"Q:", b" A:", BEGIN_ACTION.encode()]
FIXED = BYTES + INTEGERS + FRAME


# --------------------------------------------------------------------------------------------------------
# text <-> tokens

def train_bpe(counts: dict[bytes, int], n_merges: int, tokens: list[bytes] = BYTES) -> list[bytes]:
    """
    Byte-level BPE: merge the most frequent pair of neighbours, n_merges times or until nothing is left to
    merge. counts: how often each piece (a word with its space, say) occurs. tokens: those that exist already.
    Returns these and the new ones, in order. A tie goes to the smaller bytes.

    Example: train_bpe({b"aab": 2, b"ab": 1}, 2)[256:] -> [b"ab", b"aab"]
        at first "aa" occurs twice and "ab" three times, so "ab" is merged; then the pieces are a|ab and ab
    """
    known = dict.fromkeys(tokens)                             # in order, each once
    goal = len(known) + n_merges
    words = [([piece[i:i + 1] for i in range(len(piece))], n) for piece, n in counts.items()]
    pairs, where = Counter(), defaultdict(set)                # merged bytes -> how often; in which words

    def count(w, sign):
        parts, n = words[w]
        for a, b in zip(parts, parts[1:]):
            pairs[a + b] += sign * n
            where[a + b].add(w)
            if not pairs[a + b]:                              # no longer there
                del pairs[a + b]
    for w in range(len(words)):
        count(w, 1)
    while len(known) < goal and pairs:
        best = min(pairs, key=lambda p: (-pairs[p], p))
        known.setdefault(best)                                # "aaaaa" may be there, made of other halves
        for w in where.pop(best):                             # only words that have the pair change
            count(w, -1)
            parts, i = words[w][0], 0
            while i < len(parts) - 1:
                if parts[i] + parts[i + 1] == best:
                    parts[i:i + 2] = [best]
                i += 1
            count(w, 1)
    return list(known)


class Tokenizer:
    """
    Text <-> token ids. It is made by Tokenizer.train, Tokenizer.from_state or formats.weights.gpt2_tokenizer.
    tiktoken takes a piece that is a token whole, so " 41" is one token and never " 4" + "1".

    n_vocab: number of ids. tokens: the bytes of each id but eos, in order. eos, begin_action: the ids of
    <eos> and " Action:". integers: the ids of " 0", " 1", ... as far as each is a token. least_used: ids from
    the least used in the training corpus up, the higher id first in a tie; bytes, " 0" .. " 255", the frame
    and eos are not among them.
    """

    def __init__(self, tokens: list[bytes], least_used: list[int], kind: str = "own", eos: int | None = None):
        self.tokens, self.least_used, self.kind = tokens, least_used, kind
        self.eos = len(tokens) if eos is None else eos        # GPT-2's is 50256, and " Action:" follows it
        self.n_vocab = len(tokens) + 1
        ranks = {t: i if i < self.eos else i + 1 for i, t in enumerate(tokens)}
        self.integers = [ranks[t] for t in takewhile(ranks.__contains__, INTEGERS)]
        self.begin_action = ranks[BEGIN_ACTION.encode()]
        pattern, shown = KINDS[kind]
        self.enc = tiktoken.Encoding("rt2", pat_str=pattern, mergeable_ranks=ranks,
                                     special_tokens={shown: self.eos})

    @classmethod
    def train(cls, corpus: Iterable[str], n_vocab: int = 4096) -> "Tokenizer":
        """
        Learn the words of corpus, an iterable of strings (whole prompts, so that their words get tokens
        too). n_vocab is an upper bound: when each word of the corpus is one token, there is nothing more to
        merge, and .n_vocab is smaller. ValueError if n_vocab is too small or the corpus is empty or one
        string.

        Example: Tokenizer.train([prompt("pick up the red block"), prompt("open the drawer")])
        """
        least = len(FIXED) + 1
        if n_vocab < least:
            raise ValueError(f"n_vocab is {n_vocab}, but bytes, integers, 'Q:', ' A:', ' Action:' and <eos> "
                             f"need {least}; raise it")
        if isinstance(corpus, str):
            raise ValueError(f"corpus is one string ({corpus[:20]!r}...); pass a list of strings")
        counts = Counter(piece for text in corpus for piece in re.findall(PATTERN, text))
        if not counts:
            raise ValueError("corpus has no text; pass the strings that the model will read and write")
        # Numbers and the frame are whole already: a merge of digits would only invent " 00" and the like.
        words = {p.encode(): n for p, n in counts.items() if not re.fullmatch(r" ?([0-9]+|[QA]:|Action:)", p)}
        tokens = train_bpe(words, n_vocab - least, FIXED)
        tok, used = cls(tokens, []), Counter()
        for piece, n in counts.items():
            for i in tok.encode(piece):
                used[i] += n
        # bytes, " 0" .. " 255", frame
        kept = {i for i, t in enumerate(tokens) if i < 256 + 256 or t in FRAME}
        tok.least_used = sorted(set(range(len(tokens))) - kept, key=lambda i: (used[i], -i))
        return tok

    def encode(self, text: str) -> list[int]:
        """The ids of any text. The letters "<eos>" in it are text: no text encodes to that token."""
        return self.enc.encode_ordinary(text)

    def decode(self, ids: Iterable[int]) -> str:
        """
        The text that ids stand for. Bytes that are not utf-8 (a letter cut in two) show as U+FFFD.
        ValueError if an id is outside the vocabulary.
        """
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < self.n_vocab:
                raise ValueError(f"token {i} is outside the vocabulary of {self.n_vocab}; "
                                 "use its own tokenizer")
        return self.enc.decode(ids, errors="replace")

    def state(self) -> dict:
        """Plain lists, strings and numbers, for torch.save and torch.load(weights_only=True)."""
        return {"tokens": [t.decode("latin-1") for t in self.tokens], "least_used": list(self.least_used),
                "kind": self.kind, "eos": self.eos}

    @classmethod
    def from_state(cls, state: dict) -> "Tokenizer":
        """The tokenizer that .state() was taken from. ValueError if its ids are laid out differently."""
        tokens, kind = [t.encode("latin-1") for t in state["tokens"]], state["kind"]
        if kind not in KINDS or kind == "own" and tokens[:len(FIXED)] != FIXED \
                or not {*BYTES, *INTEGERS[:256], BEGIN_ACTION.encode()} <= set(tokens):
            raise ValueError("this tokenizer state has another layout of bytes and integers; "
                             "train a new tokenizer")
        return cls(tokens, list(state["least_used"]), kind, state["eos"])


# --------------------------------------------------------------------------------------------------------
# actions <-> tokens

class ActionTokenizer:
    """
    Actions <-> token ids, section 3.2. low and high are the bounds of each number, in the units of the
    action (here metres, radians, 0 .. 1). names says what the numbers are, in order.

    A number that chooses (0 = left, 1 = right, 2 = forward) means nothing between its values. categories maps
    its name to these values, in rising order; each gets a bin, and comes back exactly. A number named
    "terminate" always has the values 0 (go on) and 1 (stop).

    D = len(names), and any D works. ids (n_bins,): the token of each bin. bins_of (D,): how many bins each
    number has. allowed (D, n_vocab) bool: what may be sampled in each slot. ValueError if the bounds, the
    scheme, the categories or n_bins make no sense.

    Example: ActionTokenizer(tok, low=[-1, -1], high=[1, 1], names=("x", "y")).encode([0, 1]) -> [384, 511]
    """

    def __init__(self, tokenizer: Tokenizer, low, high, scheme: str = "integer", names=NAMES,
                 n_bins: int = 256, categories: dict = {}):
        self.tokenizer, self.scheme, self.names, self.n_bins = tokenizer, scheme, tuple(names), n_bins
        self.low, self.high = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
        self.categories = {name: [float(x) for x in values] for name, values in categories.items()}
        if "terminate" in self.names:
            self.categories["terminate"] = [0., 1.]
        D = len(self.names)
        if D == 0 or len(set(self.names)) < D:
            raise ValueError(f"names are {self.names}; give each number of the action a name of its own")
        if self.low.shape != (D,) or self.high.shape != (D,):
            raise ValueError(f"low has shape {self.low.shape} and high {self.high.shape}, "
                             f"but there are {D} names; give one bound per name")
        for name, lo, hi in zip(self.names, self.low, self.high):
            if not (-3e38 < lo < hi < 3e38):                # an action is float32
                raise ValueError(f"bounds of {name} are {lo:g} and {hi:g}; they must be finite, low < high")
        if scheme not in ("integer", "overwrite"):
            raise ValueError(f"scheme is {scheme!r}; use 'integer' (PaLI-X) or 'overwrite' (PaLM-E)")
        tokens = tokenizer.integers if scheme == "integer" else tokenizer.least_used
        if not 2 <= n_bins <= len(tokens):
            raise ValueError(f"n_bins is {n_bins}; scheme {scheme!r} has tokens for 2 to {len(tokens)}")
        for name, values in self.categories.items():
            if name not in self.names:
                raise ValueError(f"categories has {name!r}; the numbers are {', '.join(self.names)}")
            d = self.names.index(name)
            if not 2 <= len(values) <= n_bins or values != sorted(set(values)) \
                    or (values[0], values[-1]) != (self.low[d], self.high[d]):
                shown = ", ".join(f"{value:g}" for value in values[:5]) + ", ..." * (len(values) > 5)
                raise ValueError(f"{name} has {len(values)} categories ({shown}); they must be 2 to n_bins = "
                                 f"{n_bins} values, rising, from its low bound to its high one")
        self.ids = np.array(tokens[:n_bins], dtype=np.int64)
        self.bins_of = np.array([len(self.categories.get(name, range(n_bins))) for name in self.names])
        self.bin_of = np.full(tokenizer.n_vocab, -1, dtype=np.int64)       # token -> bin, -1 if it is none
        self.bin_of[self.ids] = np.arange(n_bins)
        self.allowed = (self.bin_of >= 0) & (self.bin_of < self.bins_of[:, None])

    def bins(self, actions, quiet: bool = False) -> np.ndarray:
        """
        actions (..., D) -> bin numbers (..., D) int64. A number outside its bounds is clipped to them, and
        a value that is none of its categories becomes the nearest, both with a warning that names it. quiet
        clips without a warning, for bounds that are meant to cut off the ends. ValueError if the last axis
        is not D long or a number is NaN or infinite.
        """
        a = np.asarray(actions, dtype=np.float64)
        if a.ndim == 0 or a.shape[-1] != len(self.names):
            raise ValueError(f"action has shape {a.shape}; its last axis must be the "
                             f"{len(self.names)} numbers " + ", ".join(self.names))
        b = np.floor((a - self.low) / (self.high - self.low) * self.bins_of).clip(0, self.bins_of - 1)
        # bounds that went through float32 are fine
        tiny = 1e-6 * np.maximum(np.abs(self.low), np.abs(self.high))
        for d, (name, lo, hi) in enumerate(zip(self.names, self.low, self.high)):
            x = a[..., d]
            if not np.isfinite(x).all():
                raise ValueError(f"{name} is {x[~np.isfinite(x)][0]}; "
                                 "every number of an action must be finite")
            off, what = np.maximum(lo - x, x - hi), f"outside its bounds {lo:g} to {hi:g}: clipped"
            if name in self.categories:
                values = np.array(self.categories[name])
                distance = np.abs(x[..., None] - values)                                    # (..., values)
                b[..., d], off = distance.argmin(-1), distance.min(-1)
                what = f"none of its categories {', '.join(f'{v:g}' for v in values)}: the nearest is taken"
            wrong = off > tiny[d]
            if wrong.any() and not (quiet and name not in self.categories):
                warnings.warn(f"{name} is {x[off == off.max()][0]:g}, {what} "
                              f"({wrong.sum()} of {x.size} values)", stacklevel=2)
        return b.astype(np.int64)

    def encode(self, actions, quiet: bool = False) -> np.ndarray:
        """actions (..., D) -> token ids (..., D) int64. It warns and raises as .bins does."""
        return self.ids[self.bins(actions, quiet)]

    def decode(self, ids) -> np.ndarray:
        """Token ids (..., D) -> actions (..., D) float32, the centres. ValueError if one is not a bin."""
        ids = np.asarray(ids)
        if ids.ndim == 0 or ids.shape[-1] != len(self.names) or ids.dtype.kind not in "iu":
            raise ValueError(f"ids have shape {ids.shape} and type {ids.dtype}; need integers, "
                             f"{len(self.names)} in the last axis")
        inside = (ids >= 0) & (ids < len(self.bin_of))
        bins = np.where(inside, self.bin_of[np.where(inside, ids, 0)], -1)
        bad = np.argwhere((bins < 0) | (bins >= self.bins_of))
        if len(bad):
            d, i = bad[0][-1], ids[tuple(bad[0])]
            shown = repr(self.tokenizer.decode([i])) if inside[tuple(bad[0])] else "not in the vocabulary"
            raise ValueError(f"slot {d} ({self.names[d]}): token {i} ({shown}) is none of its "
                             f"{self.bins_of[d]} bins; sample with .allowed as the mask")
        return self.centres(bins)

    def centres(self, bins: np.ndarray) -> np.ndarray:
        """Bin numbers (..., D) -> actions (..., D) float32. Example: 2 bins over -1 .. 1 mean -0.5 and 0.5"""
        centres = self.low + (bins + 0.5) * (self.high - self.low) / self.bins_of
        for name, values in self.categories.items():                # a category means its value
            d = self.names.index(name)
            centres[..., d] = np.array(values)[bins[..., d]]
        return centres.astype(np.float32)

    def state(self) -> dict:
        """its arguments as plain types, but for the tokenizer, which has a .state of its own"""
        return {"low": self.low.tolist(), "high": self.high.tolist(), "scheme": self.scheme,
                "names": list(self.names), "n_bins": int(self.n_bins), "categories": self.categories}


# --------------------------------------------------------------------------------------------------------
# the paper's sentences

def tidy(instruction: str) -> str:
    """
    One spelling of an instruction, the same in logs and from a user: single spaces, no punctuation at the
    end, lower case. A word of one letter keeps its case: "the X" is not "the x". ValueError if there is no
    instruction.

    Example: tidy(" Open  the top Drawer. ") -> "open the top drawer"
    """
    words = " ".join(instruction.split()).rstrip(" .!?,;")
    words = re.sub(r"\w\w+", lambda word: word[0].lower(), words)
    if not words:
        raise ValueError(f"instruction is {instruction!r}; say what the robot should do, "
                         "as in 'open the drawer'")
    return words


def prompt(instruction: str | None) -> str:
    """
    The question of section 3.2. None asks for an action without an instruction, which is a control: a policy
    that listens cannot do well on it.

    Example: prompt("Open the drawer.") -> "Q: what action should the robot take to open the drawer? A:"
             prompt(None) -> "Q: what action should the robot take? A:"
    """
    task = "" if instruction is None else f" to {tidy(instruction)}"
    return f"Q: what action should the robot take{task}? A:"


def wish(instruction: str) -> str:
    """
    The prompt of section 4.4, for an instruction that takes a thought. The answer begins with a plan in
    words.

    Example: wish("I am thirsty") -> "Instruction: I am thirsty."
        answered " Plan: pick red can. Action: 0 128 ..."
    """
    return f"Instruction: {tidy(instruction)}."


def plan(text: str) -> str:
    """A thought in words. Example: plan("pick red can") -> " Plan: pick red can." """
    return f" Plan: {text}."
