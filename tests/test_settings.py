"""Options of a training: what they may be, and what is said of those that they may not. See test_train for the rest."""

import math
import re

import pytest

from ctlib.settings import flag, names, number, share, whole


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        *[(whole, value, "a whole number") for value in (1.0, "1", True, None)],
        *[(flag, value, "true or false") for value in (1, "no", None)],
        *[(number, value, "a number from 0 on") for value in (-1, "much", True, None, [1], math.nan, math.inf)],
        *[(share, value, "a share from 0 to below 1") for value in (1, 1.5, "half", True)],
        *[(names, value, "a list of names, e.g. option=[photos]") for value in (3, [3], None, {"photos": 1})],
    ],
)
def test_what_an_option_may_not_be(read, value, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(f'option: expected {expected}, got {value!r}')}$"):
        read("option", value)


def test_what_an_option_may_be():
    assert number("option", "1e-3") == 0.001 and share("option", "1e-1") == 0.1 and number("option", 1, 1) == 1
    assert whole("option", 0) == 0 and flag("option", False) is False
    assert names("option", "photos") == ["photos"] and names("option", ("a", "b")) == ["a", "b"]
    with pytest.raises(ValueError, match="option: expected a whole number of at least 1, got 0"):
        whole("option", 0, 1)
    with pytest.raises(ValueError, match="option: expected a number from 0 to 1, got 2"):
        number("option", 2, 1)
