//! YAML documents whose values know where they stand, read as an API server is sent them: a value has the type that it
//! has there, whatever is asked for. Pure.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use serde_saphyr::{Error, Location, MessageFormatter, Spanned, UserMessageFormatter};

use machine::mismatch::sentence;

/// Values of one document that are said to be of another form, at most.
const SAID: usize = 50;
/// Where something stands in a text, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl Place {
    fn of(location: Location) -> Option<Place> {
        let (line, column) = (location.line(), location.column());
        (line > 0).then_some(Place { line, column })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One thing that is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Where, as far as that is known.
    pub place: Option<Place>,
    /// What.
    pub message: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "{place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// What is wrong with a text that is not YAML.
pub fn malformed(error: &Error) -> Wrong {
    let message = match error.without_snippet() {
        Error::Budget { .. } => "it is too large, or too deep".to_owned(),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("{key} is there twice"),
        // It may repeat what the text has.
        error => UserMessageFormatter
            .format_message(error)
            .escape_debug()
            .to_string()
            .replace("\\'", "'")
            .replace("\\\"", "\""),
    };
    Wrong { place: error.location().and_then(Place::of), message }
}

/// A value as it stands in the text, with its keys in their order.
#[derive(Debug)]
pub struct Raw(pub Spanned<RawKind>);

/// What a value of the text is.
#[derive(Debug)]
pub enum RawKind {
    /// Text, a number, true, false or nothing.
    Scalar(Value),
    /// Its values.
    List(Vec<Raw>),
    /// Its keys and values.
    Map(Vec<(Raw, Raw)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        Spanned::deserialize(deserializer).map(Raw)
    }
}

impl<'de> Deserialize<'de> for RawKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawKind, D::Error> {
        deserializer.deserialize_any(AnyKind)
    }
}

/// Takes what there is.
struct AnyKind;

