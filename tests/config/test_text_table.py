"""Tables of the commands."""

from harness.text_table import format_table


def test_columns_are_aligned_to_the_right_but_the_first_ones():
    rows = [["op", "loss", "kl"], ["Solarize", "1.5", "-"], ["Cut", "12.25", "0.1"]]
    assert format_table(rows, left_columns=1) == [
        "  op         loss   kl",
        "  Solarize    1.5    -",
        "  Cut       12.25  0.1",
    ]
    assert format_table([["a", "bb"], ["ccc", ""]]) == ["    a  bb", "  ccc"]
