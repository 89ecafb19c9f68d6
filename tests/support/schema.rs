//! Checks JSON against a JSON Schema, as far as the published ones go. A field that the schema does not name is a fault.

use std::collections::BTreeSet;

use serde_json::Value;

/// What is wrong with `value`, and where.
pub fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    whole(schema, schema, value, "", &mut found);
    found
}

/// Checks a value, and that all its fields are named.
fn whole(root: &Value, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    match named(root, schema, value, path) {
        Err(fault) => found.push(fault),
        Ok(Named { fields, faults }) => {
            found.extend(faults);
            let unknown =
                value.as_object().into_iter().flat_map(|object| object.keys()).find(|name| !fields.contains(*name));
            found.extend(unknown.map(|name| format!("{path}: `{name}` is not in the schema")));
        }
    }
}

/// The fields of a value that a schema names, and what is wrong inside them.
#[derive(Default)]
struct Named {
    fields: BTreeSet<String>,
    faults: Vec<String>,
}

fn named(root: &Value, schema: &Value, value: &Value, path: &str) -> Result<Named, String> {
    let mut found = Named::default();
    if let Some(target) = schema["$ref"].as_str() {
        let target = root.pointer(target.trim_start_matches('#')).ok_or_else(|| format!("no schema `{target}`"))?;
        let inner = named(root, target, value, path)?;
        found.fields.extend(inner.fields);
        found.faults.extend(inner.faults);
    }
    check_value(schema, value, path)?;
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let inner = named(root, part, value, path)?;
        found.fields.extend(inner.fields);
        found.faults.extend(inner.faults);
    }
    for kind in ["anyOf", "oneOf"] {
        let Some(parts) = schema[kind].as_array() else { continue };
        let fitting: Vec<Named> = parts
            .iter()
            .filter_map(|part| named(root, part, value, path).ok())
            .filter(|inner| inner.faults.is_empty())
            .collect();
        if fitting.is_empty() {
            return Err(format!("{path}: {value} is none of {kind}"));
        }
        found.fields.extend(fitting.into_iter().flat_map(|inner| inner.fields));
    }
    of_object(root, schema, value, path, &mut found)?;
    if let Some((items, elements)) = schema.get("items").filter(|items| items.is_object()).zip(value.as_array()) {
        elements.iter().for_each(|element| whole(root, items, element, &format!("{path}[]"), &mut found.faults));
    }
    Ok(found)
}

fn of_object(root: &Value, schema: &Value, value: &Value, path: &str, found: &mut Named) -> Result<(), String> {
    let Some(object) = value.as_object() else { return Ok(()) };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = required.into_iter().find(|name| !object.contains_key(*name)) {
        return Err(format!("{path}: `{missing}` is missing"));
    }
    for (name, inner) in object {
        let named = schema["properties"].get(name);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        if let Some(schema) = named.or(others) {
            found.fields.insert(name.clone());
            whole(root, schema, inner, &format!("{path}.{name}"), &mut found.faults);
        }
    }
    Ok(())
}

/// Type, constant and list of values.
fn check_value(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    if !kinds.is_empty() && !kinds.iter().any(is) {
        return Err(format!("{path}: {value} is not of type {kinds:?}"));
    }
    if schema.get("const").is_some_and(|constant| constant != value) {
        return Err(format!("{path}: {value} is not {}", schema["const"]));
    }
    match schema["enum"].as_array() {
        Some(values) if !values.contains(value) => Err(format!("{path}: {value} is none of {values:?}")),
        _ => Ok(()),
    }
}
