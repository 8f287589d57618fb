//! Names of routes, by which a proxy shows which routes it has. Pure.
//!
//! `versionflag:NAME:v1,v2` says that the routes of the flag NAME resolve v1 and v2.
//! `versionflag:NAME:v1,v2:v1` also says where requests without a version go; routes that the
//! controller writes have this form. Istio puts the name of a VirtualService that delegates before
//! it. A route of any other name is not ours to judge; but `default` is Istio's own, where it has no
//! VirtualService, and `allow_any` and `block_all` are, where the Service is hidden from the proxy.
//!
//! A rule of the Gateway API has a name that is unique in its route, and made of DNS labels. There
//! `versionflag.RULE.v1.v1.v2` says the same: the number of the rule, the default, all versions; or
//! `versionflag.RULE.HASH` where that would be too long.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::digest;
use crate::limits;
use crate::record::Record;

const PREFIX: &str = "versionflag:";
const RULE_PREFIX: &str = "versionflag.";
const NO_VIRTUAL_SERVICE: &str = "default";
/// Istio's routes for what a proxy is not told of.
const ALLOW_ANY: &str = "allow_any";
const BLOCK_ALL: &str = "block_all";

/// In place of routes of which there are too many: it leads nowhere.
pub(crate) const MORE: &str = "versionflag:too many:";

/// Whether a name may say something of versions.
pub(crate) fn says(route: &str) -> bool {
    // `contains` is some kilobytes of the filter.
    let mut parts = route.as_bytes().windows(11);
    matches!(route, NO_VIRTUAL_SERVICE | ALLOW_ANY | BLOCK_ALL) || parts.any(|part| part == b"versionflag")
}

/// The name of the routes for a record.
pub fn name(record: &Record) -> String {
    let versions: Vec<&str> = record.versions.iter().map(String::as_str).collect();
    format!("{PREFIX}{}:{}:{}", record.name, versions.join(","), record.active)
}

/// The name of routes for these versions whose default is not known.
pub fn name_of_versions<'a>(name: &str, versions: impl IntoIterator<Item = &'a str>) -> String {
    let versions: Vec<&str> = versions.into_iter().collect();
    format!("{PREFIX}{name}:{}", versions.join(","))
}

/// The name of one rule of the Gateway API for a record.
pub fn rule_name(record: &Record, rule: usize) -> String {
    let words = words(&record.active, &record.versions);
    let name = format!("{RULE_PREFIX}{rule}.{words}");
    if name.len() <= limits::NAME_BYTES { name } else { format!("{RULE_PREFIX}{rule}.{}", hash(&words)) }
}

fn words(default: &str, versions: &BTreeSet<String>) -> String {
    let all = [default].into_iter().chain(versions.iter().map(String::as_str));
    all.map(word).collect::<Vec<String>>().join(".")
}

fn hash(words: &str) -> String {
    digest::hex_prefix(words.as_bytes(), 12)
}

/// A version as a DNS label. What that may not have is `z` and two digits.
fn word(version: &str) -> String {
    let letter = |byte: u8| match byte {
        b'z' => "zz".to_owned(),
        b'a'..=b'y' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        other => format!("z{other:02x}"),
    };
    version.bytes().map(letter).collect()
}

/// The version that a word stands for. One that is no word stands for itself.
fn version(word: &str) -> Cow<'_, str> {
    if !word.contains('z') {
        return word.into();
    }
    let (mut version, mut rest) = (String::new(), word);
    while let Some((plain, coded)) = rest.split_once('z') {
        version.push_str(plain);
        let byte = coded.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (letter, length) = match byte {
            _ if coded.starts_with('z') => ('z', 1),
            Some(byte) => (char::from(byte), 2),
            None => return word.into(),
        };
        version.push(letter);
        rest = coded.get(length..).unwrap_or_default();
    }
    version.push_str(rest);
    version.into()
}

/// What the name of a route says: the versions that it lists, and the default.
struct Says<'a> {
    versions: BTreeSet<Cow<'a, str>>,
    default: Option<Cow<'a, str>>,
}

fn read(route: &str) -> Option<Says<'_>> {
    if let Some(rule) = route.strip_prefix(RULE_PREFIX) {
        let mut words = rule.split('.').skip(1).map(version);
        let default = words.next()?;
        return Some(Says { versions: words.collect(), default: Some(default) });
    }
    let (_, rest) = route.split_once(PREFIX)?.1.split_once(':')?;
    let (versions, default) = match rest.split_once(':') {
        Some((versions, default)) => (versions, Some(default.into())),
        None => (rest, None),
    };
    Some(Says { versions: versions.split(',').map(Cow::from).collect(), default })
}

/// What the name of a route in use says, if it says something of ours. The error is what keeps it from leading to `wanted`.
fn leading<'a>(route: &'a str, record: &Record, wanted: &str) -> Result<Option<Says<'a>>, String> {
    if route == NO_VIRTUAL_SERVICE && !record.namespace.is_empty() {
        return Err("no route of the flag reached it yet".to_owned());
    }
    if matches!(route, ALLOW_ANY | BLOCK_ALL) && !record.namespace.is_empty() {
        return Err(format!(
            "the Service is hidden from it, by the egress of a Sidecar or by exportTo (route {route:?})"
        ));
    }
    match read(route) {
        Some(Says { versions, .. }) if !versions.is_empty() && !versions.contains(wanted) => {
            Err(format!("its route {route:?} does not list {wanted}"))
        }
        says => Ok(says),
    }
}

/// What keeps a route in use from leading to `wanted`, wherever requests without a version go there.
pub fn misses(route: &str, record: &Record, wanted: &str) -> Option<String> {
    let says = match leading(route, record, wanted) {
        Ok(says) => says?,
        Err(why) => return Some(why),
    };
    let known = |default: &String| is_hash_of(&says, default, record, wanted);
    (says.versions.is_empty() && !record.versions.iter().any(known)).then(|| not_known(route))
}

/// Whether a name without versions is that of the routes with this default and the record's versions.
fn is_hash_of(says: &Says<'_>, default: &str, record: &Record, wanted: &str) -> bool {
    let known = says.default.as_ref().is_some_and(|known| *known == hash(&words(default, &record.versions)));
    known && record.versions.contains(wanted)
}

fn not_known(route: &str) -> String {
    format!("its route {route:?} is not the one for these versions")
}

/// What keeps a route in use from serving the record, and `wanted` besides.
pub fn lacks(route: &str, record: &Record, wanted: &str) -> Option<String> {
    let says = match leading(route, record, wanted) {
        Ok(says) => says?,
        Err(why) => return Some(why),
    };
    if says.versions.is_empty() {
        return (!is_hash_of(&says, &record.active, record, wanted)).then(|| not_known(route));
    }
    let Says { versions, default } = says;
    let default = default?;
    if default != record.active {
        return Some(format!("requests without a version still go to {default} there (route {route:?})"));
    }
    let gone = versions.into_iter().find(|version| !record.versions.contains(version.as_ref()))?;
    Some(format!("its route {route:?} still leads to {gone}"))
}
