//! A configuration as a tree that keeps the order of its keys, and knows where in its text each part stands. Pure.

use local::yaml::{Raw, RawKind, raw_documents};
use serde_json::Value;
use serde_saphyr::Location;

/// One value of a configuration.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Node {
    /// Where it begins in the text that it was read from, in bytes; nothing of it was read where there is none.
    pub(super) at: Option<usize>,
    /// A scalar as it stands in the text, where it does so without quotes and in one word: Envoy reads `1.10`, `010` and
    /// `1_000` otherwise than most.
    pub(super) plain: Option<String>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Two are alike when Envoy reads the same from both.
impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Scalar(one), Kind::Scalar(other)) => one == other,
            (Kind::List(one), Kind::List(other)) => one == other,
            (Kind::Map(one), Kind::Map(all)) => {
                one.len() == all.len() && one.iter().all(|(name, value)| other.exactly(name) == Some(value))
            }
            _ => false,
        }
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Node {
        let kind = match value {
            Value::Array(all) => Kind::List(all.into_iter().map(Node::from).collect()),
            Value::Object(all) => Kind::Map(all.into_iter().map(|(name, one)| (name, Node::from(one))).collect()),
            scalar => Kind::Scalar(scalar),
        };
        Node { at: None, plain: None, kind }
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Node {
        Node::from(Value::from(text))
    }
}

/// Whether a key of a configuration is this field: Envoy takes `http_filters` and `httpFilters`.
fn is_field(key: &str, field: &str) -> bool {
    if key == field {
        return true;
    }
    let mut snake = String::with_capacity(key.len());
    for letter in key.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake == field
}

/// A word at the begin of this that means the same in a block and in brackets.
fn word(text: &str) -> Option<String> {
    let is_end = |letter: char| letter.is_whitespace() || ",]}".contains(letter);
    let word = text.split(is_end).next().unwrap_or_default();
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+.-/".contains(&byte));
    (is_plain && word.bytes().any(|byte| byte.is_ascii_alphanumeric())).then(|| word.to_owned())
}

