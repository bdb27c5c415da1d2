use super::*;
use proptest::prelude::*;

fn normalised(text: &str) -> String {
    text.parse::<Reference>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

#[test]
fn short_names_mean_docker_hub() {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let table = [
        ("alpine", "docker.io/library/alpine:latest".to_owned()),
        ("alpine:3.20", "docker.io/library/alpine:3.20".to_owned()),
        ("docker://alpine", "docker.io/library/alpine:latest".to_owned()),
        ("bitnami/redis", "docker.io/bitnami/redis:latest".to_owned()),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest".to_owned()),
        ("localhost/x", "localhost/x:latest".to_owned()),
        ("localhost:5000/x", "localhost:5000/x:latest".to_owned()),
        ("[::1]:5000/x/y:1", "[::1]:5000/x/y:1".to_owned()),
        ("GHCR.io/x/y", "ghcr.io/x/y:latest".to_owned()),
        ("DOCKER.IO/x", "docker.io/library/x:latest".to_owned()),
        ("LOCALHOST/x", "localhost/x:latest".to_owned()),
        ("Host/x", "Host/x:latest".to_owned()),
        ("docker://oci:5000/x", "docker://oci:5000/x:latest".to_owned()),
        ("oci:./a/b", "oci:./a/b".to_owned()),
        ("oci:/a:tag", "oci:/a:tag".to_owned()),
        ("oci-archive:a.tar:x:y", "oci-archive:a.tar:x:y".to_owned()),
        ("docker-archive:a.tar:alpine:3", "docker-archive:a.tar:alpine:3".to_owned()),
        ("containerd:docker.io/library/alpine:3", "containerd:docker.io/library/alpine:3".to_owned()),
        ("wasm:./a:b.wasm", "wasm:./a:b.wasm".to_owned()),
        ("docker://x.wasm", "docker.io/library/x.wasm:latest".to_owned()),
        ("x:1.wasm", "docker.io/library/x:1.wasm".to_owned()),
    ];
    for (text, expected) in table {
        assert_eq!(normalised(text), expected);
    }
    assert_eq!(normalised(&format!("ghcr.io/x/y@{digest}")), format!("ghcr.io/x/y@{digest}"));
    assert_eq!(normalised(&format!("ghcr.io/x/y:1@{digest}")), format!("ghcr.io/x/y:1@{digest}"));
}

#[test]
fn a_wrong_name_is_refused_with_what_is_wrong() {
    let table = [
        ("", "is empty"),
        ("Alpine", "capital letters"),
        ("alpine:", "the tag \"\""),
        ("alpine:.x", "the tag \".x\""),
        ("alpine@sha256:12", "wrong number of digits"),
        ("alpine@md5:12", "names an algorithm"),
        ("a//b", "empty part"),
        ("a..b", "separators in a row"),
        ("x/../y", "begins or ends"),
        ("-x.io/a", "isn't a host name"),
        ("x.io:99999/a", "port outside"),
        ("[::1/x", "closing bracket"),
        ("docker:alpine", "write docker://alpine"),
        ("https://ghcr.io/x/y", "write ghcr.io/x/y"),
        ("containers-storage:alpine", "can't be read through"),
        ("./layout", "write oci:./layout"),
        ("oci:", "needs a path"),
        ("wasm:", "needs a path"),
        ("x.wasm", "write wasm:x.wasm"),
        ("./a/x.wasm", "write wasm:./a/x.wasm"),
        ("containerd:", "isn't an image's name in containerd"),
        ("containerd:a b", "isn't an image's name in containerd"),
        ("oci:x:", "behind its last colon"),
        ("a\nb", "control character"),
    ];
    for (text, expected) in table {
        let error = text.parse::<Reference>().expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

fn part() -> impl Strategy<Value = String> {
    "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}"
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_without_a_panic(text in "\\PC{0,80}") {
        let _ = text.parse::<Reference>();
    }

    #[test]
    fn what_parses_is_displayed_as_something_that_parses_to_the_same(text in "[a-zA-Z0-9:/@._\\[\\]-]{1,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
        }
    }

    #[test]
    fn every_registry_name_round_trips(
        host in "(localhost|[a-z][a-z0-9]{0,5}\\.[a-z]{2,4}|127\\.0\\.0\\.1|\\[::1\\])(:[1-9][0-9]{0,3})?",
        parts in prop::collection::vec(part(), 1..4),
        tag in prop::option::of("[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}"),
        content in prop::option::of(any::<u64>()),
    ) {
        let mut text = format!("{host}/{}", parts.join("/"));
        if host == "[::1]" {
            text = text.replacen("[::1]", "[::1]:5000", 1);
        }
        if let Some(tag) = &tag {
            text.push_str(&format!(":{tag}"));
        }
        if let Some(content) = content {
            text.push_str(&format!("@{}", Digest::of(&content.to_le_bytes())));
        }
        let reference: Reference = text.parse().map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        let Reference::Registry(name) = &reference else { panic!("{text} isn't local") };
        prop_assert_eq!(name.repository(), parts.join("/"));
        prop_assert_eq!(name.tag().is_some(), tag.is_some() || content.is_none());
        prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference.clone()));
    }

    #[test]
    fn every_local_name_round_trips(
        transport in "oci|oci-archive|docker-archive|wasm",
        path in "[^:\\pC]{1,30}",
        name in prop::option::of("[a-z0-9.:/-]{1,20}"),
    ) {
        let text = match name {
            Some(name) => format!("{transport}:{path}:{name}"),
            None => format!("{transport}:{path}"),
        };
        let reference: Reference = text.parse().map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        prop_assert_eq!(reference.to_string(), text);
    }
}
