//! What may stand in the file of the operator, as JSON Schema. Pure.

use flag::config::Role;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::file::File;

pub mod fields;

/// The JSON Schema (draft-07, which editors understand best) of one document of the file. It knows each field, its type
/// and its default; what fields have to be together only `lint` and the controller know.
pub fn schema() -> Schema {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    // Rules in the language of API servers are for them alone.
    let settings = settings.with_transform(RecursiveTransform(|schema: &mut Schema| {
        schema.remove("x-kubernetes-validations");
    }));
    settings.into_generator().into_root_schema_for::<File>()
}

/// The contract between filter and controller has no schema of its own.
pub(super) fn role(_: &mut SchemaGenerator) -> Schema {
    let all = [
        (Role::Auto, "A caller, or in a gateway of Istio's an edge."),
        (Role::Caller, "Beside a caller: it chooses the version."),
        (Role::Edge, "Facing clients that are not trusted: it chooses, and takes away what they send."),
        (Role::Inbound, "In front of a version: it sees what arrives there."),
    ];
    let one = |(role, description)| json_schema!({ "const": role, "description": description });
    json_schema!({ "oneOf": all.map(one) })
}
