//! The definition of the custom resource.

use cluster::resource::{ResourceStatus, VersionFlag, definition, definition_yaml};
use serde_json::Value;

use crate::objects::parse;

fn schema() -> Value {
    let definition = serde_json::to_value(definition()).unwrap();
    definition.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap().clone()
}

/// Every schema inside a schema, with its path.
fn schemas<'a>(path: &str, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    found.push((path.to_owned(), value));
    for (key, inner) in value.get("properties").and_then(Value::as_object).into_iter().flatten() {
        schemas(&format!("{path}.{key}"), inner, found);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = value.get(key).filter(|inner| inner.is_object()) {
            schemas(&format!("{path}.{key}"), inner, found);
        }
    }
}

#[test]
fn the_schema_is_structural() {
    let (schema, mut found) = (schema(), vec![]);
    schemas("", &schema, &mut found);
    assert!(found.len() > 80, "{}", found.len());
    for (path, schema) in found {
        assert!(schema.get("type").is_some_and(Value::is_string), "{path}: {schema}");
        for word in ["oneOf", "anyOf", "allOf", "not", "$ref", "uniqueItems"] {
            assert!(schema.get(word).is_none(), "{path} has {word}: {schema}");
        }
        let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        assert!(!closed || schema.get("properties").is_none(), "{path}: {schema}");
        let format = schema.get("format").and_then(Value::as_str);
        assert!(matches!(format, None | Some("int32" | "int64" | "date-time")), "{path}: {format:?}");
    }
}

#[test]
fn every_field_of_the_spec_but_two_has_a_default() {
    let schema = schema();
    let spec = schema.pointer("/properties/spec").unwrap();
    assert_eq!(spec["required"], serde_json::json!(["services", "version"]));
    let small: VersionFlag = parse(
        "{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {name: reviews}, \
         spec: {version: v1, services: [{name: reviews}]}}",
    );
    let mut filled = serde_json::to_value(&small.spec).unwrap();
    let fields = filled.as_object_mut().unwrap();
    for (name, value) in fields.iter().filter(|(name, _)| *name != "version" && *name != "services") {
        assert_eq!(spec.pointer(&format!("/properties/{name}/default")), Some(value), "{name}");
    }
    assert!(small.spec.validate().is_empty(), "{:?}", small.spec.validate());
}

#[test]
fn every_field_says_what_it_is() {
    let (schema, mut found) = (schema(), vec![]);
    schemas("", schema.pointer("/properties/spec").unwrap(), &mut found);
    schemas("", schema.pointer("/properties/status").unwrap(), &mut found);
    for (path, schema) in found {
        let plain = path.contains(".items") || path.contains(".additionalProperties");
        assert!(plain || schema.get("description").is_some(), "{path}: {schema}");
    }
}

#[test]
fn a_status_that_was_written_is_read() {
    let status: ResourceStatus = parse("{phase: Stable, fromAnotherVersion: true}");
    assert_eq!(serde_json::to_value(status).unwrap(), serde_json::json!({ "phase": "Stable" }));
}

#[test]
fn the_manifest_is_the_definition() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/kubernetes/crd.yaml");
    let manifest = std::fs::read_to_string(path).unwrap();
    assert!(manifest == definition_yaml().unwrap(), "{path} is not what `make manifests` makes");
}
