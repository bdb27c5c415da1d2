//! The JSON Schema of the manifest, generated from the types, with the reference's texts as descriptions.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::model::Manifest;
use crate::preset::Operations;
use crate::reference;
use crate::words::Word;

/// Gives the JSON Schema (draft 2020-12) of a manifest, for editors and validators.
pub fn schema() -> Value {
    let mut schema = generate::<Manifest>();
    if let Some(properties) = schema.pointer_mut("/properties/spec/properties").and_then(Value::as_object_mut)
    {
        properties.insert("operations".to_owned(), generate::<Operations>());
    }
    if let Value::Object(root) = &mut schema {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("hac.toml"));
    }
    describe(&mut schema, "");
    schema
}

/// Generates a schema without references, which every editor follows.
fn generate<T: schemars::JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The keys of each table that have no default.
fn required(path: &str) -> &'static [&'static str] {
    match path {
        "" => &["spec"],
        "spec" => &["deployment"],
        "spec.deployment" => &["image"],
        "spec.mounts[]" => &["destination"],
        "spec.sidecars[]" => &["name", "image"],
        _ => &[],
    }
}

/// Replaces descriptions by the reference's and sets what must be given, from `path` down.
fn describe(schema: &mut Value, path: &str) {
    let Value::Object(object) = schema else { return };
    object.remove("title").filter(|_| path.is_empty()).map(|title| object.insert("title".to_owned(), title));
    object.remove("required");
    // serde and schemars call whole numbers by their Rust types, which no validator knows.
    object.remove("format");
    match reference::effect_of(path) {
        Some(effect) => object.insert("description".to_owned(), json!(effect)),
        None => object.remove("description"),
    };
    if object.contains_key("properties") && !required(path).is_empty() {
        object.insert("required".to_owned(), json!(required(path)));
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (key, property) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            describe(property, &path);
        }
    }
    if let Some(items) = object.get_mut("items") {
        describe(items, &format!("{path}[]"));
    }
    // Environment variables and labels take what people write.
    if matches!(
        path,
        "spec.deployment.env" | "spec.sidecars[].env" | "metadata.labels" | "spec.placement.attributes"
    ) {
        object.insert("additionalProperties".to_owned(), json!({ "type": ["string", "number", "boolean"] }));
    }
    if path.ends_with(".command[]") || path.ends_with(".args[]") {
        object.insert("type".to_owned(), json!(["string", "number", "boolean"]));
    }
    if path == "spec.deployment.user" {
        object.insert("type".to_owned(), json!(["string", "integer", "null"]));
    }
    if path == "spec.networking.inbound_ports" {
        object.insert(
            "additionalProperties".to_owned(),
            json!({ "type": "integer", "minimum": 1, "maximum": 65535 }),
        );
    }
}

/// Gives the words that are allowed at a path; empty if it takes anything else.
pub(crate) fn words_at(path: &str) -> Vec<String> {
    use crate::model::*;
    fn of<T: Word>() -> Vec<String> {
        T::spellings().into_iter().map(str::to_owned).collect()
    }
    match path {
        "apiVersion" => of::<ApiVersion>(),
        "kind" => of::<Kind>(),
        "spec.resources.accelerators[].kind" => of::<AcceleratorKind>(),
        "spec.resources.class" => of::<Class>(),
        "spec.virtualization.type" => of::<Isolation>(),
        "spec.virtualization.provider" => of::<Provider>(),
        "spec.virtualization.accel" => of::<Accel>(),
        "spec.virtualization.criteria.security" | "spec.virtualization.criteria.performance" => of::<Level>(),
        "spec.networking.network_type" => of::<NetworkType>(),
        "spec.checks[].type" => of::<CheckKind>(),
        "spec.security.attestation" => of::<Attestation>(),
        "spec.security.isolation" => of::<SecurityModule>(),
        "spec.observability.monitoring" => of::<MonitoringTool>(),
        "spec.observability.logging" => of::<LoggingTool>(),
        "spec.observability.anomalies" => of::<AnomalyAction>(),
        "spec.operations.updateStrategy" | "spec.update.strategy" => of::<UpdateStrategy>(),
        "spec.operations.scaling" => of::<ScalingPreset>(),
        "spec.scaling.metric" => of::<ScalingMetric>(),
        "spec.restart.policy" => of::<RestartPolicy>(),
        "spec.failover.strategy" => of::<FailoverStrategy>(),
        "spec.verification.modes" => of::<VerificationMode>(),
        "spec.conditions[].type" => of::<ConditionKind>(),
        _ => Vec::new(),
    }
}