impl<'de> Visitor<'de> for AnyKind {
    type Value = RawKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawKind, E> {
        Ok(RawKind::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawKind, E> {
        Ok(RawKind::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawKind, E> {
        Ok(RawKind::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawKind, E> {
        Ok(RawKind::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawKind, E> {
        Ok(RawKind::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawKind, D::Error> {
        deserializer.deserialize_any(AnyKind)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawKind, A::Error> {
        let mut all = vec![];
        while let Some(one) = list.next_element()? {
            all.push(one);
        }
        Ok(RawKind::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawKind, A::Error> {
        let mut all = vec![];
        while let Some(entry) = map.next_entry()? {
            all.push(entry);
        }
        Ok(RawKind::Map(all))
    }
}

/// A value, and where it stands.
#[derive(Debug)]
struct Node {
    place: Option<Place>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    /// Each has the place of its key.
    Map(Vec<(String, Node)>),
}

impl Node {
    fn of(raw: Raw) -> Result<Node, Wrong> {
        let Raw(Spanned { value, referenced, .. }) = raw;
        let kind = match value {
            RawKind::Scalar(value) => Kind::Scalar(value),
            RawKind::List(all) => Kind::List(all.into_iter().map(Node::of).collect::<Result<_, _>>()?),
            RawKind::Map(all) => {
                let entry = |(key, value): (Raw, Raw)| {
                    let (name, place) = name_of(key)?;
                    Ok((name, Node { place, ..Node::of(value)? }))
                };
                Kind::Map(all.into_iter().map(entry).collect::<Result<_, _>>()?)
            }
        };
        Ok(Node { place: Place::of(referenced), kind })
    }

    fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(all) => all.iter().map(Node::value).collect(),
            Kind::Map(all) => all.iter().map(|(name, one)| (name.clone(), one.value())).collect::<Map<_, _>>().into(),
        }
    }

    /// What a sentence is about that begins with such a path and may name the value there in quotes, and whether all
    /// of the path is there.
    fn find(&self, path: &str, value: Option<&str>) -> (Option<Place>, bool) {
        let path = path.strip_prefix('.').unwrap_or(path);
        match &self.kind {
            _ if path.is_empty() => {
                let is_it = match (&self.kind, value) {
                    (Kind::Scalar(Value::String(text)), Some(value)) => text == value,
                    _ => true,
                };
                (self.place, is_it)
            }
            Kind::Scalar(_) => (self.place, false),
            Kind::List(all) => {
                let index = path.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                if let Some((index, rest)) = index {
                    let one = index.parse().ok().and_then(|index: usize| all.get(index));
                    return one.map_or((self.place, false), |one| one.find(rest, value));
                }
                let mut found = all.iter().map(|one| one.find(path, value)).filter(|(_, whole)| *whole);
                found.next().unwrap_or((self.place, false))
            }
            Kind::Map(all) => {
                let rest = |name: &str| {
                    let rest = path.strip_prefix(name)?;
                    (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
                };
                // A name may have dots.
                let fits = all.iter().filter_map(|(name, one)| Some((name.len(), rest(name)?, one)));
                let longest = fits.max_by_key(|(length, ..)| *length);
                longest.map_or((self.place, false), |(_, rest, one)| one.find(rest, value))
            }
        }
    }
}

fn name_of(key: Raw) -> Result<(String, Option<Place>), Wrong> {
    let Raw(Spanned { value, referenced, .. }) = key;
    let place = Place::of(referenced);
    match value {
        RawKind::Scalar(Value::String(name)) => Ok((name, place)),
        RawKind::Scalar(Value::Number(number)) if !number.is_f64() => Ok((number.to_string(), place)),
        RawKind::Scalar(value) => Err(Wrong { place, message: format!("a name is read as {value}: put it in quotes") }),
        _ => Err(Wrong { place, message: "a name is a list or a mapping: it has to be text".to_owned() }),
    }
}

/// One document.
#[derive(Debug)]
pub struct Document(Node);

/// All documents of a text as they stand there, but those that are empty.
pub fn raw_documents(text: &str) -> Result<Vec<Raw>, Wrong> {
    serde_saphyr::from_multiple(text).map_err(|error| malformed(&error))
}

/// All documents of a text, but those that are empty.
pub fn documents(text: &str) -> Result<Vec<Document>, Wrong> {
    raw_documents(text)?.into_iter().map(|raw| Node::of(raw).map(Document)).collect()
}

/// The only document of a text.
pub fn only_document(text: &str) -> Result<Document, Wrong> {
    let one = <[Document; 1]>::try_from(documents(text)?);
    one.map(|[one]| one).map_err(|all| match all.get(1) {
        Some(second) => Wrong { place: second.0.place, message: format!("it has {} documents, not one", all.len()) },
        None => Wrong { place: None, message: "it is empty".to_owned() },
    })
}

impl Document {
    /// As an API server is sent it.
    pub fn value(&self) -> Value {
        self.0.value()
    }

    /// What is wrong, with the place that its sentence begins with.
    pub fn wrong(&self, message: String) -> Wrong {
        let path = message.split([' ', ':']).next().unwrap_or_default().trim_end_matches('.');
        let value = message.get(path.len()..).and_then(|rest| rest.split('"').nth(1));
        let (place, whole) = self.0.find(path, value);
        Wrong { place: place.filter(|_| whole || place != self.0.place), message }
    }

    /// The document as a type; or every value of it that has another form.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Vec<Wrong>> {
        let (mut value, mut wrong, mut taken) = (self.value(), vec![], vec![]);
        loop {
            let error = match serde_path_to_error::deserialize(&value) {
                Ok(read) if wrong.is_empty() => return Ok(read),
                Ok::<T, _>(_) => return Err(in_order(wrong)),
                Err(error) => error,
            };
            let path = error.path().to_string();
            let message = sentence(&path, &error.inner().to_string());
            // What was taken out is missing.
            if !taken.iter().any(|name| message == format!("{name} is missing")) {
                wrong.push(Wrong { place: self.0.find(&path, None).0, message });
            }
            // Without it all else is looked at.
            match take_out(&mut value, error.path()) {
                Some(path) if wrong.len() < SAID => taken.push(path),
                _ => return Err(in_order(wrong)),
            }
        }
    }
}

fn in_order(mut wrong: Vec<Wrong>) -> Vec<Wrong> {
    wrong.sort_by_key(|one| one.place);
    wrong
}

/// Takes out the value at a path, or the list that it is in: the places of its neighbours are to stay theirs. The path
/// of what went, if anything did.
fn take_out(value: &mut Value, path: &serde_path_to_error::Path) -> Option<String> {
    let mut names: Vec<String> = vec![];
    let mut last = 0;
    for segment in path {
        match segment {
            Segment::Seq { index } => names.push(index.to_string()),
            Segment::Map { key } => {
                names.push(key.clone());
                last = names.len();
            }
            Segment::Enum { variant } => names.push(variant.clone()),
            Segment::Unknown => break,
        }
    }
    names.truncate(last);
    let name = names.pop()?;
    let above = names.iter().try_fold(value, |value, name| match value {
        Value::Array(all) => all.get_mut(name.parse::<usize>().ok()?),
        value => value.get_mut(name),
    })?;
    above.as_object_mut()?.remove(&name)?;
    let mut said = String::new();
    for name in names.iter().chain([&name]) {
        let is_index = name.parse::<usize>().is_ok();
        said.push_str(&if is_index { format!("[{name}]") } else { format!(".{name}") });
    }
    Some(said.trim_start_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::number("a: 1", json!({ "a": 1 }))]
    #[case::float("a: 1.10", json!({ "a": 1.1 }))]
    #[case::quoted("a: '1'", json!({ "a": "1" }))]
    #[case::word("a: on", json!({ "a": true }))]
    #[case::quoted_word("a: \"on\"\nb: 'no'", json!({ "a": "on", "b": "no" }))]
    #[case::empty("a:", json!({ "a": null }))]
    #[case::text("a: v1\nb: |\n  on\n", json!({ "a": "v1", "b": "on\n" }))]
    #[case::key("1: a\nb: b", json!({ "1": "a", "b": "b" }))]
    #[case::anchored("a: &x [1, {b: off}]\nc: *x", json!({ "a": [1, { "b": false }], "c": [1, { "b": false }] }))]
    fn a_value_is_what_an_api_server_is_sent(#[case] text: &str, #[case] expected: Value) {
        assert_eq!(only_document(text).map(|document| document.value()), Ok(expected));
    }

    #[rstest]
    #[case::flow("a: {", "line 1, column 4: ")]
    #[case::twice("a: 1\na: 2\n", "line 2, column 1: a is there twice")]
    #[case::key("a: 1\n1.10: 2\n", "line 2, column 1: a name is read as 1.1: put it in quotes")]
    #[case::word("n: 2\n", "line 1, column 1: a name is read as false: put it in quotes")]
    #[case::two("a: 1\n---\na: 2\n", "line 3, column 1: it has 2 documents, not one")]
    #[case::none("# nothing\n", "it is empty")]
    fn what_is_no_document_is_said_with_its_place(#[case] text: &str, #[case] expected: &str) {
        let said = only_document(text).map(|_| ()).unwrap_err().to_string();
        assert!(said.starts_with(expected), "{said}");
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        #[serde(rename = "name")]
        _name: String,
        #[serde(rename = "more", default)]
        _more: Vec<Asked>,
        #[serde(rename = "is", default)]
        _is: bool,
    }

    /// T13
    #[test]
    fn all_that_has_another_form_is_said_with_its_place() {
        let text = "name: 1\nmore:\n- name: a\n  nmae: b\n- name: 2\n  is: [1]\nis: maybe\n";
        let wrong = only_document(text).unwrap().read::<Asked>().unwrap_err();
        let said: Vec<String> = wrong.iter().map(Wrong::to_string).collect();
        let expected = [
            "line 1, column 1: name is read as the number 1: put it in quotes",
            "line 4, column 3: more[0].nmae is not a field (did you mean name?): there are name, more, is",
            "line 5, column 3: more[1].name is read as the number 2: put it in quotes",
            "line 6, column 3: more[1].is is a list, and has to be true or false",
            "line 7, column 1: is is the text \"maybe\", and has to be true or false",
        ];
        assert_eq!(said, expected);
    }

    #[rstest]
    #[case("a.v1.2.b is empty", Some(4))]
    #[case("a.v1.c: it is wrong", Some(2))]
    #[case("l.k \"w\" is wrong", Some(8))]
    #[case("l.k \"z\" is wrong", Some(6))]
    #[case("nothing of that", None)]
    fn a_sentence_has_the_place_of_what_it_is_about(#[case] sentence: &str, #[case] line: Option<u64>) {
        let text = "a:\n  v1: {}\n  v1.2:\n    b:\n    c:\nl:\n- k: x\n- k: w\n";
        let wrong = only_document(text).unwrap().wrong(sentence.to_owned());
        assert_eq!(wrong.place.map(|place| place.line), line);
    }
}
