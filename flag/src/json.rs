//! JSON as it is read from the other side: whole first, and then field by field. What serde derives
//! is a parser for each type, and these would be half of the filter's binary. Pure.
//!
//! Stricter than JSON: fields that occur twice are refused, and unknown ones unless a struct says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Any JSON. Numbers with a sign or a fraction occur nowhere in what is read.
#[derive(Debug)]
pub enum Json {
    /// `null`.
    Null,
    /// A number that is never expected.
    Odd,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, in the order of the text.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Those of an object.
    pub(crate) fn fields(self) -> Result<Vec<(String, Json)>, JsonError> {
        let Json::Object(fields) = self else { return Err(JsonError::expected("an object")) };
        Ok(fields)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Json;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(u64::try_from(value).map_or(Json::Odd, Json::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Odd)
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(field) = object.next_entry()? {
            values.push(field);
        }
        Ok(Json::Object(values))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

/// Why something is not what it has to be, and where.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON. What serde says of it is kilobytes of the filter.
    #[error("no JSON from line {}, column {} on", .0.line(), .0.column())]
    Syntax(#[from] serde_json::Error),
    /// Not JSON of this shape.
    #[error("{what}{}{path}", if path.is_empty() { "" } else { " in " })]
    Shape {
        /// From the outside in, like `flags[2].members`.
        path: String,
        /// What is wrong there.
        what: String,
    },
}

impl JsonError {
    fn new(what: String) -> JsonError {
        JsonError::Shape { path: String::new(), what }
    }

    fn expected(what: &str) -> JsonError {
        JsonError::new(format!("expected {what}"))
    }

    /// It came to light inside of this.
    pub(crate) fn inside(mut self, place: &dyn Display) -> JsonError {
        if let JsonError::Shape { path, .. } = &mut self {
            let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
            *path = format!("{place}{dot}{path}");
        }
        self
    }
}

/// What can be read from JSON.
pub trait Read: Sized {
    /// Takes it out of the JSON.
    fn read(json: Json) -> Result<Self, JsonError>;
}

/// Parses a text.
pub fn parse<T: Read>(bytes: &[u8]) -> Result<T, JsonError> {
    T::read(serde_json::from_slice(bytes)?)
}

/// Reads from whatever serde can read from.
pub fn deserialize<'de, T: Read, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(Json::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// An object whose fields are taken one by one. What is wrong comes out at the end, so that a struct
/// can be made without a way out at each field.
#[derive(Debug)]
pub struct Fields {
    fields: Vec<(String, Json)>,
    error: Option<JsonError>,
}

impl Fields {
    /// An object with fields of these names; with no others, unless `others`.
    pub fn of(json: Json, names: &[&str], others: bool) -> Fields {
        match json {
            Json::Object(fields) => Fields { error: surplus(&fields, names, others), fields },
            _ => Fields { error: Some(JsonError::expected("an object")), fields: vec![] },
        }
    }

    fn remove(&mut self, name: &str) -> Option<Json> {
        let place = self.fields.iter().position(|(other, _)| other == name)?;
        Some(self.fields.swap_remove(place).1)
    }

    fn fail(&mut self, error: JsonError) {
        self.error.get_or_insert(error);
    }

    /// A field that has to be there.
    pub fn take<T: Read + Default>(&mut self, name: &str) -> T {
        let Some(json) = self.remove(name) else {
            self.fail(JsonError::new(format!("missing field `{name}`")));
            return T::default();
        };
        self.read(name, json)
    }

    /// A field that need not be there.
    pub fn take_or<T: Read + Default>(&mut self, name: &str, default: impl FnOnce() -> T) -> T {
        match self.remove(name) {
            Some(json) => self.read(name, json),
            None => default(),
        }
    }

    fn read<T: Read + Default>(&mut self, name: &str, json: Json) -> T {
        T::read(json).unwrap_or_else(|error| {
            self.fail(error.inside(&name));
            T::default()
        })
    }

    /// What was made of the fields, if they were all right.
    pub fn done<T>(self, value: T) -> Result<T, JsonError> {
        self.error.map_or(Ok(value), Err)
    }
}

/// A field that should not be there.
fn surplus(fields: &[(String, Json)], names: &[&str], others: bool) -> Option<JsonError> {
    for (place, (name, _)) in fields.iter().enumerate() {
        if !others && !names.contains(&name.as_str()) {
            let name = crate::shortened(name);
            return Some(JsonError::new(format!("unknown field `{name}`, expected {}", one_of(names))));
        }
        if fields.iter().take(place).any(|(other, _)| other == name) {
            return Some(JsonError::new(format!("duplicate field `{name}`")));
        }
    }
    None
}

fn one_of(names: &[&str]) -> String {
    let mut list = String::new();
    for (place, name) in names.iter().enumerate() {
        if place > 0 {
            list.push_str(if place + 1 == names.len() { " or " } else { ", " });
        }
        for part in ["`", name, "`"] {
            list.push_str(part);
        }
    }
    list
}

/// One of a few words.
pub fn word<T: Copy>(json: Json, words: &[(&str, T)]) -> Result<T, JsonError> {
    let text = String::read(json)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        JsonError::new(format!("unknown variant `{}`, expected {}", crate::shortened(&text), one_of(&words)))
    })
}

fn list(json: Json) -> Result<Vec<Json>, JsonError> {
    let Json::List(values) = json else { return Err(JsonError::expected("a list")) };
    Ok(values)
}

fn entry<T: Read>(place: usize, json: Json) -> Result<T, JsonError> {
    T::read(json).map_err(|error| error.inside(&format_args!("[{place}]")))
}

impl Read for bool {
    fn read(json: Json) -> Result<bool, JsonError> {
        let Json::Bool(value) = json else { return Err(JsonError::expected("true or false")) };
        Ok(value)
    }
}

impl Read for u64 {
    fn read(json: Json) -> Result<u64, JsonError> {
        let Json::Number(number) = json else { return Err(JsonError::expected("a whole number")) };
        Ok(number)
    }
}

impl Read for u32 {
    fn read(json: Json) -> Result<u32, JsonError> {
        u32::try_from(u64::read(json)?).map_err(|_| JsonError::expected("a whole number below 2^32"))
    }
}

impl Read for String {
    fn read(json: Json) -> Result<String, JsonError> {
        let Json::Text(text) = json else { return Err(JsonError::expected("a string")) };
        Ok(text)
    }
}

impl<T: Read> Read for Option<T> {
    fn read(json: Json) -> Result<Option<T>, JsonError> {
        if matches!(json, Json::Null) { Ok(None) } else { T::read(json).map(Some) }
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(json: Json) -> Result<Vec<T>, JsonError> {
        let mut values = Vec::new();
        for (place, json) in list(json)?.into_iter().enumerate() {
            values.push(entry(place, json)?);
        }
        Ok(values)
    }
}

impl Read for BTreeSet<String> {
    fn read(json: Json) -> Result<BTreeSet<String>, JsonError> {
        let mut values = BTreeSet::new();
        for (place, json) in list(json)?.into_iter().enumerate() {
            values.insert(entry(place, json)?);
        }
        Ok(values)
    }
}

impl<T: Read> Read for BTreeMap<String, T> {
    fn read(json: Json) -> Result<BTreeMap<String, T>, JsonError> {
        let mut values = BTreeMap::new();
        for (name, json) in json.fields()? {
            let value = T::read(json).map_err(|error| error.inside(&crate::shortened(&name)))?;
            values.insert(name, value);
        }
        Ok(values)
    }
}

/// How a struct is read: its fields with their names in JSON, and what stands for one that is not
/// there. With `..` at the end other fields are left out; what stands after `;` is in no JSON. Reads the struct from serde's formats too.
#[macro_export]
macro_rules! read_fields {
    ($type:ident { $($field:ident: $name:literal $(or $default:expr)?),* $(,)? $(; $more:ident: $value:expr)? }) => {
        $crate::read_fields! { @of $type, false, $($field: $name $(or $default)?),* $(; $more: $value)? }
    };
    ($type:ident { $($field:ident: $name:literal $(or $default:expr)?),*, .. }) => {
        $crate::read_fields! { @of $type, true, $($field: $name $(or $default)?),* }
    };
    (@of $type:ident, $others:literal, $($field:ident: $name:literal $(or $default:expr)?),* $(; $more:ident: $value:expr)?) => {
        impl $crate::json::Read for $type {
            fn read(json: $crate::json::Json) -> Result<Self, $crate::json::JsonError> {
                let mut fields = $crate::json::Fields::of(json, &[$($name),*], $others);
                let value = $type { $($field: $crate::read_fields!(@take fields, $name $(, $default)?),)* $($more: $value)? };
                fields.done(value)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::json::deserialize(deserializer)
            }
        }
    };
    (@take $fields:ident, $name:literal) => { $fields.take($name) };
    (@take $fields:ident, $name:literal, $default:expr) => { $fields.take_or($name, || $default) };
}

/// How an enum is read: its words in JSON. Reads it from serde's formats too.
#[macro_export]
macro_rules! read_words {
    ($type:ident { $($word:literal: $variant:ident),* $(,)? }) => {
        impl $crate::json::Read for $type {
            fn read(json: $crate::json::Json) -> Result<Self, $crate::json::JsonError> {
                $crate::json::word(json, &[$(($word, $type::$variant)),*])
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::json::deserialize(deserializer)
            }
        }
    };
}
