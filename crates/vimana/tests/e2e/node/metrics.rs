//! `GET /metrics`, as a scraper reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use super::rig::{Node, curl};
use crate::support::{eventually, kill};

/// The families with their kinds, and the samples in their order: the family, its labels, its value.
struct Scraped {
    kinds: BTreeMap<String, String>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Reads the text line by line, and insists on what the specification demands.
fn scrape(node: &Node) -> Scraped {
    let (status, text) = curl(node, &[], "/metrics");
    assert_eq!(status, 200, "{text}");
    let text = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
    let mut scraped = Scraped { kinds: BTreeMap::new(), samples: Vec::new() };
    let (mut current, mut seen) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# ") {
            let words: Vec<&str> = about.splitn(3, ' ').collect();
            match words[..] {
                ["TYPE", name, kind] => {
                    assert!(["gauge", "counter", "info"].contains(&kind), "{line}");
                    assert!(
                        scraped.kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                        "twice: {line}"
                    );
                    current = name.to_owned();
                }
                ["UNIT", name, unit] => {
                    assert!(name == current && name.ends_with(&format!("_{unit}")), "{line}")
                }
                ["HELP", name, _] => assert_eq!(name, current, "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "twice: {line}");
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let suffix = match scraped.kinds[&current].as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert_eq!(name, format!("{current}{suffix}"), "a sample stands with its family");
        let labels = labels.strip_suffix('}').unwrap();
        // No name here has a comma or a quote in it.
        let pairs =
            labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap());
        let labels =
            pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect();
        scraped.samples.push((current.clone(), labels, value.parse().unwrap()));
    }
    scraped
}

impl Scraped {
    fn of(&self, family: &str) -> Vec<(String, f64)> {
        let of_it = self.samples.iter().filter(|(name, _, _)| name == family);
        of_it
            .map(|(_, labels, value)| (labels.values().next_back().cloned().unwrap_or_default(), *value))
            .collect()
    }

    fn value(&self, family: &str, label: &str) -> Option<f64> {
        self.of(family).into_iter().find(|(found, _)| found == label).map(|(_, value)| value)
    }
}

#[test]
fn every_replica_is_measured_and_a_guest_that_is_stuck_holds_nobody_up() {
    let Some(mut node) = Node::new("every_replica_is_measured_and_a_guest_that_is_stuck_holds_nobody_up")
    else {
        return;
    };
    assert_eq!(scrape(&node).value("vimana_spacecores", "ready"), Some(0.0));
    node.apply("web", "replicas = 3", "", &[]);
    let found = scrape(&node);
    assert_eq!(found.value("vimana_spacecores", "ready"), Some(3.0));
    let names = ["web", "web-1", "web-2"];
    for family in [
        "vimana_spacecore_ready",
        "vimana_spacecore_attempts",
        "vimana_spacecore_memory_bytes",
        "vimana_spacecore_cpu_seconds",
        "vimana_spacecore_guest_memory_bytes",
    ] {
        let shown: Vec<String> = found.of(family).into_iter().map(|(name, _)| name).collect();
        assert_eq!(shown, names, "{family}");
    }
    assert!(found.of("vimana_spacecore_memory_bytes").iter().all(|(_, bytes)| *bytes > 0.0));
    assert_eq!(found.value("vimana_allocated_memory_bytes", "burstable"), Some(48.0 * 1024.0 * 1024.0));
    assert_eq!(found.value("vimana_events", "applied"), Some(1.0));

    let dashboard = include_str!("../../../../../contrib/grafana-node.json");
    let panels: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let expressions: Vec<&str> = panels["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(expressions.len() >= 6);
    let words = expressions
        .iter()
        .flat_map(|expression| expression.split(|c: char| c != '_' && !c.is_alphanumeric()));
    for word in words.filter(|word| word.starts_with("vimana_")) {
        let is_there = found.kinds.iter().any(|(name, kind)| match kind.as_str() {
            "counter" => word == format!("{name}_total"),
            "info" => word == format!("{name}_info"),
            _ => word == name,
        });
        assert!(is_there, "the dashboard asks for {word}");
    }

    let stuck = u32::try_from(node.keepers()[0]).unwrap();
    kill(stuck, libc::SIGSTOP);
    let begun = Instant::now();
    let found = scrape(&node);
    let took = begun.elapsed();
    kill(stuck, libc::SIGCONT);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(found.value("vimana_spacecores_silent", ""), Some(1.0));
    assert_eq!(found.of("vimana_spacecore_memory_bytes").len(), 2);
    assert_eq!(found.of("vimana_spacecore_ready").len(), 3);
    eventually("it speaks again", 20, || {
        (scrape(&node).of("vimana_spacecore_memory_bytes").len() == 3).then_some(())
    });
    node.clear();
}

#[test]
fn the_content_type_is_that_of_openmetrics_and_the_document_has_it() {
    let Some(mut node) = Node::new("the_content_type_is_that_of_openmetrics_and_the_document_has_it") else {
        return;
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let socket = node.home.path().join("node/node.sock");
    let headers = Command::new("curl")
        .args(["-sD-", "-o/dev/null", "--unix-socket", socket.to_str().unwrap(), "http://node/metrics"])
        .output()
        .unwrap();
    let headers = String::from_utf8_lossy(&headers.stdout).into_owned();
    assert!(headers.contains(&format!("content-type: {kind}")), "{headers}");
    let (_, document) = curl(&node, &[], "/v1/openapi.json");
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert!(document["paths"]["/metrics"]["get"]["responses"]["200"]["content"][kind].is_object());
    node.clear();
}
