use proptest::prelude::*;
use serde_json::json;

use super::*;

fn advisory(extra: serde_json::Value) -> Advisory {
    let mut record = json!({
        "id": "TEST-1", "modified": "2024-01-01T00:00:00Z", "aliases": ["CVE-2024-1"], "summary": "It breaks",
        "affected": [{
            "package": { "ecosystem": "Debian:12", "name": "openssl" },
            "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "0" }, { "fixed": "3.0.11-1~deb12u2" }] }],
        }],
    });
    for (key, value) in extra.as_object().unwrap() {
        record[key] = value.clone();
    }
    Advisory::parse(record.to_string().as_bytes()).unwrap().unwrap()
}

fn ranged(events: serde_json::Value) -> Affected {
    let affected = json!([{
        "package": { "ecosystem": "PyPI", "name": "x" }, "ranges": [{ "type": "ECOSYSTEM", "events": events }]
    }]);
    advisory(json!({ "affected": affected })).affected.remove(0)
}

#[test]
fn a_version_before_the_fix_has_the_flaw_and_the_fix_has_not() {
    let affected = &advisory(json!({})).affected[0];
    let judge = |version| affected.judge(Scheme::Dpkg, version);
    assert_eq!(judge("3.0.11-1~deb12u1"), Some(Verdict { fixed: Some("3.0.11-1~deb12u2".to_owned()) }));
    assert_eq!(judge("3.0.11-1~deb12u2"), None);
    assert_eq!(judge("3.0.11-1"), None);
}

#[test]
fn every_kind_of_event_bounds_a_range_as_the_schema_says() {
    let table = [
        (
            json!([{"introduced": "1.0"}, {"fixed": "1.5"}, {"introduced": "2.0"}]),
            vec!["1.0", "1.4", "2.0", "3"],
            vec!["0.9", "1.5", "1.9"],
        ),
        (json!([{"fixed": "1.5"}, {"introduced": "0"}]), vec!["0.1", "1.4.9"], vec!["1.5", "2"]),
        (json!([{"introduced": "1"}, {"last_affected": "1.5"}]), vec!["1", "1.5"], vec!["0.9", "1.5.1"]),
        (json!([{"introduced": "0"}, {"limit": "2"}]), vec!["1", "1.9"], vec!["2", "3"]),
        (json!([{"introduced": "0"}, {"limit": "*"}]), vec!["1", "99"], vec![]),
        (json!([{"introduced": "0"}]), vec!["0", "1", "99!1"], vec![]),
        (json!([{"fixed": "1"}]), vec![], vec!["0", "1", "2"]),
        (json!([]), vec![], vec!["0", "1"]),
    ];
    for (events, inside, outside) in table {
        let affected = ranged(events.clone());
        for version in inside {
            assert!(affected.judge(Scheme::Pep440, version).is_some(), "{events}: {version}");
        }
        for version in outside {
            assert!(affected.judge(Scheme::Pep440, version).is_none(), "{events}: {version}");
        }
    }
}

#[test]
fn the_fix_that_is_named_is_the_nearest_in_the_version_s_own_range() {
    let affected =
        ranged(json!([{"introduced": "1"}, {"fixed": "1.5"}, {"introduced": "2"}, {"fixed": "2.5"}]));
    let fixed = |version| affected.judge(Scheme::Pep440, version).and_then(|verdict| verdict.fixed);
    assert_eq!((fixed("1.1").as_deref(), fixed("2.1").as_deref()), (Some("1.5"), Some("2.5")));
}

#[test]
fn listed_versions_count_too_and_those_in_a_range_are_kept_once() {
    let affected = json!([{
        "package": { "ecosystem": "PyPI", "name": "x" },
        "ranges": [
            { "type": "GIT", "repo": "https://example.org", "events": [{ "introduced": "0" }] },
            { "type": "ECOSYSTEM", "events": [{ "introduced": "2" }] },
        ],
        "versions": ["1.0.0", "2.1"],
    }]);
    let affected = advisory(json!({ "affected": affected })).affected.remove(0);
    assert_eq!(affected.versions, ["1.0.0"]);
    assert_eq!(affected.ranges.len(), 1, "commits are no versions");
    assert!(
        affected.judge(Scheme::Pep440, "1.0").is_some() && affected.judge(Scheme::Pep440, "1.1").is_none()
    );
}

