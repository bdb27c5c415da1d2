use proptest::prelude::*;

use super::*;

const WHOLE: &str = r#"
[registries]
allowed = ["docker.io/library", "*.example.org", "localhost:5000", "oci:/srv/images"]
require_digest = true

[signatures]
keys = ["keys/release.pub"]
required_for = ["docker.io"]

[scan]
advisories = "/srv/osv"
threshold = "critical"
unrated = "low"
ignore = ["CVE-2024-1234 the parser isn't reachable until 2030-02-28", "GHSA-abcd only on Windows"]
"#;

#[test]
fn a_whole_policy_is_read() {
    let policy = parse(WHOLE).unwrap();
    assert!(policy.registries.require_digest);
    assert_eq!(policy.signatures.keys, ["keys/release.pub"]);
    assert_eq!((policy.scan.threshold, policy.scan.unrated), (Severity::Critical, Severity::Low));
    let [first, second] = policy.scan.ignore.as_slice() else { panic!("there are two") };
    assert_eq!(
        (first.advisory.as_str(), first.reason.as_str()),
        ("CVE-2024-1234", "the parser isn't reachable")
    );
    assert!(first.holds("2030-02-28".parse().unwrap()) && !first.holds("2030-03-01".parse().unwrap()));
    assert!(second.holds("9999-12-31".parse().unwrap()));
    assert_eq!(parse("").unwrap(), Policy::default());
}

#[test]
fn every_mistake_is_shown_at_its_place_with_what_would_be_right() {
    let table = [
        ("[scann]\n", "1:2:", "did you mean `scan`?"),
        ("[scan]\nadvisories = \"x\"\ntreshold = \"high\"\n", "3:1:", "did you mean `threshold`?"),
        ("threshold = \"high\"\n", "1:1:", "did you mean `scan.threshold`?"),
        ("[registries]\nimage = \"x\"\n", "2:1:", "known here: allowed, require_digest"),
        ("[scan]\nadvisories = \"x\"\nthreshold = \"sever\"\n", "3:13:", "low, medium, high, critical"),
        ("[scan]\nthreshold = \"high\"\n", "2:13:", "name their folder"),
        ("[signatures]\nrequired_for = [\"*\"]\n", "2:16:", "name the files of public keys"),
        (
            "[[signatures.identities]]\nidentity = \"me@example.org\"\nissuer = \"https://example.org\"\n",
            "1:1:",
            "trusted_root = ",
        ),
        ("[signatures]\ntrusted_root = \"root.json\"\n", "2:16:", "[[signatures.identities]]"),
        (
            "[signatures]\ntrusted_root = \"r\"\nidentities = [{ identity = \"https://a.org/b*\", issuer = \"x\" }]\n",
            "3:28:",
            "let the * follow a /",
        ),
        (
            "[signatures]\ntrusted_root = \"r\"\nidentities = [{ identity = \"*\", issuer = \"x\" }]\n",
            "3:28:",
            "names nobody",
        ),
        (
            "[signatures]\ntrusted_root = \"r\"\nidentities = [{ identity = \"me@example.org\" }]\n",
            "3:",
            "must be said exactly",
        ),
        ("[signatures]\nkeys = []\n", "2:8:", "so that nothing would be checked"),
        ("[registries]\nallowed = \"ghcr.io\"\n", "2:11:", "[\"ghcr.io\"]"),
        ("[registries]\nallowed = [\"ghcr.io\", \"alpine\"]\n", "2:23:", "docker.io/library/alpine"),
        ("[registries]\nallowed = [\"acme/app\"]\n", "2:12:", "docker.io/acme/app"),
        ("[registries]\nallowed = [\"https://ghcr.io/x\"]\n", "2:12:", "ghcr.io/x"),
        ("[registries]\nallowed = [\"ghcr.io/*\"]\n", "2:12:", "may only stand alone"),
        ("[scan]\nadvisories = \"x\"\nignore = [\"CVE-1\"]\n", "3:11:", "CVE-1 not reachable"),
        ("[scan]\nadvisories = \"x\"\nignore = [\"CVE-1 why until 2023-02-29\"]\n", "3:11:", "is no date"),
        ("registries = 7\n", "1:14:", "expects a table"),
    ];
    for (source, place, part) in table {
        let said = parse(source).unwrap_err().to_string();
        assert!(said.starts_with(place) && said.contains(part), "{source}: {said}");
    }
    let all = parse("[scan]\nx = 1\n[registries]\ny = 2\n").unwrap_err();
    assert_eq!(all.0.len(), 2, "all at once: {all}");
}

#[test]
fn what_leads_out_of_its_folder_must_be_signed_whatever_it_is_called() {
    let policy = parse("[signatures]\nkeys = [\"a.pub\"]\nrequired_for = [\"oci:/srv/images\"]\n").unwrap();
    assert!(policy.signatures.requires("oci:/srv/images/app"));
    assert!(policy.signatures.requires("oci:/srv/x/../images/app"));
    assert!(!policy.signatures.requires("oci:/srv/other"));
}