impl Node {
    /// The only document of a text, as YAML or JSON.
    pub(in crate::cli) fn parse(text: &str) -> Result<Node, String> {
        let mut documents = raw_documents(text).map_err(|wrong| wrong.to_string())?.into_iter();
        let (Some(only), None) = (documents.next(), documents.next()) else {
            return Err("it is empty, or has several documents: one is needed".to_owned());
        };
        let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).chain([text.len()]).collect();
        Node::of(only, text, &starts)
    }

    fn of(raw: Raw, text: &str, starts: &[usize]) -> Result<Node, String> {
        let start =
            |place: Location| usize::try_from(place.span().offset()).ok().and_then(|at| starts.get(at)).copied();
        // Where it stands behind an alias, it is written down elsewhere.
        let (at, written) = (start(raw.0.referenced), start(raw.0.defined));
        let plain = written.and_then(|at| word(text.get(at..)?)).filter(|word| match &raw.0.value {
            RawKind::Scalar(Value::String(text)) => text == word,
            RawKind::Scalar(_) => true,
            _ => false,
        });
        let kind = match raw.0.value {
            RawKind::Scalar(value) => Kind::Scalar(value),
            RawKind::List(all) => {
                Kind::List(all.into_iter().map(|one| Node::of(one, text, starts)).collect::<Result<_, _>>()?)
            }
            RawKind::Map(all) => {
                let entry = |(key, value): (Raw, Raw)| {
                    let place = key.0.referenced;
                    let name = match key.0.value {
                        RawKind::Scalar(Value::String(name)) => name,
                        RawKind::Scalar(Value::Number(number)) => number.to_string(),
                        _ => {
                            let (line, column) = (place.line(), place.column());
                            return Err(format!("line {line}, column {column}: a name is no text: put it in quotes"));
                        }
                    };
                    Ok((name, Node::of(value, text, starts)?))
                };
                Kind::Map(all.into_iter().map(entry).collect::<Result<_, _>>()?)
            }
        };
        Ok(Node { at, plain, kind })
    }

    pub(super) fn list(all: Vec<Node>) -> Node {
        Node { at: None, plain: None, kind: Kind::List(all) }
    }

    pub(super) fn map<const N: usize>(all: [(&str, Node); N]) -> Node {
        let all = all.into_iter().map(|(name, one)| (name.to_owned(), one)).collect();
        Node { at: None, plain: None, kind: Kind::Map(all) }
    }

    /// The same, as if it had been read nowhere.
    pub(super) fn fresh(&self) -> Node {
        let kind = match &self.kind {
            Kind::Scalar(value) => Kind::Scalar(value.clone()),
            Kind::List(all) => Kind::List(all.iter().map(Node::fresh).collect()),
            Kind::Map(all) => Kind::Map(all.iter().map(|(name, one)| (name.clone(), one.fresh())).collect()),
        };
        Node { at: None, plain: self.plain.clone(), kind }
    }

    /// The value of a key that is spelled like this.
    pub(super) fn exactly(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Scalar(Value::Null))
    }

    /// The keys and values of a map.
    pub(super) fn entries(&self) -> &[(String, Node)] {
        if let Kind::Map(all) = &self.kind { all } else { &[] }
    }

    /// The values of a list.
    pub(in crate::cli) fn items(&self) -> &[Node] {
        if let Kind::List(all) = &self.kind { all } else { &[] }
    }

    /// What is below, by fields and numbers of list items with `/` between them; itself by the empty path.
    pub(in crate::cli) fn find(&self, path: &str) -> Option<&Node> {
        path.split('/').filter(|step| !step.is_empty()).try_fold(self, |node, step| match &node.kind {
            Kind::List(all) => all.get(step.parse::<usize>().ok()?),
            Kind::Map(all) => all.iter().find(|(key, _)| is_field(key, step)).map(|(_, value)| value),
            Kind::Scalar(_) => None,
        })
    }

    /// The same, to be changed.
    pub(super) fn find_mut(&mut self, path: &str) -> Option<&mut Node> {
        path.split('/').filter(|step| !step.is_empty()).try_fold(self, |node, step| match &mut node.kind {
            Kind::List(all) => all.get_mut(step.parse::<usize>().ok()?),
            Kind::Map(all) => all.iter_mut().find(|(key, _)| is_field(key, step)).map(|(_, value)| value),
            Kind::Scalar(_) => None,
        })
    }

    /// The items of a list below; none where there is no list.
    pub(in crate::cli) fn list_at(&self, path: &str) -> &[Node] {
        self.find(path).map_or(&[], Node::items)
    }

    /// The text below.
    pub(in crate::cli) fn text_at(&self, path: &str) -> Option<&str> {
        match &self.find(path)?.kind {
            Kind::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The truth below.
    pub(in crate::cli) fn is_true(&self, path: &str) -> bool {
        matches!(self.find(path).map(|node| &node.kind), Some(Kind::Scalar(Value::Bool(true))))
    }

    /// The number below.
    pub(in crate::cli) fn number_at(&self, path: &str) -> Option<u64> {
        match &self.find(path)?.kind {
            Kind::Scalar(value) => value.as_u64(),
            _ => None,
        }
    }

    /// Gives a field of a map this value, where it has it already or at the end. A map it has to be.
    pub(super) fn set(&mut self, field: &str, value: Node) {
        let Kind::Map(all) = &mut self.kind else { return };
        match all.iter_mut().find(|(key, _)| is_field(key, field)) {
            Some((_, old)) if *old == value => {}
            // What replaces a scalar stands where that did.
            Some((_, old)) => *old = Node { at: old.at, ..value },
            None => all.push((field.to_owned(), value)),
        }
    }

    /// Takes a field out of a map.
    pub(super) fn remove(&mut self, field: &str) {
        if let Kind::Map(all) = &mut self.kind {
            all.retain(|(key, _)| !is_field(key, field));
        }
    }

    /// The list that a field of a map has; an empty one where it has none yet. Nothing where this is no map, or the
    /// field is no list.
    pub(super) fn list_mut(&mut self, field: &str) -> Option<&mut Vec<Node>> {
        if self.find(field).is_none_or(Node::is_null) {
            self.set(field, Node::list(vec![]));
        }
        match &mut self.find_mut(field)?.kind {
            Kind::List(all) => Some(all),
            _ => None,
        }
    }

    /// The map that a field of a map has; an empty one where it has none yet.
    pub(super) fn map_mut(&mut self, field: &str) -> Option<&mut Node> {
        if self.find(field).is_none_or(Node::is_null) {
            self.set(field, Node::map([]));
        }
        self.find_mut(field).filter(|node| matches!(node.kind, Kind::Map(_)))
    }
}
