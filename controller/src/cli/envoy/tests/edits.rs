//! Texts in which something is changed.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::edit::rewritten;
use super::super::node::Node;

fn push(node: &mut Node, field: &str, value: Value) {
    node.list_mut(field).unwrap().push(Node::from(value));
}

#[rstest]
#[case::end_of_a_list("a:\n- 1 # one\n\n# of b\nb: 2\n", "a:\n- 1 # one\n- 3\n\n# of b\nb: 2\n")]
#[case::indented_list(
    "a:\n  - x: 1\n    # more\n    z: 2\nb: 2\n",
    "a:\n  - x: 1\n    # more\n    z: 2\n  - 3\nb: 2\n"
)]
#[case::flow_list("a: [1, '2'] # both\nb: 2\n", "a: [1, \"2\", 3] # both\nb: 2\n")]
#[case::no_newline_at_the_end("a:\n- 1", "a:\n- 1\n- 3")]
#[case::text_in_blocks(
    "a:\n- x: |\n    # no comment\n    z\n- 2\nb: 2\n",
    "a:\n- x: |\n    # no comment\n    z\n- 2\n- 3\nb: 2\n"
)]
#[case::flow_items("a:\n- { x: 1 } # one\n- [2]\nb: 2\n", "a:\n- { x: 1 } # one\n- [2]\n- 3\nb: 2\n")]
#[case::flow_items_of_several_lines(
    "# all\na:\n  - {x: 1,\n     z: 2}\n# of b\nb: 2\n",
    "# all\na:\n  - {x: 1,\n     z: 2}\n  - 3\n# of b\nb: 2\n"
)]
#[case::flow_list_of_several_lines("# all\na: [\n  1, 2\n]\nb: 2 # two\n", "# all\na: [1, 2, 3]\nb: 2 # two\n")]
#[case::flow_list_below("# all\na:\n  [1, 2]\nb: 2 # two\n", "# all\na:\n  [1, 2, 3]\nb: 2 # two\n")]
#[case::no_list_yet("b: 2\n# the end\n", "b: 2\na: [3]\n# the end\n")]
#[case::letters_of_several_bytes("# äöü\na:\n- é\nb: 2\n", "# äöü\na:\n- é\n- 3\nb: 2\n")]
fn what_is_added_stands_in_its_place(#[case] text: &str, #[case] expected: &str) {
    let before = Node::parse(text).unwrap();
    let mut after = before.clone();
    push(&mut after, "a", json!(3));
    assert_eq!(rewritten(text, &before, &after), (expected.to_owned(), true));
}

/// Comments in what is written in one line, and brackets around all of it.
#[rstest]
#[case::in_a_list("a: [ # one\n  1,\n  # two\n  2]\nb: 2 # b\n", "a: [1, 2, 3]\nb: 2 # b\n")]
#[case::around_all("{a: [1], # one\n b: 2}\n", "a: [1, 3]\nb: 2\n")]
fn comments_that_are_lost_are_said(#[case] text: &str, #[case] expected: &str) {
    let before = Node::parse(text).unwrap();
    let mut after = before.clone();
    push(&mut after, "a", json!(3));
    assert_eq!(rewritten(text, &before, &after), (expected.to_owned(), false));
}

/// T35: Envoy reads some words otherwise than this does: as they stood they mean what they meant.
#[rstest]
fn a_word_is_written_as_it_stood(
    #[values(
        "1.10",
        "1_000",
        "010",
        "7e10",
        ".5",
        "+5.0",
        "0o17",
        "0x1F",
        "1e3",
        "-0",
        "yes",
        "On",
        "n",
        "~x",
        "v1",
        "1.0.0",
        "2026-12-01",
        "True",
        "1.0e-7",
        "00",
        "18446744073709551616"
    )]
    word: &str,
    #[values("a: WORD\n", "a: WORD # \u{e4}\n", "a: [WORD]\n", "a: {b: WORD, c: WORD}\n", "a: &x WORD\nb: *x\n")]
    shape: &str,
) {
    let node = Node::parse(&shape.replace("WORD", word)).unwrap();
    let count = |text: &str| text.matches(word).count() - text.matches(&format!("\"{word}\"")).count();
    let expected = count(&shape.replace("WORD", word).replace("*x", word));
    for written in [super::super::write::yaml(&node), super::super::write::flow(&node)] {
        let quoted = word.starts_with('~');
        assert!(count(&written) == expected || quoted, "{written}");
        assert_eq!(Node::parse(&written).unwrap(), node, "{written}");
    }
}

