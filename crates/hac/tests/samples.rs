//! The two samples of the first version's proposal are valid input.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hac::model::*;
use hac::units::{BitRate, Bytes, MilliCpu};
use hac::{Format, Manifest};

const TOML: &str = include_str!("samples/sample.toml");
/// As it was printed: indented with spaces and tabs.
const YAML_WITH_TABS: &str = include_str!("samples/sample-with-tabs.yaml");

fn parsed(source: &str, format: Format) -> Manifest {
    hac::parse(source, format).unwrap_or_else(|error| panic!("{}", error.render("sample", source, false)))
}

#[test]
fn the_toml_sample_is_read_as_it_is_printed() {
    let manifest = parsed(TOML, Format::Toml);
    let spec = &manifest.spec;
    assert_eq!(manifest.metadata.name, "spacecore-sample");
    assert_eq!(spec.deployment.image, "registry/path/avs-spacecore:latest");
    assert_eq!(spec.resources.cpu, MilliCpu::from_cores(4));
    assert_eq!(spec.resources.memory, Bytes::from_gib(8));
    assert_eq!(spec.resources.storage, Some(Bytes::from_gib(100)));
    assert_eq!(spec.virtualization.isolation, Isolation::MicroVM);
    assert_eq!(spec.virtualization.provider, Some(Provider::Kvm));
    assert_eq!(spec.virtualization.criteria.security, Level::High);
    assert_eq!(spec.networking.bandwidth_limit, Some(BitRate(10_000_000_000)));
    assert_eq!(spec.networking.ingress, Some(BitRate(1_000_000_000)));
    assert_eq!(spec.networking.inbound_ports.get("HTTP"), Some(&80));
    assert_eq!(spec.networking.inbound_ports.get("https"), Some(&443));
    assert_eq!(spec.security.attestation, Attestation::Bls);
    assert_eq!(spec.security.isolation.0.len(), 3);
    assert!(spec.observability.sidecar);
    assert_eq!(spec.observability.monitoring.0.len(), 2);
    assert_eq!(spec.observability.logging.0.len(), 3);
    assert_eq!(spec.update.strategy, UpdateStrategy::RollingUpdate);
    assert_eq!(spec.scaling, Some(Scaling::default()));
    assert_eq!(spec.failover.strategy, FailoverStrategy::AutoRecovery);
    assert_eq!(spec.restart.policy, RestartPolicy::OnFailure);
}

#[test]
fn the_yaml_sample_is_the_same_manifest_once_its_tabs_are_spaces() {
    let yaml = parsed(&YAML_WITH_TABS.replace('\t', "  "), Format::Yaml);
    let mut toml = parsed(TOML, Format::Toml);
    // The two samples name different images.
    toml.spec.deployment.image = "registry/path/to/spacecore:image".to_owned();
    assert_eq!(yaml, toml);
}

#[test]
fn a_tab_in_yaml_gets_an_error_that_says_so_and_where() {
    let errors = hac::parse(YAML_WITH_TABS, Format::Yaml).unwrap_err();
    let rendered = errors.render("hac.yaml", YAML_WITH_TABS, false);
    assert_eq!(
        rendered,
        "hac.yaml:17:1: line 17 is indented with a tab, which YAML forbids, and 5 more lines have one\n   \
         |\n17 |    bandwidth_limit: 10 # in Gpbs\n   | ^\n   = help: indent with spaces: two for each tab\n"
    );
}

#[test]
fn the_samples_survive_printing_in_both_formats() {
    let manifest = parsed(TOML, Format::Toml);
    assert_eq!(parsed(&hac::to_toml(&manifest), Format::Toml), manifest);
    assert_eq!(parsed(&hac::to_yaml(&manifest), Format::Yaml), manifest);
}
