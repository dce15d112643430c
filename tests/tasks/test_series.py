import re

import pytest
import torch

from quickstudy.errors import DataError, DataNotFoundError, TooFewExamplesError
from quickstudy.tasks.series import series

UP, DOWN = [0, 1, 2, 3, 4, 5, 6, 9], [8, 7, 6, 5, 4, 3, 2, 1]


def line(label, values, separator=","):
    return separator.join([label, *map(str, values)]) + "\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="waves.csv"):
        (tmp_path / name).write_text(text, "utf-8")
        return tmp_path / name

    return write


HEADER = line("label", "abcdefgh")
ROWS = line("up", UP) + line("down", DOWN)


def is_right(path):
    data, test = series(path)
    assert test is None
    assert torch.equal(data.x, torch.tensor([[UP], [DOWN]], dtype=torch.float))
    assert data.class_names == ("down", "up")
    assert data.y.tolist() == [1, 0]


@pytest.mark.parametrize(
    "text",
    [
        HEADER + ROWS,
        ROWS,
        "﻿" + HEADER + ROWS,
        (HEADER + ROWS).replace(",", ";"),
        (HEADER + ROWS).replace(",", "\t"),
        HEADER + "\n" + ROWS + "\n\n",
        (HEADER + ROWS).replace("\n", "\r\n"),
        HEADER.replace("label", "kind") + ROWS,
        line("kind", range(8)) + ROWS,
        line("kind", range(1, 9)) + ROWS,
        line("LABEL", range(8)) + ROWS,
        "," + HEADER + "0," + line("up", UP) + "1," + line("down", DOWN),
        ",".join([*"abcdefgh", "label"]) + "\n0,1,2,3,4,5,6,9,up\n8,7,6,5,4,3,2,1,down\n",
        HEADER + line('"up"', UP) + line(" down ", DOWN),
    ],
    ids=range(14),
)
def test_a_csv_is_read_with_or_without_a_header_whatever_separates_and_wherever_the_label_is(write, text):
    is_right(write(text))


def test_a_column_called_label_may_hold_numbers_which_are_then_in_order(write):
    data, _ = series(write(HEADER + line("10", UP) + line("9", DOWN)))
    assert data.class_names == ("9", "10")
    assert data.y.tolist() == [1, 0]


def test_a_column_called_label_is_it_even_beside_other_words(write):
    text = "name," + HEADER + "ann," + line("up", UP) + "ben," + line("down", DOWN)
    with pytest.raises(DataError, match="line 2, column name, holds 'ann', not a number"):
        series(write(text))


def test_files_of_the_archive_are_read_as_they_are(write):
    text = line("2", UP, "\t") + line("1", DOWN, "\t")
    data, _ = series(write(text, "GunPoint_TRAIN.tsv"))
    assert data.class_names == ("1", "2")
    assert data.x[0, 0].tolist() == UP
    spaced = line("2.0", UP, "   ") + line("1.0", DOWN, "   ")
    assert torch.equal(series(write(spaced, "old.txt"))[0].x, data.x)


def test_a_test_file_beside_a_training_file_is_the_test_set(write):
    train = write(line("2", UP, "\t") + line("1", DOWN, "\t"), "A_TRAIN.tsv")
    write(line("2", DOWN, "\t"), "A_TEST.tsv")
    data, test = series(train)
    assert test is not None
    assert test.class_names == data.class_names
    assert test.y.tolist() == [1]


def test_a_test_file_of_other_classes_or_lengths_is_refused(write):
    train = write(line("2", UP, "\t") + line("1", DOWN, "\t"), "A_TRAIN.tsv")
    write(line("3", DOWN, "\t"), "A_TEST.tsv")
    with pytest.raises(DataError, match=r"has the class '3', which A_TRAIN\.tsv has not"):
        series(train)
    write(line("2", [*DOWN, 1], "\t"), "A_TEST.tsv")
    with pytest.raises(DataError, match=r"\(1, 9\), A_TRAIN.tsv of \(1, 8\)\. Cut or resample"):
        series(train)


TS = "# a comment\n@problemName Waves\n@timeStamps false\n@classLabel true up down\n@data\n"


