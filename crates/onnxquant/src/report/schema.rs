//! What a report looks like as JSON.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::error::Error;
use crate::report::run::Report;

/// The JSON Schema of [`Report`], as text.
///
/// # Errors
/// None but defects of this program.
pub fn report_schema() -> Result<String, Error> {
    schema_of::<Report>()
}

/// The JSON Schema of what `T` is written as.
fn schema_of<T: JsonSchema>() -> Result<String, Error> {
    let generator = SchemaSettings::draft2020_12().for_serialize().with_transform(MayBeNull).into_generator();
    let schema = generator.into_root_schema_for::<T>();
    let text = serde_json::to_string_pretty(&schema).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(text + "\n")
}

/// JSON has no numbers that are not finite: `null` stands for them.
#[derive(Clone, Debug)]
struct MayBeNull;

impl Transform for MayBeNull {
    fn transform(&mut self, schema: &mut Schema) {
        if schema.get("type").and_then(Value::as_str) == Some("number") {
            schema.insert("type".to_owned(), serde_json::json!(["number", "null"]));
        }
        transform_subschemas(self, schema);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_that_of_reports() {
        let published = include_str!("../../../../docs/report.schema.json");
        let remedy = "write it anew: `onnxquant report --schema > docs/report.schema.json`";
        assert!(published == report_schema().unwrap(), "docs/report.schema.json is not current: {remedy}");
    }
}
