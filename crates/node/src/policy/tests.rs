use evidence::advisory::{Finding, Level, Rating};
use proptest::prelude::*;

use super::*;

fn finding(advisory: &str, level: Option<Level>) -> Finding {
    Finding {
        package: "openssl".to_owned(),
        version: "3.0.11-1".to_owned(),
        installed: vec!["libssl3".to_owned(), "openssl".to_owned()],
        ecosystem: "Debian:12".to_owned(),
        advisory: advisory.to_owned(),
        aliases: vec![format!("DEBIAN-{advisory}")],
        summary: "It breaks".to_owned(),
        rating: level.map(|level| Rating { level, score: Some("9.8".to_owned()) }),
        fixed: Some("3.0.12-1".to_owned()),
    }
}

fn facts(findings: Vec<Finding>) -> Facts<'static> {
    Facts {
        policy: "/var/lib/vimana/policy.toml",
        image: "ghcr.io/acme/app:1",
        by_digest: false,
        signature: None,
        scan: Some(Scan { findings, packages: 1, unread: Vec::new() }),
        today: "2024-06-01".parse().unwrap(),
    }
}

fn judged(policy: &str, facts: &Facts<'_>) -> Result<Vec<String>, String> {
    decide::image(&hac::policy::parse(policy).unwrap(), facts).map_err(|refusal| refusal.to_string())
}

#[test]
fn without_a_policy_everything_runs_and_nothing_is_said() {
    assert_eq!(judged("", &facts(vec![finding("CVE-1", Some(Level::Critical))])), Ok(Vec::new()));
}

#[test]
fn a_finding_above_the_threshold_refuses_and_names_what_where_and_how_to_allow_it() {
    let policy = "[scan]\nadvisories = \"/osv\"\n";
    let error = judged(policy, &facts(vec![finding("CVE-1", Some(Level::Critical))])).unwrap_err();
    for part in [
        "ghcr.io/acme/app:1 may not run here: 1 finding is high or worse",
        "openssl 3.0.11-1 (libssl3): CVE-1, critical (9.8), fixed in 3.0.12-1",
        "\"CVE-1 REASON until YYYY-MM-DD\"",
        "/var/lib/vimana/policy.toml",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let many = (0..20).map(|number| finding(&format!("CVE-{number}"), Some(Level::High))).collect();
    let error = judged(policy, &facts(many)).unwrap_err();
    assert!(error.contains("20 findings are high or worse") && error.contains("and 12 more"), "{error}");
}

#[test]
fn thresholds_ignored_advisories_and_unrated_ones_count_as_the_policy_says() {
    let medium = || facts(vec![finding("CVE-1", Some(Level::Medium))]);
    let unrated = || facts(vec![finding("CVE-1", None)]);
    let with = |rest: &str| format!("[scan]\nadvisories = \"/osv\"\n{rest}\n");
    assert!(judged(&with(""), &medium()).is_ok());
    assert!(judged(&with("threshold = \"medium\""), &medium()).is_err());
    assert!(judged(&with(""), &unrated()).unwrap_err().contains("not rated, which counts as high"));
    assert!(judged(&with("unrated = \"low\""), &unrated()).is_ok());
    let ignoring = |until: &str| {
        with(&format!("threshold = \"low\"\nignore = [\"DEBIAN-CVE-1 not reachable until {until}\"]"))
    };
    let notices = judged(&ignoring("2024-06-01"), &medium()).unwrap();
    assert_eq!(notices, ["the policy ignores DEBIAN-CVE-1"], "on its last day, by any of its names");
    let error = judged(&ignoring("2024-05-31"), &medium()).unwrap_err();
    assert!(error.contains("it was ignored until 2024-05-31"), "{error}");
}

#[test]
fn a_finding_about_several_cves_is_ignored_if_each_of_them_is() {
    let mut both = finding("CVE-1", Some(Level::Critical));
    both.aliases = vec!["X-1".to_owned(), "CVE-2".to_owned()];
    let ignoring = |names: &str| format!("[scan]\nadvisories = \"/osv\"\nignore = [{names}]\n");
    assert!(judged(&ignoring("\"CVE-1 not reachable\""), &facts(vec![both.clone()])).is_err());
    assert!(judged(&ignoring("\"X-1 not reachable\""), &facts(vec![both.clone()])).is_err());
    assert!(judged(&ignoring("\"CVE-1 not reachable\", \"CVE-2 nor this\""), &facts(vec![both])).is_ok());
}

#[test]
fn what_the_policy_demands_and_nobody_looked_for_is_a_no() {
    let mut blind = facts(Vec::new());
    blind.scan = None;
    assert!(judged("[scan]\nadvisories = \"/osv\"\n", &blind).unwrap_err().contains("must be scanned"));
    let signed = "[signatures]\nkeys = [\"a.pub\"]\n";
    assert!(judged(signed, &blind).unwrap_err().contains("weren't looked for"));
    blind.signature = Some(Err("no signature lies beside it".to_owned()));
    assert!(judged(signed, &blind).unwrap_err().contains("no signature lies beside it"));
    blind.signature = Some(Ok("/keys/a.pub".to_owned()));
    assert_eq!(judged(signed, &blind), Ok(vec!["the image is signed: /keys/a.pub".to_owned()]));
}

#[test]
fn an_image_from_elsewhere_or_without_its_digest_is_refused_by_its_name_alone() {
    let policy = |text: &str| hac::policy::parse(text).unwrap();
    let allowed = policy("[registries]\nallowed = [\"ghcr.io/acme\"]\n");
    assert!(decide::name(&allowed, "ghcr.io/acme/app:1", false).is_ok());
    let error = decide::name(&allowed, "docker.io/library/alpine:3", false).unwrap_err().to_string();
    assert_eq!(
        error,
        "docker.io/library/alpine:3 may not run here: registries.allowed has only ghcr.io/acme"
    );
    let pinned = policy("[registries]\nrequire_digest = true\n");
    assert!(
        decide::name(&pinned, "x.org/a", true).is_ok() && decide::name(&pinned, "x.org/a", false).is_err()
    );
}

#[test]
fn a_policy_with_mistakes_lets_nothing_run() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path());
    assert_eq!(Gate::open(&home).unwrap().policy, Policy::default());
    fs::write(home.policy(), "[scan]\nadvisorys = \"x\"\n").unwrap();
    let error = Gate::open(&home).unwrap_err().to_string();
    assert!(error.contains("policy.toml:2:1") && error.contains("did you mean `advisories`?"), "{error}");
    fs::remove_file(home.policy()).unwrap();
    fs::create_dir(home.policy()).unwrap();
    assert!(matches!(Gate::open(&home), Err(GateError::Read { .. })));
}

proptest! {
    #[test]
    fn a_stricter_threshold_never_lets_more_through(
        levels in prop::collection::vec(prop::option::of(0_usize..4), 0..6), low in 0_usize..4, high in 0_usize..4
    ) {
        let findings: Vec<Finding> = levels.iter().enumerate()
            .map(|(number, level)| finding(&format!("CVE-{number}"), level.map(|level| Level::ALL[level])))
            .collect();
        let with = |level: usize| format!("[scan]\nadvisories = \"/osv\"\nthreshold = \"{}\"\n", Level::ALL[level]);
        let (strict, lax) = (low.min(high), low.max(high));
        if judged(&with(strict), &facts(findings.clone())).is_ok() {
            prop_assert!(judged(&with(lax), &facts(findings)).is_ok());
        }
    }
}
