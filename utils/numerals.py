"""Chinese numerals, which num2words does not know; the other languages come from utils.data."""

from __future__ import annotations

DIGITS = "零一二三四五六七八九"
PLACES = ((1000, "千"), (100, "百"), (10, "十"), (1, ""))
LARGEST = 99_999_999


def chinese_numeral(number: int) -> str:
    """Write a number in Chinese characters.

    Chinese groups digits by four, not by three: 万 is ten thousand, and 12,000 is "one 万 two
    thousand". Inside a number, any run of skipped places is said as one 零. The forms are those of
    counting in writing: 二 throughout (speakers also say 两), 一十 inside a number but 十 at its
    beginning.

    Parameters
    ----------
    number : int
        From 0 to 99,999,999.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If it is not a whole number.
    ValueError
        If it is out of range.
    """
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"a numeral is written for a whole number, not for {number!r}")
    if not 0 <= number <= LARGEST:
        raise ValueError(f"the number should be from 0 to {LARGEST:,}, not {number:,}")
    if number == 0:
        return DIGITS[0]
    upper, lower = divmod(number, 10_000)
    text = _group(upper) + "万" if upper else ""
    if upper and 0 < lower < 1000:
        text += DIGITS[0]  # the place of the thousands is skipped
    text += _group(lower)
    return text[1:] if text.startswith("一十") else text


def _group(number: int) -> str:
    """Write up to four digits, without a 零 at either end."""
    text, skipped = "", False
    for size, place in PLACES:
        digit = number // size % 10
        if digit:
            text += (DIGITS[0] if skipped and text else "") + DIGITS[digit] + place
        skipped = digit == 0
    return text
