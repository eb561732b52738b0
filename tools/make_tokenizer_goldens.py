#!/usr/bin/env python3
"""Makes tests/golden/text: small tokenizers of every style with the ids that Hugging Face
`tokenizers` and `sentencepiece` give for a corpus of many scripts, code, emoji, odd white space,
invalid UTF-8 and special-token strings.

    python3 tools/make_tokenizer_goldens.py [--models DIR]

Needs the Python packages tokenizers and sentencepiece; with --models also gguf. DIR holds
smollm2-135m/*.gguf and qwen2.5-coder-1.5b/*.gguf, whose vocabularies are too large to commit: only
the expected ids are written for them.
"""
import argparse
import base64
import json
import pathlib
import random
import tempfile

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "text"

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace("{1,3}", "")
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?"
         rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# What the small vocabularies are trained on.
TRAINING = [
    "A mill grinds grain into flour, and the miller takes a toll of every sack that it weighs.",
    "The quick brown fox doesn't jump over the lazy dog; it's asleep, they'll say, and we've seen it.",
    "In 1847 the mill had 12 pairs of stones; by 1901, 305 sacks a day and 4,096 customers.",
    "for (int i = 0; i < count; ++i) {\n    total += weights[i] * values[i];\n}\n\n",
    "def grind(grain):\n    if not grain:\n        return None\n    return [g / 2 for g in grain]\n",
    "SELECT name, SUM(tokens) FROM usage WHERE tenant_id = 42 GROUP BY name;",
    "Die Mühle mahlt das Korn, und der Müller wiegt das Mehl: größer, schöner, süßer.",
    "Le moulin écrase le blé; l'été, la rivière est basse où l'âne a bu à côté.",
    "El molino muele el trigo; mañana será otro día, ¿verdad? ¡Sí, señor!",
    "Мельница мелет зерно, и мельник взвешивает муку каждый день.",
    "石臼は穀物を挽いて粉にする。毎日、粉を量ります。",
    "石磨把谷物磨成面粉，每天都要称重。",
    "맷돌은 곡식을 갈아 가루로 만든다.",
    "المطحنة تطحن الحبوب وتزن الدقيق كل يوم.",
    "चक्की अनाज को पीसकर आटा बनाती है।",
    "הטחנה טוחנת את הדגן לקמח.",
    "โม่บดเมล็ดข้าวให้เป็นแป้ง",
    "Flour 😀 and bread 🍞🍞 every day 👩‍🌾!",
    "HTTPServer parseXml CamelCase snake_case kConstant __init__ v1.2.3 user@example.com",
    "{\"role\": \"user\", \"content\": \"How much flour?\"}\n\t\t// a comment\n",
]

HARD = [
    "", "a", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\t\t x", " \n ", "  \n\n  a", "Hello world",
    "  leading", "trailing  ", " a  b   c    d", "don't DON'T I'LL we'Ve they're 'tis 's 'S o'clock",
    "it\u017f'\u017f x'\u017f", "na\u00efve caf\u00e9 cafe\u0301 \u00c5 \u212b A\u030a \ud55c\uae00 \u1112\u1161\u11ab \ufb01 \u00b2\u00b3 \u00bd",
    "日本語のテキスト。中文，测试！한국어 시험", "مرحبا بالعالم ١٢٣", "שלום עולם", "हिन्दी में परीक्षण १२३",
    "ภาษาไทย ๑๒๓", "Привет, мир! ЁЖИК ёжик", "😀😃👨‍👩‍👧‍👦🏳️‍🌈🇩🇪👍🏽 🍞", "☃ ♥ — … “quotes” ‘x’ «y» ¡¿",
    "a\u00a0b\u1680c\u2003d\u3000e\u180ef\u200bg\ufeffh\u0085i\u2028j\u2029k\u202fl\u205fm",
    " \u00a0 \u3000 x", "\u00a0\u00a0x \u2003\u2003y", "12345 1,234.56 1e-9 0x1F ٣٤٥ ௧௨ Ⅷ ¾ 一二三 1234567890123",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>", "<|begin_of_text|><|eot_id|>", "<s>[INST] hi [/INST]</s>",
    "a<s>b</s> <unk>c", "x<|im_start|", "<|<|endoftext|>|>", "<tool_call>{\"a\": 1}</tool_call>",
    "  <mask>  word<mask>word  <mask>", "keyword keywords akeyword key keyword.", "KEYWORD Keyword",
    "lstrip  <L>  x <R>  y  <B>  z<L><R><B>", "for(int i=0;i<10;++i){\n\treturn a[i] == b ? c : d; // ok\n}\n\n\n",
    "    def f(self):\n        pass\n\r\n\r", "path/to/file.cc:12: error: '\\n' \"q\" `x`", "a/b//c///\n\n/d",
    "a" * 100, "ab" * 60, " " * 70, "\n" * 50, "=" * 60, "的" * 60, "aA" * 50, "1" * 61, "\u0301" * 20,
    "e\u0301\u0323 q\u0307\u0323 \u1e9b\u0323 \u0958 \u2126 \uf900 \U0001d15e", "\u0300abc", "\u0130\u0131\u017f\u212a\u00c5\u1e9e\u01c5",
    "__init__ snake_case CamelCase HTTPServer XMLHttpRequest iPhone McDonald's ÉCOLE École éCOLE",
    "\u0001\u001f\u007f\u0080\u009f", "Zalgo t\u0334\u0322\u031b\u0359\u0332\u0317e\u0335x\u0336t", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐐷 𓀀 \U0001f1e6",
    "ⅷ Ⓐ ⓐ ª º ʰ ʷ ǅ ǈ", "▁under▁score ▁▁x ▁", "<0x41><0x0A> <0xff>", "Ġspace Ċ ĉ", "\ufffd\ufffe\U0010ffff",
    "x\u0000y", "A\u0000", "http://example.com/?q=a%20b&c=d#e", "$1,000.00 €5 £3 ¥7 50% #1 @me C++ C# a_b",
]

