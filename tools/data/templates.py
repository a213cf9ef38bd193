"""What the wiki templates that stand inside sentences show to a reader."""

import re

LOST = "\ue000"  # marks text that could not be shown
ITEM = "\ue001"  # marks the start of a list item

_LANGUAGES = {
    "ar": "Arabic", "az": "Azerbaijani", "de": "German", "el": "Greek",
    "grc": "Ancient Greek", "es": "Spanish", "fa": "Persian", "fr": "French",
    "he": "Hebrew", "hu": "Hungarian", "hy": "Armenian", "it": "Italian",
    "ka": "Georgian", "la": "Latin", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ru": "Russian", "sq": "Albanian", "tr": "Turkish",
    "zh": "Chinese", "ca": "Catalan", "sv": "Swedish", "en": "English",
}  # fmt: skip
_UNITS = {
    "km2": "km²", "m2": "m²", "cm2": "cm²", "mm2": "mm²", "km3": "km³",
    "m3": "m³", "cm3": "cm³", "sqmi": "sq mi", "sqft": "sq ft",
    "sqkm": "km²", "C": "°C", "F": "°F", "K": "K", "C-change": "°C",
    "F-change": "°F", "cuft": "cu ft", "cumi": "cu mi", "cuyd": "cu yd",
    "impgal": "imperial gallons", "USgal": "US gallons", "lb": "lb",
    "kg/m3": "kg/m³", "m3/s": "m³/s", "m/s2": "m/s²", "oz": "oz", "acre": "acres", "sqyd": "sq yd", "hp": "hp",
}  # fmt: skip
_RANGES = {
    "-": "–", "–": "–", "to": " to ", "by": " by ", "x": " × ", "×": " × ",
    "and": " and ", "or": " or ", "to(-)": " to ", "and(-)": " and ",
    "+/-": " ± ", "±": " ± ",
}  # fmt: skip
_NUMBER = re.compile(r"[-−+]?[\d.,]+(?:[/+e]\d+)*")


def _first(args, _):
    return args[0] if args else ""


def _last(args, _):
    return args[-1] if args else ""


def _constant(text):
    return lambda args, named: text


def _block(args, named):
    text = args[0] if args else named.get("text", named.get("quote", ""))
    return "\n" + text + "\n"


def _convert(args, named):
    """'10|km|mi' -> '10 km', '5|-|7|km' -> '5–7 km', '6|ft|2|in' -> '6 ft 2 in'."""
    out = ""
    i = 0
    while i < len(args) and _NUMBER.fullmatch(args[i].replace(" ", "")):
        out += args[i]
        if i + 1 < len(args) and args[i + 1] in _RANGES:
            out += _RANGES[args[i + 1]]
            i += 2
            continue
        if i + 1 >= len(args):
            return LOST
        unit = args[i + 1]
        for prefix, word in (("e3", "thousand "), ("e6", "million "), ("e9", "billion ")):
            if unit.startswith(prefix):
                out += " " + word.strip()
                unit = unit[2:]
        unit = _UNITS.get(unit, unit)
        out += ("-" if named.get("adj") in ("on", "mid") else " ") + unit
        i += 2
        # Only feet and inches or pounds and ounces go on after a unit.
        if unit not in ("ft", "lb", "yd", "mi", "st"):
            break
        if i < len(args) and _NUMBER.fullmatch(args[i]) and i + 1 < len(args):
            out += " "
            continue
        break
    return out if out and not out.endswith(("–", " ")) else LOST


def _as_of(args, named):
    words = "as of " if named.get("lc") in ("y", "yes", "on") else "As of "
    if named.get("since"):
        words = words.lower().replace("as of", "since")
    months = "January February March April May June July August September October November December".split()
    if len(args) > 1 and args[1].isdigit() and 1 <= int(args[1]) <= 12:
        args = [args[0], months[int(args[1]) - 1]] + args[2:]
    return named.get("alt") or words + " ".join(reversed(args[:3]))


def _nihongo(args, _):
    inner = " ".join(a for a in args[1:3] if a)
    english = args[0] if args else ""
    return "%s (%s)" % (english, inner) if english and inner else english or inner


def _fraction(args, _):
    if len(args) == 1:
        return "1/" + args[0]
    if len(args) == 2:
        return "/".join(args)
    return "%s %s/%s" % tuple(args[:3]) if len(args) >= 3 else LOST


def _value(args, named):
    if not args:
        return LOST
    text = args[0]
    if len(args) > 1 and args[1]:
        text += " ± " + args[1]
    if named.get("e"):
        text += " × 10^" + named["e"]
    unit = named.get("u") or named.get("ul") or ""
    return text + (" " + unit if unit else "")


def _nuclide(args, _):
    return "-".join(args[:2]).lower() if len(args) > 1 else LOST


def _ship(prefix):
    return lambda args, named: prefix + " " + args[0] if args else LOST


def _language(args, _):
    return args[0]


TEMPLATES = {"lang-": _language, "convert": _convert, "cvt": _convert}
for _name in ("quote", "cquote", "quotation", "blockquote", "bquote",
              "centered pull quote", "rquote"):  # fmt: skip
    TEMPLATES[_name] = _block