#[test]
fn a_start_of_a_name_ends_where_a_part_of_the_name_ends() {
    let matches = |pattern: &str, image: &str| pattern.parse::<Pattern>().unwrap().matches(image);
    let table = [
        ("*", "docker.io/library/alpine:3.20", true),
        ("*", "oci:/x", true),
        ("docker.io", "docker.io/library/alpine:3.20", true),
        ("docker.io/", "docker.io/library/alpine:3.20", true),
        ("docker.io/library", "docker.io/library/alpine@sha256:00", true),
        ("docker.io/library/alpine", "docker.io/library/alpine:3.20", true),
        ("docker.io/library/alpine:3.20", "docker.io/library/alpine:3.20@sha256:00", true),
        ("docker.io/library/alpine:3.2", "docker.io/library/alpine:3.20", false),
        ("docker.io/lib", "docker.io/library/alpine", false),
        ("ghcr.io/acme", "ghcr.io/acmeister/app", false),
        ("ghcr.io", "ghcr.io.evil.org/app", false),
        ("ghcr.io", "evil.org/ghcr.io/app", false),
        ("example.org", "example.org:5000/app", false),
        ("*.example.org", "registry.example.org/app", true),
        ("*.example.org", "example.org/app", false),
        ("*.example.org", "evilexample.org/app", false),
        ("*.example.org/team", "a.example.org/team/app", true),
        ("*.example.org/team", "a.example.org/other/app", false),
        ("localhost:5000", "localhost:5000/x", true),
        ("oci:", "oci:/srv/images/a:latest", true),
        ("oci:/srv/images", "oci:/srv/images/a:latest", true),
        ("oci:/srv/images", "oci:/srv/images", true),
        ("oci:/srv/images", "oci:/srv/images2/a", false),
        ("oci:/srv/images", "oci:/srv/images/../evil", false),
        ("oci:/srv/images", "oci-archive:/srv/images/a", false),
        ("docker.io", "containerd:docker.io/library/alpine", false),
        ("docker.io", "wasm:docker.io/x.wasm", false),
        ("docker.io/library", "registry-1.docker.io/library/alpine", true),
        ("ghcr.io/acme", "ghcr.io:443/acme/app", true),
        ("oci:", "docker://oci:5000/evil/app", false),
        ("oci:5000", "docker://oci:5000/evil/app", false),
    ];
    for (pattern, image, expected) in table {
        assert_eq!(matches(pattern, image), expected, "{pattern} and {image}");
    }
}

#[test]
fn what_is_allowed_and_what_must_be_signed_follow_from_what_is_set() {
    let nothing = Policy::default();
    assert!(nothing.registries.allows("evil.org/x") && !nothing.signatures.requires("evil.org/x"));
    let none = parse("[registries]\nallowed = []\n").unwrap();
    assert!(!none.registries.allows("docker.io/library/alpine"));
    let keys = parse("[signatures]\nkeys = [\"a.pub\"]\n").unwrap();
    assert!(keys.signatures.requires("anything/at-all"), "with a key and no list, all must be signed");
    let some = parse("[signatures]\nkeys = [\"a.pub\"]\nrequired_for = [\"ghcr.io\"]\n").unwrap();
    assert!(some.signatures.requires("ghcr.io/x") && !some.signatures.requires("docker.io/x"));
}

#[test]
fn days_are_counted_as_calendars_do() {
    let table = [
        (0, "1970-01-01"),
        (59, "1970-03-01"),
        (11_016, "2000-02-29"),
        (19_782, "2024-02-29"),
        (47_540, "2100-02-28"),
    ];
    for (days, expected) in table {
        assert_eq!(Date::from_days(days).to_string(), expected);
    }
    assert_eq!(Date::from_days(u64::MAX).to_string(), "9999-12-31");
    for wrong in
        ["2023-02-29", "2100-02-29", "2024-13-01", "2024-00-01", "2024-1-01", "2024-01-01-", "+024-01-01", ""]
    {
        assert!(wrong.parse::<Date>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_source_makes_the_parser_panic(source in "\\PC{0,200}") {
        let _ = parse(&source);
    }

    #[test]
    fn dates_are_in_the_order_of_their_days(a in 0_u64..2_000_000, b in 0_u64..2_000_000) {
        prop_assert_eq!(Date::from_days(a).cmp(&Date::from_days(b)), a.cmp(&b));
        prop_assert_eq!(Date::from_days(a).to_string().parse::<Date>(), Ok(Date::from_days(a)));
    }

    #[test]
    fn a_registry_s_images_are_no_other_registry_s(host in "[a-z]{1,6}\\.[a-z]{1,3}", other in "[a-z.]{1,8}", path in "[a-z/]{0,8}") {
        let pattern: Pattern = host.parse().unwrap();
        let image = format!("{other}/{path}");
        prop_assert_eq!(pattern.matches(&image), other == host);
    }
}