INVALID = [b"\xff", b"a\xffb", b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\xf0\x9f\x98x", b"\xed\xa0\x80",
           b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe4\xb8\xad\xe4\xb8", b"ok \x80\x81 \xe2\x82 end", b"\xf8\x88\x80\x80\x80"]

POOLS = ["abcdehilmnorst", "ABC'stmdvelr", " ", " \t\n\r\u00a0\u2003\u3000\u0085\u180e", "0123456789٣½Ⅷ²", "éèñßſİü",
         "石臼中文日本語粉한국어", "мельница", "المطحنة", "चक्कीहै", "😀👍🏽\u200d🍞", ".,;:!?()[]{}/\\\"'-_=+",
         "\u0301\u0323\u0307\u1100\u1161\u11a8", "▁Ġ"]
STRINGS = ["<|im_start|>", "<|endoftext|>", "<s>", "</s>", "<tool_call>", "<mask>", "keyword", "<L>", "<R>",
           "<B>", " the", "mill", "grain ", "  ", "\n\n", "'s", "'ll "]


def corpus():
    """Bytes of every case; what is no UTF-8 counts as decoded with errors="replace"."""
    rng = random.Random(7)
    cases = [text.encode() for text in HARD] + INVALID + [text.encode() for text in TRAINING]
    for _ in range(160):
        parts = []
        for _ in range(rng.randint(1, 9)):
            if rng.random() < 0.2:
                parts.append(rng.choice(STRINGS))
            else:
                pool = rng.choice(POOLS)
                parts.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 5))))
        cases.append("".join(parts).encode())
    return cases


def byte_level(use_regex=False, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def train(tokenizer, vocab_size, special=(), alphabet=None, **options):
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special), show_progress=False,
        initial_alphabet=alphabet or [], **options)
    tokenizer.train_from_iterator(TRAINING * 2, trainer)
    return tokenizer


BYTES = pre_tokenizers.ByteLevel.alphabet()
CHAT = [AddedToken("<|endoftext|>", normalized=False, special=True),
        AddedToken("<|im_start|>", normalized=False, special=True),
        AddedToken("<|im_end|>", normalized=False, special=True)]


def gpt2():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = byte_level(True)
    t.decoder = decoders.ByteLevel()
    train(t, 700, [AddedToken("<|endoftext|>", normalized=True, special=True)], BYTES)
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def roberta():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = byte_level(True, True)
    t.decoder = decoders.ByteLevel()
    train(t, 500, ["<s>", "</s>"], BYTES)
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")),
                                                    ("<s>", t.token_to_id("<s>")))
    return t


def llama3():
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([split(LLAMA3), byte_level()])
    t.decoder = decoders.ByteLevel()
    train(t, 800, [], BYTES)
    t.add_special_tokens([AddedToken(s, normalized=False) for s in
                          ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]])
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B",
        special_tokens=[("<|begin_of_text|>", t.token_to_id("<|begin_of_text|>"))])
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return t


def qwen():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([split(QWEN), byte_level()])
    t.decoder = decoders.ByteLevel()
    train(t, 800, [], BYTES)
    t.add_special_tokens(CHAT)
    t.add_tokens([AddedToken("<tool_call>", normalized=False, special=False),
                  AddedToken("</tool_call>", normalized=False, special=False)])
    return t


def o200k():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([split(O200K), byte_level()])
    t.decoder = decoders.ByteLevel()
    train(t, 700, [], BYTES)
    t.add_special_tokens(CHAT[:1])
    return t


