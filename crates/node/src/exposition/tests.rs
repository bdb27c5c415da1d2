use proptest::prelude::*;

use super::merge::{Whose, merge};
use super::*;

const PAGE: &str = "\
# HELP http_requests_total Requests, by \"code\".
# TYPE http_requests_total counter
http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000
http_requests_total{method=\"post\",code=\"400\",} 3
# A comment.
# TYPE latency histogram
latency_bucket{le=\"0.1\"} 5
latency_bucket{le=\"+Inf\"} 7
latency_sum 0.75
latency_count 7
# TYPE rpc summary
rpc{quantile=\"0.5\"} 4773
rpc_sum 1.7560473e+07
rpc_count 2693
  metric_without_type   NaN
path{where=\"C:\\\\DIR\\n\\\"x\\\"\"} -inf
";

fn problem(text: &str) -> (usize, &'static str) {
    let error = read(text).unwrap_err();
    (error.line, error.problem)
}

#[test]
fn a_page_is_read_as_the_specification_writes_it() {
    let page = read(PAGE).unwrap();
    let kinds: Vec<_> = page
        .families
        .iter()
        .map(|(name, family)| (name.as_str(), family.kind, family.samples.len()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("http_requests", Kind::Counter, 2),
            ("latency", Kind::Histogram, 4),
            ("metric_without_type", Kind::Unknown, 1),
            ("path", Kind::Unknown, 1),
            ("rpc", Kind::Summary, 3),
        ]
    );
    let requests = &page.families["http_requests"];
    assert_eq!(requests.help, "Requests, by \"code\".");
    assert_eq!(
        (requests.samples[0].name.as_str(), requests.samples[0].value.as_str()),
        ("http_requests_total", "1027")
    );
    assert_eq!(page.families["metric_without_type"].samples[0].value, "NaN");
    let path = &page.families["path"].samples[0];
    assert_eq!((path.labels[0].1.as_str(), path.value.as_str()), ("C:\\DIR\n\"x\"", "-Inf"));
    assert_eq!(page.left_out, 0);
    assert_eq!(
        (page.sum("http_requests_total"), page.sum("latency_count"), page.sum("other")),
        (Some(1030.0), Some(7.0), None)
    );
}

#[test]
fn openmetrics_is_read_too() {
    let page = read(
        "# TYPE a counter\n# UNIT a seconds\na_total 1.5 1395066363.123\na_created 7\n\
         # TYPE b histogram\nb_bucket{le=\"1\"} 3 # {trace=\"x\"} 0.7\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n",
    )
    .unwrap();
    assert_eq!(page.families["a"].samples[0].value, "1.5");
    assert_eq!(page.families["b"].samples[0].value, "3");
    assert_eq!(page.families["c_info"].kind, Kind::Unknown);
}

#[test]
fn a_line_that_isnt_understood_makes_the_page_worthless() {
    assert_eq!(problem("a 1\nb"), (2, "has no value"));
    assert_eq!(problem("a{x=1} 1").1, "has a label whose value isn't in quotes");
    assert_eq!(problem("a{x=\"1} 1").1, "has a quote that nothing closes");
    assert_eq!(problem("a{x=\"1\" y=\"2\"} 1").1, "has something other than a comma behind a label");
    assert_eq!(problem("a{x=\"1\",x=\"2\"} 1").1, "has a label twice");
    assert_eq!(problem("a{x=\"\\q\"} 1").1, "has a backslash before what needs none");
    assert_eq!(problem("a one").1, "has no number as its value");
    assert_eq!(problem("a 1 2 3").1, "has more behind its value than a time");
    assert_eq!(problem("1a 1").1, "begins with what can't be a metric's name");
    assert_eq!(problem("# EOF\na 1"), (2, "stands behind the page's end"));
    assert_eq!(problem("# TYPE a gauge\n# TYPE a gauge").1, "gives a second type to a metric");
    assert_eq!(read("<html>\n").unwrap_err().to_string(), "line 1 of the page has no value");
}

#[test]
fn what_is_beyond_the_bounds_is_left_out_and_counted() {
    let many: String = (0..SERIES_MAX + 5).map(|index| format!("a{{i=\"{index}\"}} 1\n")).collect();
    let page = read(&many).unwrap();
    assert_eq!((page.families["a"].samples.len(), page.left_out), (SERIES_MAX, 5));
    let long = "x".repeat(VALUE_MAX + 1);
    let labels: Vec<String> = (0..=LABELS_MAX).map(|index| format!("l{index}=\"\"")).collect();
    let name = "n".repeat(NAME_MAX + 1);
    let page =
        read(&format!("a{{v=\"{long}\"}} 1\nb{{{}}} 1\n{name} 1\nc 1\nc 2\n", labels.join(","))).unwrap();
    assert_eq!((page.families.len(), page.left_out), (1, 4));
    assert_eq!(page.families["c"].samples[0].value, "1");
}

#[test]
fn nobody_speaks_for_the_node_or_for_another() {
    let page = read("vimana_node_up{deployment=\"other\",spacecore=\"other\"} 0\n").unwrap();
    let sample = &page.families["workload_vimana_node_up"].samples[0];
    assert_eq!(sample.name, "workload_vimana_node_up");
    let names: Vec<&str> = sample.labels.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["exported_deployment", "exported_spacecore"]);
}

#[test]
fn pages_are_merged_by_family_and_contradictions_are_left_out() {
    let (one, two) = (read("# TYPE a counter\na_total 1\nb 1\n").unwrap(), read("a_total 7\nb 2\n").unwrap());
    let three = read("# TYPE a gauge\na 3\nb 3\n").unwrap();
    let whose = |spacecore| Whose { deployment: "d", spacecore };
    let merged = merge([(whose("one"), &one), (whose("two"), &two), (whose("three"), &three)]);
    let counts: Vec<_> = merged.families.iter().map(|(name, family)| (*name, family.samples.len())).collect();
    assert_eq!(counts, [("a", 1), ("b", 3)]);
    assert_eq!(merged.families["b"].samples[1].labels, [("deployment", "d"), ("spacecore", "two")]);
    let left_out: Vec<u64> = merged.left_out.iter().map(|(_, count)| *count).collect();
    assert_eq!(left_out, [0, 1, 1]);
}

proptest! {
    #[test]
    fn no_page_makes_the_reader_panic(text in "(#|TYPE|HELP|EOF|[a-c_]{1,2}|counter|\\{|\\}|=|\"|\\\\|,| |\n|1|NaN|\\PC){0,40}") {
        let _ = read(&text);
    }

    #[test]
    fn every_number_that_is_read_is_one_again(value in any::<f64>(), text in "\\PC{0,20}") {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let page = read(&format!("a{{t=\"{escaped}\"}} {value:e}\n")).unwrap();
        let sample = &page.families["a"].samples[0];
        let again: f64 = sample.value.parse().unwrap();
        prop_assert!(again == value || again.is_nan() && value.is_nan());
        prop_assert_eq!(&sample.labels[0].1, &text);
    }
}
