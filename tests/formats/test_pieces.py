import orjson
import pytest

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats import pieces
from wsi_ml.formats.pieces import cut, parse


def test_features_are_cut_where_json_cuts_them():
    features = [{"a": [1, {"b": "}],{["}]}, {"c": 'quote " and \\ backslash \\\\"'}, {}]
    for text in (
        orjson.dumps({"type": "FeatureCollection", "features": features, "z": [[1]]}),
        orjson.dumps({"features": features, "type": "FeatureCollection"}, option=orjson.OPT_INDENT_2),
        orjson.dumps(features),
    ):
        found = cut(text)
        assert list(found.items("" if found.frame == b"[]" else "features")) == features
        frame = orjson.loads(found.frame)
        assert frame == [] or frame["features"] == []


def test_blocks_never_end_inside_an_escape(monkeypatch):
    features = [{"name": '\\"' * n, "x": [[n]]} for n in range(12)]
    text = orjson.dumps({"type": "FeatureCollection", "features": features})
    for block in range(3, 40):
        monkeypatch.setattr(pieces, "BLOCK_BYTES", block)
        assert list(cut(text).items("features")) == features


def test_lists_of_other_formats_are_cut_too():
    text = b'{"b": [1], "positive": [{"a": 1}, {"a": [2]}], "negative" : [ ], "objects": [1, 2]}'
    found = cut(text)
    assert list(found.items("positive")) == [{"a": 1}, {"a": [2]}]
    assert (found.lists["negative"], list(found.items("nothing"))) == ([], [])
    assert orjson.loads(found.frame) == {"b": [1], "positive": [], "negative": [], "objects": [1, 2]}
    both = cut(b'{"objects": [{}], "features": [{}], "annotations": [{"a": 3}]}')
    assert (list(both.lists), list(both.items("features"))) == (["features"], [{}])
    assert orjson.loads(both.frame) == {"objects": [{}], "features": [], "annotations": [{"a": 3}]}


def test_a_key_said_again_and_again_costs_no_more():
    found = cut(b'{"objects":[{}]' + b',"objects":[{}]' * 20_000 + b"}")
    with pytest.raises(AnnotationFileError, match="“objects” twice"):
        parse(found.frame, "It")


def test_a_single_feature_has_no_pieces():
    text = b'{"type": "Feature", "geometry": {"coordinates": [[[1, 2]]]}, "properties": {"features": [1]}}'
    assert cut(text).lists == {}
    assert cut(text).frame == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"features":[{},{}', "brackets or quotes do not match"),
        (b'{"features":[{"a":"x]}', "brackets or quotes do not match"),
        (b"[{}{}]", "before item 1"),
        (b"[{},]", "before item 1: “,”"),
        (b"[,{}]", "before item 0"),
        (b"[{},7,{}]", "before item 1: “,7,”"),
        (b"[" * 70 + b"]" * 70, "deeper than 64"),
        (b'[{"a":' * 70 + b"1" + b"}]" * 70, "deeper than 64"),
    ],
)
def test_broken_structure_is_refused(text, words):
    with pytest.raises(AnnotationFileError) as caught:
        found = cut(text)
        list(found.items(""))
    assert words in str(caught.value)


def test_too_many_or_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(pieces, "FEATURE_LIMIT", 3)
    monkeypatch.setattr(pieces, "PIECE_LIMIT", 20)
    with pytest.raises(AnnotationFileError, match="more than 3 items"):
        cut(b"[" + b",".join([b"{}"] * 8) + b"]")
    with pytest.raises(AnnotationFileError, match=r"Feature 1 .* is longer than"):
        list(cut(b'[{},{"name": "a long name indeed"}]').items(""))


@pytest.mark.parametrize(
    "text",
    [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b'"\\ud800"', b'"\xff"', b"9" * 400, b"01", b"{a:1}", b""],
)
def test_what_is_not_strict_json_is_refused(text):
    with pytest.raises(AnnotationFileError, match=r"^Thing is not valid JSON"):
        parse(text, "Thing")


def test_equal_keys_are_refused_by_name():
    with pytest.raises(AnnotationFileError, match=r"Feature 4 .*“type” twice"):
        parse(b'{"type":"Feature","properties":{"k":"a:b","type":1,"type":2}}', "Feature 4 (counted from 0)")
    assert parse(b'{"a":{"a":"\\"a\\":1"},"coordinates":[{"a":1}],"b":[{"a":"x"}]}', "It")["b"] == [{"a": "x"}]


def test_many_keys_of_which_two_are_equal_are_found_at_once():
    text = b"{" + b",".join(b'"%d":1' % n for n in range(200_000)) + b',"199999":2}'
    with pytest.raises(AnnotationFileError, match="“199999” twice"):
        parse(text, "It")