#[test]
fn severity_is_computed_from_vectors_and_read_from_words() {
    let rating =
        |extra| advisory(extra).rating.map(|rating| (rating.level, rating.score.unwrap_or_default()));
    let vector = |kind: &str, score: &str| json!({ "severity": [{ "type": kind, "score": score }] });
    let table = [
        (vector("CVSS_V3", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"), Some((Level::Critical, "9.8"))),
        (vector("CVSS_V3", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H"), Some((Level::Critical, "10.0"))),
        (vector("CVSS_V3", "CVSS:3.0/AV:L/AC:H/PR:L/UI:N/S:U/C:H/I:N/A:N"), Some((Level::Medium, "4.7"))),
        (vector("CVSS_V3", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"), Some((Level::High, "7.5"))),
        (
            vector("CVSS_V4", "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"),
            Some((Level::Critical, "9.3")),
        ),
        (vector("Ubuntu", "medium"), Some((Level::Medium, ""))),
        (vector("CVSS_V3", "CVSS:3.1/AV:N"), None),
        (json!({ "database_specific": { "severity": "MODERATE" } }), Some((Level::Medium, ""))),
        (json!({ "database_specific": { "severity": 7 } }), None),
        (json!({}), None),
        (json!({ "id": "MAL-2024-1" }), Some((Level::Critical, ""))),
    ];
    for (extra, expected) in table {
        let expected = expected.map(|(level, score)| (level, score.to_owned()));
        assert_eq!(rating(extra.clone()), expected, "{extra}");
    }
}

#[test]
fn what_is_withdrawn_is_no_advisory_and_what_is_no_advisory_is_refused() {
    let withdrawn = br#"{"id": "X", "withdrawn": "2024-01-01T00:00:00Z"}"#;
    assert_eq!(Advisory::parse(withdrawn).unwrap(), None);
    for wrong in ["", "[]", "{}", r#"{"id": 7}"#, r#"{"id": ""}"#, r#"{"id": "x", "affected": 7}"#] {
        assert!(Advisory::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(Advisory::parse(br#"{"id": "x", "affected": null, "aliases": null}"#).unwrap().is_some());
}

#[test]
fn an_ecosystem_without_a_release_speaks_of_all_its_releases() {
    assert!(covers("Debian:12", "Debian:12") && covers("Debian", "Debian:12"));
    assert!(!covers("Debian:11", "Debian:12") && !covers("Debian:12", "Debian") && !covers("npm", "PyPI"));
    assert!(covers("Red Hat:enterprise_linux:9::baseos", "Red Hat:enterprise_linux:9"));
    assert!(!covers("Red Hat:enterprise_linux:90", "Red Hat:enterprise_linux:9"));
}

fn finding(advisory: &str, aliases: &[&str], level: Option<Level>) -> Finding {
    Finding {
        package: "x".to_owned(),
        version: "1".to_owned(),
        installed: vec!["x".to_owned()],
        ecosystem: "npm".to_owned(),
        advisory: advisory.to_owned(),
        aliases: aliases.iter().map(|name| (*name).to_owned()).collect(),
        summary: String::new(),
        rating: level.map(|level| Rating { level, score: None }),
        fixed: None,
    }
}

#[test]
fn several_advisories_about_one_flaw_are_shown_once_by_the_name_that_people_know() {
    let merged = merge(vec![
        finding("GHSA-b", &[], Some(Level::Low)),
        finding("GHSA-a", &["CVE-1"], None),
        finding("PYSEC-1", &["CVE-1", "GHSA-a"], Some(Level::High)),
    ]);
    assert_eq!(merged.len(), 2);
    assert_eq!(merged[0].advisory, "CVE-1");
    assert_eq!(merged[0].aliases, ["GHSA-a", "PYSEC-1"]);
    assert_eq!(merged[0].rating.as_ref().unwrap().level, Level::High);
    let bridged =
        merge(vec![finding("A", &[], None), finding("B", &[], None), finding("C", &["A", "B"], None)]);
    assert_eq!(bridged.len(), 1, "a third advisory that names both joins them");
    let several = merge(vec![finding("DSA-1", &["CVE-1", "CVE-2"], None)]);
    assert_eq!(several[0].advisory, "DSA-1");
}

proptest! {
    #[test]
    fn nothing_that_is_parsed_panics_or_matches_nothing(text in "\\PC{0,200}", version in "\\PC{0,20}") {
        let _ = Advisory::parse(text.as_bytes());
        let events = json!([{ "introduced": version.clone() }, { "fixed": "1" }]);
        for scheme in Scheme::ALL {
            let _ = ranged(events.clone()).judge(scheme, &version);
        }
    }

    #[test]
    fn what_is_introduced_is_affected_until_it_is_fixed(a in 0_u8..9, b in 0_u8..9, v in 0_u8..9) {
        let affected = ranged(json!([{ "introduced": a.to_string() }, { "fixed": b.to_string() }]));
        let expected = a <= v && (v < b || b < a);
        prop_assert_eq!(affected.judge(Scheme::Pep440, &v.to_string()).is_some(), expected);
    }

    #[test]
    fn merging_loses_no_name_and_is_the_same_in_any_order(
        groups in prop::collection::vec(prop::collection::vec(0_u8..8, 1..4), 0..8)
    ) {
        let findings: Vec<Finding> = groups.iter().map(|names| {
            let names: Vec<String> = names.iter().map(|name| format!("N-{name}")).collect();
            let others: Vec<&str> = names[1..].iter().map(String::as_str).collect();
            finding(&names[0], &others, None)
        }).collect();
        let mut reversed = findings.clone();
        reversed.reverse();
        let merged = merge(findings.clone());
        let mut seen: Vec<&str> = merged.iter().flat_map(Finding::names).collect();
        seen.sort_unstable();
        let mut unique = seen.clone();
        unique.dedup();
        prop_assert_eq!(&seen, &unique, "each name is in one finding");
        prop_assert!(findings.iter().flat_map(Finding::names).all(|name| seen.contains(&name)));
        let names = |findings: Vec<Finding>| -> Vec<Vec<String>> {
            let of = |finding: &Finding| { let mut all: Vec<String> = finding.names().map(str::to_owned).collect(); all.sort(); all };
            let mut all: Vec<Vec<String>> = findings.iter().map(of).collect();
            all.sort();
            all
        };
        prop_assert_eq!(names(merged), names(merge(reversed)));
    }
}
