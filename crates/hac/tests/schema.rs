//! The schema accepts what the parser reads, and refuses what it refuses, as far as a schema can say it.
//!
//! The validator here knows the words that the schema uses, and fails on any other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hac::Format;
use serde_json::Value;

const TOML: &str = include_str!("samples/sample.toml");
const YAML_WITH_TABS: &str = include_str!("samples/sample-with-tabs.yaml");

fn accepts(schema: &Value, value: &Value) -> bool {
    let Value::Object(schema) = schema else {
        return schema == &Value::Bool(true);
    };
    schema.iter().all(|(word, rule)| match word.as_str() {
        "$schema" | "title" | "description" | "default" | "examples" => true,
        "type" => {
            let is = |name: &str| match name {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "null" => value.is_null(),
                "number" => value.is_number(),
                "integer" => value.is_u64() || value.is_i64(),
                other => panic!("the type {other}"),
            };
            match rule {
                Value::String(name) => is(name),
                Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
                _ => panic!("the type {rule}"),
            }
        }
        "enum" => rule.as_array().unwrap().contains(value),
        "anyOf" => rule.as_array().unwrap().iter().any(|schema| accepts(schema, value)),
        "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
        // Checked for the units in their own tests; no regular expressions here.
        "pattern" => true,
        "uniqueItems" => true,
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| accepts(rule, item))),
        "required" => {
            let has = |key: &Value| value.get(key.as_str().unwrap()).is_some();
            !value.is_object() || rule.as_array().unwrap().iter().all(has)
        }
        "properties" => value.as_object().is_none_or(|object| {
            object.iter().all(|(key, value)| rule.get(key).is_none_or(|schema| accepts(schema, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let properties = schema.get("properties");
            let known = |key: &str| properties.is_some_and(|properties| properties.get(key).is_some());
            object.iter().all(|(key, value)| known(key) || accepts(rule, value))
        }),
        other => panic!("the schema uses {other}, which this validator doesn't know"),
    })
}

/// Reads the sample's few kinds of TOML values, independently of the crate.
fn toml_to_json(source: &str) -> Value {
    fn convert(item: &toml_edit::Item) -> Value {
        match item {
            toml_edit::Item::Value(toml_edit::Value::String(text)) => Value::from(text.value().as_str()),
            toml_edit::Item::Value(toml_edit::Value::Integer(number)) => Value::from(*number.value()),
            toml_edit::Item::Value(toml_edit::Value::Boolean(flag)) => Value::from(*flag.value()),
            toml_edit::Item::Value(toml_edit::Value::Array(items)) => {
                items.iter().map(|value| convert(&toml_edit::Item::Value(value.clone()))).collect()
            }
            toml_edit::Item::Value(toml_edit::Value::InlineTable(table)) => table
                .iter()
                .map(|(key, value)| (key, convert(&toml_edit::Item::Value(value.clone()))))
                .collect(),
            toml_edit::Item::Table(table) => table.iter().map(|(key, value)| (key, convert(value))).collect(),
            toml_edit::Item::ArrayOfTables(tables) => {
                tables.iter().map(|table| convert(&toml_edit::Item::Table(table.clone()))).collect()
            }
            other => panic!("{other:?}"),
        }
    }
    convert(source.parse::<toml_edit::DocumentMut>().unwrap().as_item())
}

#[test]
fn both_samples_satisfy_the_schema() {
    let schema = hac::schema();
    assert!(accepts(&schema, &toml_to_json(TOML)));
    // The YAML sample is the same tree as the TOML sample but for the image; printing shows that.
    let yaml = hac::parse(&YAML_WITH_TABS.replace('\t', "  "), Format::Yaml).unwrap();
    assert!(accepts(&schema, &toml_to_json(&hac::to_toml(&yaml))));
}

#[test]
fn the_starters_satisfy_the_schema_and_the_parser() {
    let toml = hac::starter("web", "docker.io/library/nginx:1.29");
    assert!(accepts(&hac::schema(), &toml_to_json(&toml)));
    let from_toml = hac::parse(&toml, Format::Toml).unwrap();
    let from_yaml =
        hac::parse(&hac::starter_yaml("web", "docker.io/library/nginx:1.29"), Format::Yaml).unwrap();
    assert_eq!(from_toml, from_yaml);
    let mut expected = hac::Manifest::from_image("docker.io/library/nginx:1.29");
    expected.metadata.name = "web".to_owned();
    assert_eq!(from_toml, expected);
}

#[test]
fn what_the_starters_comment_out_is_right_too() {
    let uncommented = |text: &str, indent: bool| -> String {
        let uncomment = |line: &str| {
            let (blanks, rest) = line.split_at(line.len() - line.trim_start().len());
            match rest.strip_prefix("# ") {
                Some(rest)
                    if rest.contains('=')
                        || rest.starts_with('[')
                        || (indent
                            && (rest.contains(": ") || rest.ends_with(':') || rest.starts_with("  "))) =>
                {
                    format!("{blanks}{rest}")
                }
                _ => line.to_owned(),
            }
        };
        let without_heading = text.lines().skip(2);
        without_heading.map(uncomment).collect::<Vec<_>>().join("\n")
    };
    let toml = uncommented(&hac::starter("web", "a"), false);
    let from_toml =
        hac::parse(&toml, Format::Toml).unwrap_or_else(|error| panic!("{}", error.render("t", &toml, false)));
    let yaml = uncommented(&hac::starter_yaml("web", "a"), true);
    let from_yaml =
        hac::parse(&yaml, Format::Yaml).unwrap_or_else(|error| panic!("{}", error.render("y", &yaml, false)));
    assert_eq!(from_toml, from_yaml);
    assert_eq!(from_toml.spec.checks.len(), 1);
    assert_eq!(from_toml.spec.mounts.len(), 1);
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let schema = hac::schema();
    for source in [
        "",
        "[spec.deployment]\nimagee = \"a\"",
        "[spec.deployment]\nimage = \"a\"\nreplicas = \"3\"",
        "[spec.deployment]\nimage = \"a\"\n[spec.virtualization]\ntype = \"Jail\"",
        "[spec.deployment]\nimage = \"a\"\n[spec.networking.inbound_ports]\nhttp = 70000",
        "[spec.deployment]\nimage = \"a\"\n[[spec.mounts]]\nsource = \"x\"",
    ] {
        assert!(!accepts(&schema, &toml_to_json(source)), "{source}");
        assert!(hac::parse(source, Format::Toml).is_err(), "{source}");
    }
}
