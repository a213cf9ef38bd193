"""What the wiki templates that stand inside sentences show to a reader."""

import re

LOST = "\ue000"  # marks text that could not be shown
ITEM = "\ue001"  # marks the start of a list item
INDENT = "\ue002"  # marks the start of an indented line

# Templates that are the text of their first argument.
_SHOW_FIRST = """
abbr|big|flag|flagcountry|flagu|formatnum|ill|interlanguage link|keypress|linktext
|native name|nobold|nobr|nowrap|resize|sc|small|smallcaps|smaller|sub|sup|tooltip
|vanchor|visible anchor|var
"""
# Templates that are the text of their last argument.
_SHOW_LAST = "lang|transl|transliteration|script|rtl-lang|font|color"
# Templates that are a paragraph of their own.
_SHOW_BLOCK = "quote|bquote|blockquote|cquote|quotation|rquote"
_SHOW_LIST = "hlist|unbulleted list|plainlist"
_CONSTANTS = {
    "!": "|", "=": "=", "'": "'", "'s": "'s", "·": " · ", "•": " • ", "nbsp": " ",
    "spaces": " ", "thinsp": " ", "mdash": "—", "mdashb": " — ", "ndash": "–",
    "snd": " – ", "spaced ndash": " – ", "spnd": " – ", "dash": " – ",
}  # fmt: skip
# Notes, pronunciations and marks of editors: a reader of the text loses nothing.
# A template of any other name takes its sentence with it.
_SILENT_START = ("cite ", "citation", "harv", "sfn", "efn", "ref", "#tag:ref", "ipa")
_SILENT = """
according to whom|better source|by whom|clarify|clear|cn|coord|dead link|dubious|fact
|failed verification|flagicon|full|issn|main|oclc|page needed|respell|rp|see also|sic
|unreliable source?|update after|update inline|vague|verify source|vr|wayback
|weasel-inline|webarchive|when|where|which|who|why|youtube
"""
_UNITS = {
    "C": "°C", "F": "°F", "C-change": "°C", "F-change": "°F", "acre": "acres",
    "sqmi": "sq mi", "sqft": "sq ft", "cuft": "cu ft", "ft3": "cu ft",
    "Tcuft": "trillion cubic feet", "km2": "km²", "m2": "m²", "cm2": "cm²",
    "m3": "m³", "km3": "km³", "kg/m3": "kg/m³", "carat": "carats",
    "USgal": "US gallons", "MUSgal": "million US gallons", "MT": "tonnes",
    "LT": "long tons", "PD/sqmi": "people per sq mi", "oilbbl": "barrels",
    "Moilbbl": "million barrels", "Goilbbl": "billion barrels",
    "oilbbl/d": "barrels per day", "koilbbl/d": "thousand barrels per day",
    "Moilbbl/d": "million barrels per day",
}  # fmt: skip
_POWERS = {"e3": "thousand", "e6": "million", "e9": "billion"}
_RANGES = {
    "-": "–", "–": "–", "to": " to ", "by": " by ", "x": " × ", "and": " and ",
    "or": " or ", "to(-)": " to ", "and(-)": " and ", "+/-": " ± ",
}  # fmt: skip
_NUMBER = re.compile(r"[-−+]?[\d.,]+(?:[/+e]\d+)*")
_MONTHS = """January February March April May June July August September October
November December""".split()


def is_silent(name):
    """True when a template (lower-case name) shows nothing inside a text."""
    return (
        name.startswith(_SILENT_START)
        or name in _SILENT_NAMES
        or name.endswith(" icon")
    )


def _first(args, _):
    return args[0] if args else ""


def _last(args, _):
    return args[-1] if args else ""


def _constant(text):
    return lambda args, named: text


def _join(args, _):
    return "".join(args)


def _list(args, _):
    return ", ".join(args)


def _block(args, named):
    text = args[0] if args else named.get("text", named.get("quote", ""))
    return "\n\n" + text + "\n\n"


def _prefix(text):
    return lambda args, named: text + "".join(args[:1])


def _convert(args, named):
    """'10|km|mi' -> '10 km', '5|-|7|km' -> '5–7 km', '6|ft|2|in' -> '6 ft 2 in'."""
    out = ""
    rest = list(args)
    while len(rest) >= 2 and _NUMBER.fullmatch(rest[0]):
        out += _with_commas(rest[0])
        if rest[1] in _RANGES:
            out += _RANGES[rest[1]]
            rest = rest[2:]
            continue
        unit = rest[1]
        if unit[:2] in _POWERS:
            out += " " + _POWERS[unit[:2]]
            unit = unit[2:]
        out += "-" if named.get("adj") in ("on", "mid") else " "
        out += _UNITS.get(unit, unit)
        rest = rest[2:]
        goes_on = len(rest) >= 2 and _NUMBER.fullmatch(rest[0])
        if unit not in ("ft", "lb") or not goes_on:
            return out
        out += " "
    return LOST


def _with_commas(number):
    """'142000' -> '142,000'; the template does so for five digits and more."""
    return "{:,}".format(int(number)) if re.fullmatch(r"\d{5,}", number) else number


def _as_of(args, named):
    words = "as of " if named.get("lc") in ("y", "yes", "on") else "As of "
    if named.get("since"):
        words = words.lower().replace("as of", "since")
    if len(args) > 1 and args[1].isdigit() and 1 <= int(args[1]) <= 12:
        args = [args[0], _MONTHS[int(args[1]) - 1]] + args[2:]
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


def _names(text):
    return text.replace("\n", "").split("|")


_SILENT_NAMES = frozenset(_names(_SILENT))
# Lower-case name -> function of (positional arguments, named arguments).
TEMPLATES = {
    "convert": _convert,
    "cvt": _convert,
    "as of": _as_of,
    "nihongo": _nihongo,
    "val": _value,
    "chem": _join,
    "angbr": lambda args, named: "⟨%s⟩" % "".join(args[:1]),
    "e": _prefix(" × 10^"),
    "circa": _prefix("c. "),
    "hms": _prefix("HMS "),
    "ss": _prefix("SS "),
    "uss": _prefix("USS "),
    **dict.fromkeys(("frac", "fraction", "sfrac"), _fraction),
    **dict.fromkeys(("nuclide2", "simplenuclide2"), _nuclide),
    **dict.fromkeys(_names(_SHOW_FIRST), _first),
    **dict.fromkeys(_names(_SHOW_LAST), _last),
    **dict.fromkeys(_names(_SHOW_BLOCK), _block),
    **dict.fromkeys(_names(_SHOW_LIST), _list),
    **{name: _constant(text) for name, text in _CONSTANTS.items()},
}
