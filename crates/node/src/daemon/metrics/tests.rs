use super::*;
use crate::capacity::Claim;

fn spacecore(deployment: &str, index: u32, phase: &str) -> SpacecoreView {
    SpacecoreView {
        name: format!("{deployment}-{index}"),
        deployment: deployment.to_owned(),
        index,
        revision: 1,
        phase: phase.to_owned(),
        since_unix_ms: 0,
        attempts: 4,
        restarts: 3,
        last_end: None,
        exit_code: None,
        ran_ms: None,
        unhealthy: None,
        image_digest: None,
        ports: Vec::new(),
        notice: None,
    }
}

fn deployment(spacecores: Vec<SpacecoreView>) -> DeploymentView {
    DeploymentView {
        name: "web".to_owned(),
        image: String::new(),
        isolation: String::new(),
        revision: 1,
        wanted_revision: 1,
        replicas: 0,
        ready: 0,
        state: String::new(),
        trouble: None,
        ports: Vec::new(),
        spacecores,
    }
}

/// One workload that serves a page, one that doesn't.
fn seen() -> BTreeMap<String, Seen> {
    let page = "# TYPE jobs counter\njobs_total{kind=\"a\"} 7\nvimana_node_up 0\nvimana_node_up 1\n";
    let good = Seen {
        is_asked: true,
        page: Some(std::sync::Arc::new(crate::exposition::read(page).unwrap())),
        failure: None,
        rounds: Some(12),
        active: [crate::anomaly::Rule::Cpu].into(),
        found: BTreeMap::from([(crate::anomaly::Rule::Cpu, 3)]),
    };
    let silent = Seen { is_asked: true, ..Seen::default() };
    BTreeMap::from([("web-0".to_owned(), silent), ("web-1".to_owned(), good)])
}

fn measured(deployments: &[DeploymentView], stats: &BTreeMap<String, StatsView>) -> String {
    let total = Claim { cpu_guaranteed: 1500, memory_burstable: 7, ..Claim::default() };
    let measured = Measured {
        version: "1.2.3",
        since_unix_ms: 1_700_000_000_123,
        offer: Offer { cpu_millis: 4000, memory: 100, disk: 200, oversell: 150, evict_below: 0 },
        allocation: &Allocation { total, deployments: Vec::new() },
        deployments,
        events: &BTreeMap::from([("applied".to_owned(), 2)]),
        stats,
        silent: 1,
        seen: &seen(),
        sent: Some(&Sent::default()),
    };
    families(&measured).text(Form::OpenMetrics)
}

#[test]
fn a_guest_that_says_nothing_has_no_sample_of_what_it_uses() {
    let stats = StatsView {
        name: "web-0".to_owned(),
        guest_memory_total: 1,
        guest_memory_available: 2,
        guest_cpu_us: 3,
        guest_processes: 4,
        network_received: 5,
        network_sent: 6,
        resident: 7,
        cpu_us: 8_000_009,
        seen_received: Some(10),
        seen_sent: None,
        refused: Some(11),
    };
    let both = deployment(vec![spacecore("web", 0, "ready"), spacecore("web", 1, "running")]);
    let text = measured(&[both], &BTreeMap::from([("web-0".to_owned(), stats)]));
    for line in [
        "vimana_node_info{version=\"1.2.3\"} 1",
        "vimana_node_start_time_seconds 1700000000.123",
        "vimana_offered_cpu_cores 4.000",
        "vimana_allocated_cpu_cores{class=\"guaranteed\"} 1.500",
        "vimana_spacecores{phase=\"ready\"} 1",
        "vimana_spacecores{phase=\"failed\"} 0",
        "vimana_spacecores_silent 1",
        "vimana_spacecore_ready{deployment=\"web\",spacecore=\"web-1\"} 0",
        "vimana_spacecore_restarts_total{deployment=\"web\",spacecore=\"web-1\"} 3",
        "vimana_spacecore_cpu_seconds_total{deployment=\"web\",spacecore=\"web-0\"} 8.000009",
        "vimana_events_total{kind=\"applied\"} 2",
        "vimana_spacecore_network_received_bytes_total{deployment=\"web\",spacecore=\"web-0\"} 10",
        "vimana_spacecore_network_refused_packets_total{deployment=\"web\",spacecore=\"web-0\"} 11",
        "vimana_spacecore_anomalous{deployment=\"web\",spacecore=\"web-1\",rule=\"cpu\"} 1",
        "vimana_spacecore_anomalies_total{deployment=\"web\",spacecore=\"web-1\",rule=\"cpu\"} 3",
        "vimana_spacecore_baseline_rounds{deployment=\"web\",spacecore=\"web-1\"} 12",
        "vimana_workload_up{deployment=\"web\",spacecore=\"web-0\"} 0",
        "vimana_workload_up{deployment=\"web\",spacecore=\"web-1\"} 1",
        "vimana_workload_series{deployment=\"web\",spacecore=\"web-1\"} 2",
        "vimana_workload_dropped_series{deployment=\"web\",spacecore=\"web-1\"} 1",
        "vimana_telemetry_dropped_total{signal=\"logs\"} 0",
        "# TYPE jobs counter",
        "jobs_total{deployment=\"web\",spacecore=\"web-1\",kind=\"a\"} 7",
        "workload_vimana_node_up{deployment=\"web\",spacecore=\"web-1\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let usage = text.lines().filter(|line| line.contains("memory_bytes{") && line.contains("spacecore="));
    assert!(usage.clone().count() == 2 && usage.clone().all(|line| line.contains("\"web-0\"")), "{text}");
}

#[test]
fn there_are_at_most_2000_groups_and_the_rest_is_counted() {
    let many = deployment((0..2500).map(|index| spacecore("web", index, "ready")).collect());
    let text = measured(&[many], &BTreeMap::new());
    assert_eq!(text.lines().filter(|line| line.starts_with("vimana_spacecore_ready{")).count(), 2000);
    assert!(text.contains("\nvimana_spacecores_left_out 500\n"));
    assert!(text.contains("\nvimana_spacecores{phase=\"ready\"} 2500\n"));
}
