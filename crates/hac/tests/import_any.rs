//! Whatever a file says, it becomes manifests that read back and nothing is lost, or it gets errors with places.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::BTreeMap;

use hac::import::{Options, import};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

const KEYS: &str = "services web db image build command entrypoint environment env_file ports expose volumes working_dir \
    user deploy replicas resources limits reservations cpus memory devices capabilities count restart_policy condition \
    delay max_attempts update_config parallelism failure_action placement constraints mem_limit restart healthcheck test \
    interval timeout retries start_period hostname depends_on networks secrets configs labels gpus extends network_mode \
    tmpfs shm_size storage_opt size target source type read_only published host_ip protocol name file external driver \
    version profiles compute resources cpu units memory storage attributes persistent class gpu vendor nvidia model \
    placement pricing signedBy deployment profile count params mount readOnly env args port as proto to global service \
    x-own a.b scale disable";

fn scalar() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "x",
        "nginx:1",
        "8080:80",
        "127.0.0.1:1:2/udp",
        "80-90:80-90",
        "1-65535",
        "./a:/b:ro",
        "data:/d",
        "/anon",
        "/a:size=1m",
        "on-failure:3",
        "unless-stopped",
        "CMD",
        "CMD-SHELL",
        "NONE",
        "all",
        "1g",
        "64m",
        "0",
        "-1",
        "0.5",
        "99999999999999999999",
        "1e400",
        "30s",
        "1us",
        "A=1",
        "A",
        "=",
        "${A}",
        "${A:-b}",
        "$A$B",
        "${",
        "$$",
        "echo 'a",
        "a b",
        "\u{0}",
        "\u{85}",
        "\u{2028}é",
        "node.labels.a==b",
        "db",
        "tcp://db:1",
        "/proc/x",
        "/dev/shm",
        "a\nb",
        "2.0",
        "none",
        "host",
        "bind",
        "volume",
        "tmpfs",
        "500m",
        "true",
        "../..",
        "~",
        "UPPER_case",
        "-",
        "\u{7f}",
    ];
    prop_oneof![
        4 => select(texts.to_vec()).prop_map(Value::from),
        1 => select(vec![0u64, 1, 80, 65_536, u64::MAX]).prop_map(Value::from),
        1 => Just(Value::Bool(true)),
        1 => Just(Value::Bool(false)),
        1 => Just(Value::Null),
        1 => "[ -~]{0,12}".prop_map(Value::from),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let keys: Vec<String> = KEYS.split_whitespace().map(str::to_owned).collect();
    prop_oneof![20 => select(keys), 1 => "[ -~]{0,6}", 1 => Just("é_\u{0}".to_owned())]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            1 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            2 => proptest::collection::vec((key(), inner), 0..6).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Documents that look like one of the kinds: services with an image, some with the tables of an SDL.
fn document() -> impl Strategy<Value = Value> {
    let service = proptest::collection::vec((key(), value()), 0..8).prop_map(|entries| {
        let mut service: serde_json::Map<String, Value> = entries.into_iter().collect();
        service.entry("image").or_insert("nginx:1".into());
        Value::Object(service)
    });
    let services = proptest::collection::vec((key(), service), 1..4);
    let rest = proptest::collection::vec((key(), value()), 0..4);
    (services, rest).prop_map(|(services, rest)| {
        let mut root: serde_json::Map<String, Value> = rest.into_iter().collect();
        root.insert("services".to_owned(), Value::Object(services.into_iter().collect()));
        Value::Object(root)
    })
}

/// Documents in which one value of a sample is another.
fn changed_sample() -> impl Strategy<Value = Value> {
    let samples = [
        include_str!("data/import/everything.compose.json"),
        include_str!("data/import/everything.sdl.json"),
    ];
    let sample = select(samples.to_vec()).prop_map(|text| serde_json::from_str::<Value>(text).unwrap());
    (sample, proptest::collection::vec((any::<prop::sample::Index>(), value()), 1..4)).prop_map(
        |(mut sample, changes)| {
            for (index, value) in changes {
                let mut pointers = Vec::new();
                places(&sample, String::new(), &mut pointers);
                let pointer = index.get(&pointers).clone();
                *sample.pointer_mut(&pointer).unwrap() = value;
            }
            sample
        },
    )
}

fn places(value: &Value, path: String, out: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, format!("{path}/{key}"), out);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, format!("{path}/{index}"), out);
            }
        }
        _ => {}
    }
    out.push(path);
}

fn options() -> Options {
    let variables = [("A", "1"), ("B", "two words"), ("EMPTY", "")];
    Options {
        variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        env_files: BTreeMap::from([
            ("x".to_owned(), Ok("A=1\nB\nC='${D}'\n".to_owned())),
            ("db".to_owned(), Ok("not = 'this".to_owned())),
            ("/anon".to_owned(), Err("it isn't there".to_owned())),
        ]),
        base: "..".to_owned(),
        ..Options::default()
    }
}

/// Imports, and holds the result to what is promised of every one. Tells whether there was an import.
fn check(text: &str) -> bool {
    match import(text, &options()) {
        Ok(import) => {
            assert!(!import.services.is_empty());
            let mut folders = std::collections::BTreeSet::new();
            for service in &import.services {
                assert!(folders.insert(&service.folder), "{} twice", service.folder);
                assert!(!service.folder.contains(['/', '.']));
                let printed = import.to_toml(service, "file\u{1b}\n");
                let again = hac::parse(&printed, hac::Format::Toml)
                    .unwrap_or_else(|errors| panic!("{}", errors.render("hac.toml", &printed, false)));
                assert_eq!(again, service.manifest);
                hac::validate(&service.manifest).unwrap();
            }
            assert!(import.remarks.iter().all(|remark| remark.span.line > 0 && !remark.key.is_empty()));
            true
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in errors.iter() {
                let span = error.span.unwrap();
                assert!(span.line > 0 && span.end <= text.len());
                assert!(!error.message.contains("this isn't TOML"), "{error}");
            }
            errors.render("file", text, true);
            false
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_document_is_imported_or_refused(document in document()) {
        check(&document.to_string());
    }

    #[test]
    fn any_change_of_a_file_is_imported_or_refused(document in changed_sample()) {
        check(&document.to_string());
    }

    #[test]
    fn any_text_is_imported_or_refused(text in "(services|web|image|<<|&a|\\*a|[:\\-\\[\\]{},#'\"!|>$ \n\t]| x|\n  ){0,40}") {
        check(&text);
    }

    #[test]
    fn any_part_of_a_file_is_imported_or_refused(from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let text = include_str!("data/import/web.yaml");
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let (from, to) = (*from.get(&starts), *to.get(&starts));
        let (from, to) = (from.min(to), from.max(to));
        check(&text[from..to]);
        check(&format!("{}{}", &text[..from], &text[to..]));
    }
}

#[test]
fn the_samples_themselves_are_imported() {
    assert!(check(include_str!("data/import/everything.compose.json")));
    assert!(check(include_str!("data/import/everything.sdl.json")));
    assert!(check(include_str!("data/import/web.yaml")));
}