for _name in ("nowrap", "nobr", "small", "smaller", "big", "nobold", "sc", "resize", "vanchor", "visible anchor",
              "linktext", "abbr", "tooltip", "keypress", "flag", "flagcountry", "native name", "formatnum",
              "ill", "interlanguage link", "nts", "dts", "longitem", "smallcaps", "math", "mvar", "var", "em",
              "strong", "nobreak", "pslink", "flagu", "noitalic", "lsj", "sup", "sub", "unicode", "polytonic",
              "italics correction", "asiantitle", "wikt-lang", "not a typo", "as written", "proper name", "nom",
              "plainlist", "key press", "button", "code", "tt", "mono", "samp", "kbd"):  # fmt: skip
    TEMPLATES[_name] = _first
for _name in ("lang", "transl", "script", "wiktde", "rtl-lang", "transliteration", "font", "color"):
    TEMPLATES[_name] = _last
for _name, _text in {"!": "|", "=": "=", "·": " · ", "•": " • ", "mdash": "—", "mdashb": " — ", "ndash": "–",
                     "snd": " – ", "spaced ndash": " – ", "spnd": " – ", "nbsp": " ", "spaces": " ", "thinsp": " ",
                     "'s": "'s", "'": "'", "\"": "\"", "pipe": "|", "ad": "AD", "bc": "BC", "ce": "CE", "bce": "BCE",
                     "dash": " – ", "emdash": "—", "endash": "–", "shy": "", "zwsp": "", "wbr": "", "`": "`",
                     "en dash": "–", "em dash": "—", "hyphen": "-", "minus": "−", "euro": "€", "gbp": "£"}.items():  # fmt: skip
    TEMPLATES[_name] = _constant(_text)
TEMPLATES.update({
    "as of": _as_of, "nihongo": _nihongo, "frac": _fraction, "fraction": _fraction, "sfrac": _fraction, "val": _value,
    "chem": lambda args, named: "".join(args), "chem2": lambda args, named: "".join(args),
    "simplenuclide2": _nuclide, "simplenuclide": _nuclide, "nuclide2": _nuclide,
    "angbr": lambda args, named: "⟨%s⟩" % "".join(args[:1]),
    "e": lambda args, named: " × 10^" + "".join(args[:1]),
    "circa": lambda args, named: "c. " + "".join(args[:1]), "c.": lambda args, named: "c. " + "".join(args[:1]),
    "uss": _ship("USS"), "hms": _ship("HMS"), "ss": _ship("SS"), "rms": _ship("RMS"),
    "hlist": lambda args, named: ", ".join(args), "unbulleted list": lambda args, named: ", ".join(args),
})  # fmt: skip

# Notes, hatnotes, boxes and pronunciations: a reader of running text loses nothing.
_SILENT = re.compile(
    r"(?:cite|citation|vcite|harv|sfn|efn|ref|r$|rp$|reflist|refn|note|cn$|fact$|ipa|respell|pron|audio|listen|flagicon|"
    r"main|see also|further|about|other uses|redirect|distinguish|for$|hatnote|details|infobox|taxobox|automatic taxobox|"
    r"use |pp-|portal|commons|wik[it]|sister|dmoz|authority|navbox|clear|div col|col|toc|coord|multiple image|image|"
    r"double image|wide image|css|anchor|vague|clarify|when|who|which|where|why|by whom|according to whom|dubious|"
    r"page needed|specify|better source|unreliable|failed verification|verify|update|expand|refimprove|unreferenced|"
    r"more footnotes|original research|pov|undue|weasel|peacock|tone|disputed|neutral|synthesis|inconsistent|dead link|"
    r"link|wayback|webarchive|sic$|good article|featured article|short description|bar |bartable|chart|legend|clade|"
    r"increase|decrease|steady|s-|start|end|succession|geographic location|historical pop|country|countries|"
    r"#tag:ref|defaultsort|displaytitle|relevance|full|registration|subscription|fr icon|.. icon|isbn|issn|oclc|doi|"
    r"pmid|jstor|gutenberg|internet archive|librivox|ol author|imdb|youtube|official|in our time|sep|"
    r"cia world|us dept|loc|books-inline|google books|vr$|merge|split|copy|contains|special characters|"
    r"external|quote box|quote_box|side box|album|tracklist|gallery|largest|climate|weather|election|family tree|"
    r"ahnentafel|chess|panorama|annotated|external media|inline|library resources|disambig|article|attribution|eb1911|"
    r"1911|catholic|schaff|gr$|nbsp$|osm|wp|worldcat|hide|collaps|box|break|-$|year nav|citationneeded|discuss|"
    r"speculation|time needed|non-primary|primary source|medical citation|self|circular|third-party|attribution needed|"
    r"quote without source|page|nonspecific|explain|examples|example needed|elucidate|how|definition|buzz|cleanup|lead|"
    r"over|too|incomplete|missing|essay|confus|technical|repetition|misleading|dated|nowiki)"
)


def is_silent(name):
    """True when a template (lower-case name) shows nothing inside a text."""
    return name not in TEMPLATES and bool(_SILENT.match(name))