def smollm():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level(True)])
    t.decoder = decoders.ByteLevel()
    return train(t, 700, CHAT, BYTES)


def llama2():
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                   decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = [AddedToken(s, normalized=False) for s in ["<unk>", "<s>", "</s>"]]
    special += [f"<0x{b:02X}>" for b in range(256)]
    # Words for training are cut at "▁"; the trained tokenizer has no pretokenizer.
    t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    train(t, 900, special, limit_alphabet=120)
    t.pre_tokenizer = None
    state = json.loads(t.to_str())
    state["added_tokens"] = state["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(state))
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    return t


def metaspace_first():
    t = llama2()
    t.normalizer = None
    t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    return t


def metaspace_unknown():
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", split=True)
    t.decoder = decoders.Metaspace("▁", "always", split=True)
    return train(t, 400, ["<unk>", "<s>", "</s>"], limit_alphabet=60)


def deepseek():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"),
        split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
              r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), byte_level()])
    t.decoder = decoders.ByteLevel()
    train(t, 600, [], BYTES)
    t.add_special_tokens(CHAT[:1])
    return t


def falcon():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), byte_level(True), pre_tokenizers.Digits(False),
        split(r"[0-9][0-9][0-9]")])
    t.decoder = decoders.ByteLevel()
    return train(t, 500, CHAT[:1], BYTES)


def flags():
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True, continuing_subword_prefix="##",
                             end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([
        normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
        normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(True, True)])
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.decoder = decoders.Sequence([decoders.Replace("</w>", " "), decoders.Replace(Regex("##"), ""),
                                   decoders.Fuse()])
    train(t, 300, ["[UNK]"], limit_alphabet=50, continuing_subword_prefix="##",
          end_of_word_suffix="</w>")
    t.add_tokens([AddedToken("keyword", single_word=True, normalized=True),
                  AddedToken("<L>", lstrip=True, normalized=False),
                  AddedToken("<R>", rstrip=True, normalized=False),
                  AddedToken("<B>", lstrip=True, rstrip=True, normalized=True)])
    return t


STYLES = [gpt2, roberta, llama3, qwen, o200k, smollm, llama2, metaspace_first, metaspace_unknown,
          deepseek, falcon, flags]


def ids_of(tokenizer, texts, special_as_text=False, template=False):
    tokenizer.encode_special_tokens = special_as_text
    result = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=template)]
    tokenizer.encode_special_tokens = False
    return result


def expected(tokenizer, texts, decoding=True):
    ids = ids_of(tokenizer, texts)
    result = {
        "ids": ids,
        "ids_special_as_text": ids_of(tokenizer, texts, special_as_text=True),
        "ids_with_template": ids_of(tokenizer, texts, template=True),
        "decoded": [tokenizer.decode(i, skip_special_tokens=False) for i in ids] if decoding else None,
        "decoded_without_special":
            [tokenizer.decode(i, skip_special_tokens=True) for i in ids] if decoding else None,
    }
    for key in ["ids_special_as_text", "ids_with_template"]:  # null: as ids
        result[key] = [None if a == b else a for a, b in zip(result[key], ids)]
    if decoding:  # null: the text itself
        for key in ["decoded", "decoded_without_special"]:
            result[key] = [None if a == b else a for a, b in zip(result[key], texts)]
    return result


def write(name, value):
    path = OUT / name
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n",
                    encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size} bytes")


NORMALIZERS = [
    normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD(),
    normalizers.Lowercase(), normalizers.Strip(True, False), normalizers.Strip(False, True),
    normalizers.StripAccents(), normalizers.Nmt(), normalizers.ByteLevel(),
    normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"), normalizers.Replace(Regex(r"[aeiou]+"), "*"),
    normalizers.Replace("ab", ""),
    normalizers.Sequence([normalizers.NFD(), normalizers.Sequence([normalizers.StripAccents()])]),
]

