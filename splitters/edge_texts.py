"""Edge texts for the laws: one shared list, for tests and for `splitters.check`."""

import unicodedata
from functools import lru_cache

import numpy as np

SCRIPTS = {
    "Latin": "All human beings are born free. 3.14 of 12345, “quoted” — and co‐operate!\r\nNext\tline\n\n\nEnd",
    "Latin marks": "e\u0301te\u0301 nai\u0308ve o\u0323\u0302 Tiê\u0301ng Viê\u0323t a\u0300\u0323\u0302b",
    "Cyrillic": "Все люди рождаются свободными, и равными. Статья 17",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι· και ίσοι;",
    "Arabic": "يولد جميع الناس أحراراً، متساوين. المادة ١٧ می\u200cخواهم",
    "Hebrew": "כל בני אדם נולדו בני חורין וְשָׁוִים.",
    "Devanagari": "सभी मनुष्यों को गौरव और क्षमा प्राप्त है। धारा १२३४",
    "Tamil": "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระ ข้อ ๑๒ น้ำ",
    "Lao": "ມະນຸດທຸກຄົນເກີດມາມີກຽດ ມາດຕາ ໑",
    "Khmer": "មនុស្ស\u200bទាំង\u200bអស់ កើតមកមានសេរីភាព។ ក្រុម",
    "Burmese": "လူတိုင်းသည် တူညီ လွတ်လပ်သော။ ကျွန်ုပ်",
    "Tibetan": "འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ། ༡༢",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。第3條 Linux 内核，“引号”。\n二〇二六年",
    "Japanese": "すべての人間は、生まれながらにして自由であり、カーネルー ﾊﾝｶｸ ABC漢字かな。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 \u1112\u1161\u11ab한.",
    "Amharic": "የሰው፡ልጅ፡ሁሉ፡ሲወለድ፡ነጻ፡ነው።",
    "Georgian": "ყველა ადამიანი იბადება თავისუფალი",
    "Cherokee": "ᏂᎦᏓ ᎠᏂᏴᏫ ᏂᎨᎫᏓᎸᎾ",
    "beyond the BMP": "𠀀𠮷野家 𐐷𐐲 𝒳=𝟙𝟚𝟛𝟜 𗀀 𞤀𞤣",
    "emoji": "ok👍🏽 👩\u200d👩\u200d👧\u200d👦 🇯🇵🇩🇪 ❤️ 1️⃣!",
    "blanks": " \u00a0\u3000\u2003 a  b\u3000\u3000c\u2028d\u0085e\u200bf\u200b g\x0b\x0c",
}

# Every shape of invalid UTF-8, between letters that reveal a rule's state before and after.
INVALID = {
    "lone continuation": b"a \x80b\xbf c",
    "truncated 2": b"a \xc3 b\xc3",
    "truncated 3": b"a \xe4\xb8 b \xe4 c \xe4\xb8",
    "truncated 4": b"a \xf0\x9f\x91 b \xf0\x9f \xf0 c\xf0\x9f\x91",
    "broken off by a lead": b"\xe4\xb8\xe4\xb8\xad \xe4\xe4\xb8\xad \xf0\x9f\xe4\xb8\xad",
    "overlong": b"a\xc0\xa0b \xc1\xbf \xe0\x80\xa0 \xe0\x9f\xbf \xf0\x80\x80\xa0 \xf0\x8f\xbf\xbf",
    "surrogate": b"a \xed\xa0\x80 \xed\xbf\xbf\xed\x9f\xbf b",
    "above U+10FFFF": b"a \xf4\x90\x80\x80 \xf5\x80\x80\x80 \xfe\xff b",
    "latin-1": "Größe déjà".encode("latin-1"),
    "utf-16": "hi 中文".encode("utf-16"),
}


LONGEST = "no blank in 1 MB"


@lru_cache(maxsize=1)
def block_texts() -> dict[str, bytes]:
    """Returns a short text per assigned block of 256 code points (some of the later planes), by its first point."""
    texts = {}
    for begin in (*range(0, 0x20000, 256), 0x20000, 0x2A600, 0x2F800, 0x30000, 0xE0000, 0xE0100):
        named = [chr(c) for c in range(begin, begin + 256) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
        if named:
            some = named[:: max(len(named) // 12, 1)]
            texts[f"U+{begin:04X}"] = f"{''.join(some[:6])} {''.join(some[6:])}a{some[0]}.{some[-1]}7".encode()
    return texts


@lru_cache(maxsize=1)
def short_texts() -> dict[str, bytes]:
    """Returns texts of up to about 300 bytes by name. Laws are tested on them at every cut."""
    rng = np.random.default_rng(0)
    texts = {"empty": b"", "one byte": b"a", "one blank": b" ", "NUL": b"\0", "one word": b"word"}
    texts |= {"digits": b"1234567 12 1", "punctuation": b"a,b;;c...d!?(e)", "breaks": b"a\nb\r\nc\rd\n\n e.\n\n.\r\n"}
    texts |= {name: text.encode() for name, text in SCRIPTS.items()}
    printable = [chr(c) for c in range(0x21, 0x7F)]
    for i in range(0, len(printable), 32):  # every character after a blank, a letter, a digit and a full stop
        some = printable[i : i + 32]
        texts[f"pairs from {some[0]}"] = "".join(f" {c}a{c}1{c}." for c in some).encode()
    texts["code and links"] = b"See (Mr. A. Smith)\t- the HTTP spec: http://example.org/a_b?c=1&d=%20 3 000, e.g. \tx"
    texts |= INVALID
    texts |= {f"random bytes {i}": rng.bytes(97) for i in range(8)}
    pieces = [
        b" ",
        b"\n",
        b"a",
        b"7",
        b".",
        b"\xc3",
        b"\xe4\xb8",
        "中".encode(),
        "\u0e19\u0e49".encode(),
        b"\x80",
        b"\xf0\x9f",
    ]
    for i in range(8):
        texts[f"random pieces {i}"] = b"".join(pieces[j] for j in rng.integers(0, len(pieces), 60))
    return texts


@lru_cache(maxsize=1)
def long_texts() -> dict[str, bytes]:
    """Returns long texts by name, from two kilobytes to one megabyte."""
    blocks = [chr(c) for c in range(0, 0x20000, 61) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    return {
        "no blank in 10 KB": b"a" * 10_240,
        LONGEST: b"a" * 1_000_000,
        "only blanks": b" " * 2_000,
        "only continuations": b"\x80" * 2_000,
        "every block of Unicode": "".join(blocks).encode(),
        "every block, blanks between": " ".join(blocks).encode(),
        "all scripts": "\n".join(SCRIPTS.values()).encode(),
    }