/// What an anchor has cannot be changed in one place.
#[test]
fn what_is_there_twice_is_written_anew() {
    let text = "# gone\na: &x\n- 1\nb: *x\n";
    let before = Node::parse(text).unwrap();
    let mut after = before.clone();
    push(&mut after, "a", json!(3));
    assert_eq!(
        rewritten(text, &before, &after),
        ("a:\n- 1\n- 3\nb: [1]\n".replace("a:\n- 1\n- 3", "a: [1, 3]"), false)
    );
}

#[rstest]
#[case::plain("a:\n  name: one # first\n", "a:\n  name: two # first\n")]
#[case::quoted("a: {name: 'one'}\n", "a: { name: two }\n")]
#[case::flow_below("a:\n  { name: one } # first\n", "a:\n  { name: two } # first\n")]
#[case::double("a:\n  name: \"one\"\n", "a:\n  name: two\n")]
fn a_text_is_replaced(#[case] text: &str, #[case] expected: &str) {
    let before = Node::parse(text).unwrap();
    let mut after = before.clone();
    after.find_mut("a").unwrap().set("name", "two".into());
    assert_eq!(rewritten(text, &before, &after), (expected.to_owned(), true));
}

/// Items in one pair of brackets each, below a list in lines of its own.
#[rstest]
#[case::one(
    "# all\na:\n- { name: one, x: [1] } # first\n- { name: two }\n",
    "# all\na:\n- { name: new, x: [1] } # first\n- { name: two }\n"
)]
#[case::deeper(
    "# all\na:\n- b:\n  - { name: two }\n  name: one # first\n",
    "# all\na:\n- b:\n  - { name: two }\n  name: new # first\n"
)]
fn an_item_in_brackets_is_changed(#[case] text: &str, #[case] expected: &str) {
    let before = Node::parse(text).unwrap();
    let mut after = before.clone();
    after.find_mut("a/0").unwrap().set("name", "new".into());
    assert_eq!(rewritten(text, &before, &after), (expected.to_owned(), true));
    after.find_mut("a/0").unwrap().set("more", json!({ "z": 1 }).into());
    let (text, is_kept) = rewritten(text, &before, &after);
    assert!(is_kept, "{text}");
}

#[test]
fn json_stays_json_with_its_order() {
    let text = "{\n    \"z\": {\"y\": []},\n    \"a\": [1]\n}\n";
    let before = Node::parse(text).unwrap();
    let mut after = before.clone();
    push(&mut after, "a", json!("on"));
    let (text, is_kept) = rewritten(text, &before, &after);
    assert!(is_kept);
    assert_eq!(
        text,
        "{\n    \"z\": {\n        \"y\": []\n    },\n    \"a\": [\n        1,\n        \"on\"\n    ]\n}\n"
    );
    assert!(serde_json::from_str::<Value>(&text).is_ok());
}

#[rstest]
#[case(json!("on"), "\"on\"")]
#[case(json!("v1,v2"), "\"v1,v2\"")]
#[case(json!("/a-b.c"), "/a-b.c")]
#[case(json!("1.5s"), "\"1.5s\"")]
#[case(json!(""), "\"\"")]
#[case(json!({ "a": null, "b": [true] }), "{ a: null, b: [true] }")]
fn what_is_written_is_read_as_it_was(#[case] value: Value, #[case] expected: &str) {
    let node = Node::from(value);
    let text = super::super::write::flow(&node);
    assert_eq!(text, expected);
    assert_eq!(Node::parse(&format!("x: {text}")).unwrap().find("x"), Some(&node));
}

/// `<<` is not taken apart: what it brings is there as if it had been written.
#[test]
fn what_is_merged_in_yaml_is_seen() {
    let node = Node::parse("a: &x {b: one}\nc:\n  <<: *x\n  d: two\n").unwrap();
    assert_eq!((node.text_at("c/b"), node.text_at("c/d")), (Some("one"), Some("two")), "{node:?}");
}