PRETOKENIZERS = [
    byte_level(True), byte_level(True, True), byte_level(False), split(LLAMA3), split(QWEN), split(O200K),
    split(r"\s+", "removed"), split(r"\s+", "merged_with_previous"), split(r"\s+", "merged_with_next"),
    split(r"\s", "contiguous"), split(r"\w+", "removed", True), split(r"\w+"), split(r"\W+"),
    split(r"\d{1,2}+"), split(r"\d{,2}x?"), split(r"\h+"), split(r"\H+"), split(r"[\h\s]+"), split(r"\S+"),
    split(r"[\S]x"), split(r"\D+"), split(r"\bm\w*"), split(r"\B\w"), split(r"^.", "removed"), split(r"$"),
    split(r"a|b*"), split(r"(a)(b)?\1"), split(r"[^\v]+\v"), split(r"\u0020+"), split(r"\x{4e00}|[一-龥]"),
    split(r"(?i)MILL|é"), split(r"(?<=a)b|(?<!a)c"), split(r"(?>a+)b"), split(r"\p{Letter}+|\p{^L}"),
    split(r"\P{Number}+"), split(r"\p{Han}+|\p{Hangul}+"), split(r"[{}]+"), split(r"a{2"), split(r"x*?y"),
    pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.Split("ab", "merged_with_previous"),
    pre_tokenizers.Digits(True), pre_tokenizers.Digits(False), pre_tokenizers.Punctuation("isolated"),
    pre_tokenizers.Punctuation("removed"), pre_tokenizers.Metaspace("▁", "always", split=True),
    pre_tokenizers.Metaspace("▁", "first", split=True), pre_tokenizers.Metaspace("_", "never", split=False),
    pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit(), pre_tokenizers.CharDelimiterSplit("a"),
    pre_tokenizers.BertPreTokenizer(), pre_tokenizers.FixedLength(3),
    pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "first")]),
]


def state_of(component, key):
    t = Tokenizer(models.BPE())
    setattr(t, key, component)
    return json.loads(t.to_str())[key]


def components():
    texts = [t.decode(errors="replace") for t in corpus()]
    texts = [t for t in texts[:len(HARD)] + texts[-30:] if len(t.encode()) <= 120]
    write("normalizers.json", {"texts": texts, "steps": [
        {"config": state_of(n, "normalizer"), "expected": [n.normalize_str(t) for t in texts]}
        for n in NORMALIZERS]})
    short = texts[::2]
    write("pretokenizers.json", {"texts": short, "steps": [
        {"config": state_of(p, "pre_tokenizer"),
         "expected": [[w for w, _ in p.pre_tokenize_str(t)] for t in short]} for p in PRETOKENIZERS]})


def sentencepiece_model():
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(pathlib.Path(folder) / "model")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TRAINING * 2), model_prefix=prefix, vocab_size=800,
            model_type="bpe", byte_fallback=True, character_coverage=0.98,
            normalization_rule_name="identity", remove_extra_whitespaces=False,
            split_digits=True, user_defined_symbols=["<tool_call>"], control_symbols=["[INST]"],
            num_threads=1, minloglevel=2)
        model = pathlib.Path(prefix + ".model").read_bytes()
    (OUT / "sentencepiece.model").write_bytes(model)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    types = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else
             4 if sp.id_to_piece(i) == "<tool_call>" else 1 for i in range(sp.get_piece_size())]
    # A user-defined piece within a text cuts it in pieces of which only the first gets a space
    # before it; Hugging Face tokenizers, and we, put one before each.
    texts = [t.decode(errors="replace") for t in corpus()]
    plain = [i for i, t in enumerate(texts) if "<tool_call>" not in t]
    write("sentencepiece_expected.json", {
        "tokens": [sp.id_to_piece(i) for i in range(sp.get_piece_size())],
        "scores": [sp.get_score(i) for i in range(sp.get_piece_size())], "types": types,
        "cases": plain, "ids": [sp.encode(texts[i]) for i in plain],
        "decoded": [sp.decode(sp.encode(texts[i])) for i in plain]})


def gguf_expected(name, path, texts):
    from gguf import GGUFReader
    fields = GGUFReader(path).fields
    read = lambda key: fields["tokenizer.ggml." + key].contents()
    tokens, types, merges = read("tokens"), read("token_type"), read("merges")
    vocab = {t: i for i, t in enumerate(tokens) if types[i] == 1 or read("pre") == "smollm"}
    t = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges]))
    if read("pre") == "smollm":
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level(True)])
    else:
        t.normalizer = normalizers.NFC()
        t.pre_tokenizer = pre_tokenizers.Sequence([split(QWEN), byte_level()])
    t.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, types):
        if kind in (3, 4):
            t.add_tokens([AddedToken(token, special=kind == 3, normalized=False)])
    write(f"{name}_expected.json", expected(t, texts, decoding=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=pathlib.Path)
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    cases = corpus()
    write("cases.json", {"base64": [base64.b64encode(c).decode() for c in cases]})
    texts = [c.decode(errors="replace") for c in cases]
    for style in STYLES:
        tokenizer = style()
        state = json.loads(tokenizer.to_str())
        write(f"{style.__name__}.json", state)
        write(f"{style.__name__}_expected.json",
              expected(Tokenizer.from_str(json.dumps(state)), texts))
    components()
    sentencepiece_model()
    if arguments.models:
        for name in ["smollm2-135m", "qwen2.5-coder-1.5b"]:
            for path in sorted((arguments.models / name).glob("*.gguf"))[:1]:
                gguf_expected(name, path, texts)


if __name__ == "__main__":
    main()
