//! The reference, the schema and the model speak of the same keys.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use hac::diagnostic::Code;
use hac::reference;
use serde_json::Value;

const ON_DISK: &str = include_str!("../../../docs/reference/manifest.md");

/// Collects the path of every key that the schema describes.
fn schema_paths(schema: &Value, path: &str, paths: &mut BTreeSet<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (key, property) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            paths.insert(path.clone());
            schema_paths(property, &path, paths);
        }
    }
    for alternative in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        schema_paths(alternative, path, paths);
    }
    if let Some(items) = schema.get("items") {
        schema_paths(items, &format!("{path}[]"), paths);
    }
}

/// Finds the schema of a key.
fn schema_at<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = schema;
    for key in path.split('.') {
        let (key, is_item) = key.strip_suffix("[]").map_or((key, false), |key| (key, true));
        let table = at.get("anyOf").and_then(|any| any.get(0)).unwrap_or(at);
        at = table.get("properties")?.get(key)?;
        if is_item {
            at = at.get("items")?;
        }
    }
    Some(at)
}

#[test]
fn every_key_of_the_types_is_in_the_reference_and_the_other_way_round() {
    let mut in_schema = BTreeSet::new();
    schema_paths(&hac::schema(), "", &mut in_schema);
    let in_reference: BTreeSet<String> = reference::paths().into_iter().map(str::to_owned).collect();
    assert_eq!(in_schema, in_reference);
    assert_eq!(in_reference.len(), reference::paths().len(), "a key is there twice");
}

#[test]
fn every_key_says_its_type_default_effect_and_an_example() {
    for key in reference::all() {
        assert!(!key.kind.is_empty(), "{} has no type", key.path);
        assert!(!key.default.is_empty(), "{} has no default", key.path);
        assert!(key.effect.ends_with('.'), "{} has no meaning", key.path);
        assert!(!key.example.is_empty(), "{} has no example", key.path);
    }
}

#[test]
fn the_words_of_the_reference_are_those_of_the_types() {
    let schema = hac::schema();
    for key in reference::all() {
        let at = schema_at(&schema, key.path).unwrap_or_else(|| panic!("{} isn't in the schema", key.path));
        let text = at.to_string();
        for value in &key.values {
            assert!(text.contains(&format!("\"{value}\"")), "{}: {value} isn't in {text}", key.path);
        }
        let is_words = text.contains("\"enum\"") && key.keys.is_empty();
        assert_eq!(is_words, !key.values.is_empty(), "{} is a word in one place only", key.path);
    }
}

/// Puts an example line of a key into a manifest that is otherwise right.
fn manifest_with(key: &reference::Explanation) -> String {
    let (table, _) = key.path.rsplit_once('.').unwrap_or(("", key.path));
    let lines = key.example.join("\n");
    let image = "[spec.deployment]\nimage = \"a\"\n";
    if lines.starts_with('[') {
        let has_image = lines.starts_with("[spec.deployment]") && lines.contains("image");
        let image = if has_image { "" } else { "spec.deployment.image = \"a\"\n" };
        return format!("{image}{lines}\n")
            .replace("spec.deployment.image = \"a\"\n[spec.deployment]", image.trim());
    }
    match (table, key.path) {
        ("", _) => format!("{lines}\n{image}"),
        ("spec.deployment", "spec.deployment.image") => format!("[spec.deployment]\n{lines}\n"),
        ("spec.deployment", _) => format!("{image}{lines}\n"),
        (table, _) if table.ends_with("[]") => {
            format!("{image}[[{}]]\n{lines}\n", table.trim_end_matches("[]"))
        }
        (table, _) => format!("{image}[{table}]\n{lines}\n"),
    }
}

#[test]
fn every_example_is_read() {
    for key in reference::all() {
        let source = manifest_with(&key);
        let Err(errors) = hac::parse(&source, hac::Format::Toml) else {
            continue;
        };
        // An example alone may lack what goes with it, but each of its own lines must be understood.
        let not_understood = errors.iter().any(|error| error.code != Code::Conflict);
        assert!(!not_understood, "{}\n{source}", errors.render(key.path, &source, false));
    }
}

