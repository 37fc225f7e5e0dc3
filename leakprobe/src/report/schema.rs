//! The JSON Schema of a report, `docs/report.schema.json`: written from the types, so that it says what they say.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{Report, SCHEMA};

/// The schema of what leakprobe writes: every field is there, and null where nothing is known.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<Report>();
    schema.insert("title".to_owned(), SCHEMA.into());
    if let Some(named) = schema.pointer_mut("/properties/schema") {
        named["const"] = SCHEMA.into();
    }
    schema.to_value()
}