def test_a_ts_file_may_have_several_channels(write):
    up, down = ",".join(map(str, UP)), ",".join(map(str, DOWN))
    data, _ = series(write(f"{TS}{up}:{down}:up\n{down}:{up}:down\n", "waves.ts"))
    assert data.x.tolist() == [[UP, DOWN], [DOWN, UP]]
    assert data.class_names == ("down", "up")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (TS, "has no series after @data"),
        ("1,2,3:up\n", "has no series after @data"),
        (TS.replace("timeStamps false", "timeStamps true") + "1,2:up\n", "has time stamps. Save it without them"),
        (TS.replace("classLabel true up down", "classLabel false") + "1,2:up\n", "has no class labels"),
        (TS.replace("classLabel true up down", "classLabel") + "1,2:up\n", "has no class labels"),
        (TS + "1,2,3:up\n1,2:down\n", "line 7 is not 1 channels of 3. Cut or resample all to one length."),
        (TS + "1,2,3:1,2,3:up\n1,2,3:down\n", "line 7 is not 2 channels of 3"),
        (TS + "1,?,3:up\n", "line 6 holds '?'. Fill gaps, or remove the series."),
        (TS + "1,NaN,3:up\n", "line 6 holds 'NaN'"),
        (TS + "1,2,3:up\n", "has 3 numbers a row; a series has at least 8"),
    ],
)
def test_bad_ts_files_are_refused_in_a_sentence(write, text, sentence):
    with pytest.raises(DataError, match=re.escape(sentence)):
        series(write(text, "waves.ts"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            HEADER + ROWS + "up,1,2,3\n",
            "the series differ in length: line 4 has 4 filled cells, others 9 (1 shorter lines: 4). Cut or",
        ),
        (HEADER + ROWS + "up,1,2,3,4,5,6,7,\n", "the series differ in length: line 4 has 8 filled cells"),
        (HEADER + line("up", [0, 1, "", *UP[3:]]) + ROWS, "line 2, column c, holds nothing. Fill gaps, with the"),
        (HEADER + line("up", [0, 1, "NaN", *UP[3:]]) + ROWS, "line 2, column c, holds NaN. Fill gaps"),
        (HEADER + line("up", [0, 1, "-inf", *UP[3:]]) + ROWS, "line 2, column c, holds -inf. Fill gaps"),
        (HEADER + line("up", [0, 1, "1e300", *UP[3:]]) + ROWS, "line 2, column c, holds '1e300', not a number"),
        (
            ROWS + line("up", [0, 1, "two", *UP[3:]]),
            "line 3, column 4, holds 'two', not a number. Correct it (decimals",
        ),
        (
            ROWS.replace("up", "1").replace("down", "2"),
            "all columns hold numbers, and none is called 'label'. Name the",
        ),
        (
            line("name,kind", "abcdefgh") + "ann," + line("up", UP),
            "2 columns hold words ('name', 'kind'), and none is called 'label'",
        ),
        (
            "id,time,value,label\n1,0,0.5,up\n1,1,0.6,up\n",
            "has a column 'time' among 4: a row a moment, the long format",
        ),
        ("label,a,b\nup,1,2\ndown,2,1\n", "has 2 numbers a row; a series has at least 8, in the order of time"),
        (HEADER.strip() + ",i,j\n" + ROWS, "the header names 11 columns and the rows have 9. Give every column a name"),
        (HEADER + 'up,"1,2\n', "cannot be read as CSV"),
    ],
)
def test_bad_csv_files_are_refused_in_a_sentence_with_its_remedy(write, text, sentence):
    with pytest.raises(DataError, match=re.escape(sentence)) as raised:
        series(write(text))
    assert "waves.csv" in str(raised.value)


@pytest.mark.parametrize("called", ["id", "Subject", "of nothing"])
def test_a_column_that_numbers_the_rows_is_refused(write, called):
    rows = "".join(
        f"{i if called == 'of nothing' else 7 * i % 5}," + line("ab"[i % 2], UP[i:] + UP[:i]) for i in range(6)
    )
    with pytest.raises(DataError, match=rf"waves\.csv: column {called} numbers the rows.*Remove it"):
        series(write(f"{called}," + HEADER + rows))


def test_it_is_named_by_its_place_where_there_is_no_header(write):
    rows = "".join(line("ab"[i % 2], [i, *UP[i:], *UP[:i]]) for i in range(6))
    with pytest.raises(DataError, match=r"waves\.csv: column 2 numbers the rows"):
        series(write(rows))


@pytest.mark.parametrize("label", ["", "NaN", "null"])
def test_a_row_without_a_label_is_refused_with_its_line(write, label):
    with pytest.raises(DataError, match=r"line 3 has no label, one of 1"):
        series(write(HEADER + line("up", UP) + line(label, DOWN) + line("down", DOWN)))


def test_empty_files_are_refused(write, tmp_path):
    with pytest.raises(TooFewExamplesError, match=r"waves\.csv is empty"):
        series(write(" \n"))
    with pytest.raises(TooFewExamplesError, match="has a header and no series"):
        series(write(HEADER))


def test_what_is_no_text_is_refused(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"nowhere\.csv is not there"):
        series(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match=r"cannot be read as text.*Save it as CSV in UTF-8"):
        series(tmp_path / "binary.csv")
