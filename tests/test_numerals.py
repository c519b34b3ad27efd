"""Chinese numerals against known ones, and against a reader that knows nothing of the writer."""

import re

import pytest

from utils.numerals import chinese_numeral

KNOWN = {
    0: "零",
    7: "七",
    10: "十",
    12: "十二",
    20: "二十",
    27: "二十七",
    101: "一百零一",
    110: "一百一十",
    115: "一百一十五",
    1005: "一千零五",
    1050: "一千零五十",
    1500: "一千五百",
    10_000: "一万",
    10_005: "一万零五",
    10_500: "一万零五百",
    12_345: "一万二千三百四十五",
    20_020: "二万零二十",
    60_708: "六万零七百零八",
    100_000: "十万",
    105_000: "十万五千",
    1_203_000: "一百二十万三千",
    99_999_999: "九千九百九十九万九千九百九十九",
}


def read(text):
    """Add up digit times place, left to right."""
    if "万" in text:
        upper, lower = text.split("万")
        return 10_000 * read(upper) + (read(lower) if lower else 0)
    total, digit = 0, None
    for char in text:
        if char in "零一二三四五六七八九":
            digit = "零一二三四五六七八九".index(char)
        else:
            total += {"十": 10, "百": 100, "千": 1000}[char] * (1 if digit is None else digit)
            digit = 0
    return total + (digit or 0)


@pytest.mark.parametrize(("number", "text"), KNOWN.items())
def test_known_numerals(number, text):
    assert chinese_numeral(number) == text


def test_what_is_written_reads_back_as_the_number():
    for number in (*range(20_000), *range(20_000, 100_000_000, 99_991)):
        text = chinese_numeral(number)
        assert read(text) == number
        assert "零零" not in text and not (number and text.endswith("零"))
        assert "零" not in text[:1] or number == 0


def test_each_run_of_skipped_places_is_said_once():
    for number in range(1, 100_000):
        inner_runs = re.findall("0+", str(number).strip("0"))
        assert chinese_numeral(number).count("零") == len(inner_runs)


@pytest.mark.parametrize("number", [-1, 100_000_000])
def test_out_of_range(number):
    with pytest.raises(ValueError, match="from 0 to"):
        chinese_numeral(number)


@pytest.mark.parametrize("number", [2.0, "3", True])
def test_no_whole_number(number):
    with pytest.raises(TypeError, match="whole number"):
        chinese_numeral(number)