#[test]
fn the_page_on_disk_is_the_generated_one() {
    let generated = reference::markdown();
    if ON_DISK != generated {
        let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("manifest.md");
        #[allow(clippy::disallowed_methods)]
        std::fs::write(&place, generated).unwrap();
        panic!("docs/reference/manifest.md is out of date; copy {} over it", place.display());
    }
}

#[test]
fn a_key_is_explained_by_its_path_its_end_and_an_item_of_a_list() {
    assert_eq!(hac::explain("memory").unwrap().path, "spec.resources.memory");
    assert_eq!(hac::explain("spec.resources.memory").unwrap().default, "512Mi");
    assert_eq!(hac::explain("max_parallel").unwrap().path, "spec.update.max_parallel");
    assert_eq!(hac::explain("spec.mounts[3].size").unwrap().path, "spec.mounts[].size");
    assert_eq!(hac::explain("spec.deployment.env.HOME").unwrap().path, "spec.deployment.env");
    assert_eq!(hac::explain("spec.virtualization.type").unwrap().values[0], "MicroVM");
    assert!(hac::explain("spec.resources").unwrap().keys.contains(&"spec.resources.cpu"));
    assert!(hac::explain("spec.checks").unwrap().keys.contains(&"spec.checks[].port"));
}

#[test]
fn the_marks_of_a_list_may_be_left_out_of_every_key() {
    for path in reference::paths() {
        let plain = path.replace("[]", "");
        assert_eq!(hac::explain(&plain).map(|explanation| explanation.path), Ok(path), "{plain}");
    }
}

#[test]
fn an_unknown_key_is_answered_with_what_was_probably_meant() {
    let answer = |key: &str| hac::explain(key).unwrap_err().to_string();
    assert_eq!(
        answer("spec.resources.memroy"),
        "there is no key \"spec.resources.memroy\" in a manifest; did you mean spec.resources.memory?"
    );
    assert_eq!(answer("volumes"), "there is no key \"volumes\" in a manifest; did you mean spec.mounts?");
    assert_eq!(
        answer("strategy"),
        "\"strategy\" is the end of several keys: spec.update.strategy, spec.failover.strategy"
    );
    assert_eq!(answer("xyzzy"), "there is no key \"xyzzy\" in a manifest");
    assert_eq!(answer(""), "there is no key \"\" in a manifest");
}

#[test]
fn the_schema_demands_what_has_no_default_and_nothing_else() {
    let schema = hac::schema();
    let required = |path: &str| schema.pointer(path).and_then(|at| at.get("required")).cloned();
    assert_eq!(required(""), Some(serde_json::json!(["spec"])));
    assert_eq!(required("/properties/spec/properties/deployment"), Some(serde_json::json!(["image"])));
    assert_eq!(required("/properties/spec/properties/resources"), None);
    assert_eq!(
        required("/properties/spec/properties/mounts/items"),
        Some(serde_json::json!(["destination"]))
    );
    assert_eq!(schema.pointer("/properties/spec/additionalProperties"), Some(&Value::Bool(false)));
}

#[test]
fn it_is_known_whether_a_manifest_names_a_key_itself() {
    let key = "spec.virtualization.type";
    for (format, source, expected) in [
        (hac::Format::Toml, "[spec.virtualization]\ntype = \"MicroVM\"\n", true),
        (hac::Format::Toml, "spec.virtualization.type = \"Wasm\"\n", true),
        (hac::Format::Toml, "[spec.virtualization]\naccel = \"tcg\"\n", false),
        (hac::Format::Yaml, "spec:\n  virtualization:\n    type: Wasm\n", true),
        (hac::Format::Yaml, "spec:\n  virtualization:\n    type:\n", false),
        (hac::Format::Yaml, "spec: [", false),
    ] {
        assert_eq!(hac::says(source, format, key), expected, "{source}");
    }
}
