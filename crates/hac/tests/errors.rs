//! What a person sees when something is wrong: every message has its place, its line and what would be right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hac::diagnostic::Code;
use hac::{Diagnostics, Format};

fn errors(source: &str, format: Format) -> Diagnostics {
    match hac::parse(source, format) {
        Ok(manifest) => panic!("accepted as {manifest:#?}\n{source}"),
        Err(errors) => errors,
    }
}

/// Puts lines below a manifest that is otherwise right.
fn with(lines: &str) -> String {
    format!("spec.deployment.image = \"a\"\n{lines}\n")
}

#[test]
fn all_errors_are_shown_at_once_with_their_lines() {
    let source = "\
apiVersion = \"vistara.eigenlayer/v9\"
kind = \"AVSSpaceCore\"

[metadata]
name = \"My AVS\"

[spec.deployment]
imgae = \"docker.io/library/nginx:1.29\"
replicas = 5

[spec.resources]
memory = \"8Gx\"
cpu = true

[spec.virtualization]
type = \"Contaner\"

[spec.scaling]
min = 2
max = 4

[spec.networking.inbound_ports]
HTTP = 80
https = 80
";
    let rendered = errors(source, Format::Toml).render("hac.toml", source, false);
    assert_eq!(
        rendered,
        r#"hac.toml:1:14: version "vistara.eigenlayer/v9" of the manifest isn't known to this program
  |
1 | apiVersion = "vistara.eigenlayer/v9"
  |              ^^^^^^^^^^^^^^^^^^^^^^^
  = help: known are vistara.eigenlayer/v1; a newer program may know more

hac.toml:5:8: the name "My AVS" can't be a host name: 'M' isn't one of a-z, 0-9 and -
  |
5 | name = "My AVS"
  |        ^^^^^^^^
  = help: for example "my-avs"

hac.toml:7:7: `spec.deployment.image` is missing: it is what runs
  |
7 | [spec.deployment]
  |       ^^^^^^^^^^
  = help: for example: image = "docker.io/library/nginx:1.29"

hac.toml:8:1: there is no key `imgae` in `spec.deployment`
  |
8 | imgae = "docker.io/library/nginx:1.29"
  | ^^^^^
  = help: did you mean `image`?

hac.toml:9:12: 5 replicas aren't between 2 and 4, where scaling keeps them
   |
9  | replicas = 5
   |            ^
   |
20 | max = 4
   |       - `spec.scaling.max` is here
   = help: start with 2 to 4, or change `spec.scaling`

hac.toml:12:10: "Gx" isn't a unit of size; known are Ki, Mi, Gi, Ti (powers of 1024) and KB, MB, GB, TB (powers of 1000)
   |
12 | memory = "8Gx"
   |          ^^^^^
   = help: `spec.resources.memory` expects a size, such as "8Gi", "512MiB" or "100MB"

hac.toml:13:7: `spec.resources.cpu` expects an amount of CPU, such as "4", 0.5 or "500m", and this is true or false
   |
13 | cpu = true
   |       ^^^^
   = help: for example: cpu = "500m"

hac.toml:16:8: `spec.virtualization.type` can't be "Contaner"
   |
16 | type = "Contaner"
   |        ^^^^^^^^^^
   = help: did you mean "Container"? Known are MicroVM, Unikernel, Container, Wasm, TEE

hac.toml:24:9: the port 80 is used twice, by "HTTP" and "https"
   |
24 | https = 80
   |         ^^
   |
23 | HTTP = 80
   |        -- `spec.networking.inbound_ports.HTTP` is here
   = help: each port is listed once
"#
    );
}

#[test]
fn a_contradiction_of_a_preset_and_a_table_shows_both_lines() {
    let source = "\
[spec.deployment]
image = \"a\"

[spec.operations]
updateStrategy = \"RollingUpdate\"
scaling = \"Fixed\"

[spec.update]
strategy = \"Canary\"

[spec.scaling]
max = 4

[spec.failover]
strategy = \"auto-recovery\"

[spec.restart]
policy = \"never\"
";
    let rendered = errors(source, Format::Toml).render("hac.toml", source, false);
    assert_eq!(
        rendered,
        r#"hac.toml:9:12: two update strategies: Canary here, RollingUpdate as the short form
  |
9 | strategy = "Canary"
  |            ^^^^^^^^
  |
5 | updateStrategy = "RollingUpdate"
  |                  --------------- `spec.operations.updateStrategy` is here
  = help: keep one of the two

hac.toml:11:1: this table scales, and the short form says that the number of replicas is fixed
   |
11 | [spec.scaling]
   | ^^^^^^^^^^^^^^
   |
6  | scaling = "Fixed"
   |           ------- `spec.operations.scaling` is here
   = help: remove one of the two

hac.toml:18:10: a spacecore that is never restarted can't recover automatically
   |
18 | policy = "never"
   |          ^^^^^^^
   |
15 | strategy = "auto-recovery"
   |            --------------- `spec.failover.strategy` is here
   = help: write policy = "on-failure", or remove strategy = "auto-recovery"
"#
    );
}

#[test]
fn a_table_refines_a_preset() {
    let source = with(
        "[spec.operations]\nscaling = \"HorizontalAutoScaling\"\nupdateStrategy = \"canary\"\n[spec.scaling]\nmin = 2\nmetric = \"requests\"\n\
         [spec.update]\nstrategy = \"Canary\"\nauto_revert = false\n[spec.failover]\nstrategy = \"auto-recovery\"\n\
         [spec.restart]\npolicy = \"always\"\n[spec.virtualization.criteria]\nperformance = \"high\"\n\
         [spec.resources]\nclass = \"burstable\"",
    );
    let spec = hac::parse(&source, Format::Toml).unwrap().spec;
    let scaling = spec.scaling.unwrap();
    assert_eq!((scaling.min, scaling.max, scaling.target), (2, 3, 100));
    assert_eq!(spec.deployment.replicas, 2);
    assert_eq!(spec.update.strategy, hac::model::UpdateStrategy::Canary);
    assert!(!spec.update.auto_revert);
    assert_eq!(spec.restart.policy, hac::model::RestartPolicy::Always);
    assert_eq!(spec.resources.class, hac::model::Class::Burstable);
    assert!(spec.resources.cpu_pinning);
}

/// What each rule between keys says, and at which key.
#[test]
fn what_makes_no_sense_together_is_refused() {
    let cases = [
        // lines, key, message
        (
            "spec.resources.memory = \"16Mi\"",
            "spec.resources.memory",
            "16Mi of memory is too little for MicroVM, which needs 80Mi to start",
        ),
        (
            "spec.resources.memory = \"15Mi\"\nspec.virtualization.type = \"Unikernel\"",
            "spec.resources.memory",
            "too little for Unikernel",
        ),
        ("spec.resources.cpu = 0", "spec.resources.cpu", "nothing runs without CPU"),
        (
            "spec.resources.gpu = 1\n[[spec.resources.accelerators]]\nkind = \"gpu\"\ncount = 2",
            "spec.resources.gpu",
            "`gpu` asks for 1 GPUs, and the accelerators are 2",
        ),
        (
            "spec.virtualization.provider = \"Intel SGX\"",
            "spec.virtualization.provider",
            "SGX can't give the isolation MicroVM",
        ),
        (
            "spec.virtualization = { type = \"Container\", provider = \"KVM\" }",
            "spec.virtualization.provider",
            "KVM can't give the isolation Container",
        ),
        (
            "spec.virtualization = { type = \"Wasm\", provider = \"Firecracker\" }",
            "spec.virtualization.provider",
            "Firecracker can't give the isolation Wasm",
        ),
        (
            "spec.virtualization = { type = \"Container\", criteria = { security = \"high\" } }",
            "spec.virtualization.criteria.security",
            "demands hardware virtualisation",
        ),
        (
            "spec.virtualization = { accel = \"tcg\", criteria = { security = \"high\" } }",
            "spec.virtualization.criteria.security",
            "refuses emulation",
        ),
        (
            "spec.virtualization = { accel = \"tcg\", provider = \"Firecracker\" }",
            "spec.virtualization.provider",
            "works with KVM only",
        ),
        (
            "spec.virtualization = { accel = \"kvm\", type = \"Wasm\" }",
            "spec.virtualization.accel",
            "no virtual machine",
        ),
        (
            "spec.networking = { ingress = \"2Gbps\", bandwidth_limit = 1 }",
            "spec.networking.ingress",
            "2Gbps is more than the bandwidth limit of 1Gbps",
        ),
        (
            "spec.networking = { network_type = \"none\", inbound_ports = { a = 1 } }",
            "spec.networking.inbound_ports",
            "nobody can reach these ports",
        ),
        (
            "spec.networking.inbound_ports = { a = 0 }",
            "spec.networking.inbound_ports.a",
            "from 1 to 65535, and this is 0",
        ),
        ("[[spec.mounts]]\ndestination = \"data\"", "spec.mounts[0].destination", "isn't an absolute path"),
        (
            "[[spec.mounts]]\ndestination = \"/a/../etc\"",
            "spec.mounts[0].destination",
            "contains `.`, `..` or `//`",
        ),
        (
            "[[spec.mounts]]\ndestination = \"/\"",
            "spec.mounts[0].destination",
            "can't replace the root folder",
        ),
        (
            "[[spec.mounts]]\ndestination = \"/proc/self\"",
            "spec.mounts[0].destination",
            "/proc is provided by the isolation",
        ),
        (
            "[[spec.mounts]]\ndestination = \"/a\"\n[[spec.mounts]]\ndestination = \"/a/\"",
            "spec.mounts[1].destination",
            "two mounts have the destination \"/a\"",
        ),
        (
            "[[spec.mounts]]\nsource = \"./a\"\ndestination = \"/a\"\nsize = \"1Gi\"",
            "spec.mounts[0].size",
            "has the size that it has",
        ),
        (
            "[[spec.mounts]]\nsource = \"My_Data\"\ndestination = \"/a\"",
            "spec.mounts[0].source",
            "neither a host folder nor the name of a volume",
        ),
        ("[[spec.mounts]]\ndestination = \"/a\"\nreadonly = true", "spec.mounts[0].readonly", "stays empty"),
        ("[[spec.mounts]]\nsource = \"x\"", "spec.mounts[0].destination", "needs a `destination`"),
        ("[[spec.checks]]\ntype = \"http\"", "spec.checks[0].port", "needs a `port`"),
        ("[[spec.checks]]\ntype = \"exec\"", "spec.checks[0].command", "needs a `command`"),
        (
            "[[spec.checks]]\nport = 1\ntimeout = \"20s\"",
            "spec.checks[0].timeout",
            "the timeout 20s is longer than the interval 10s",
        ),
        ("[[spec.checks]]\nport = 1\npath = \"/x\"", "spec.checks[0].path", "type tcp has no path"),
        ("[[spec.checks]]\nport = 1\nretries = 0", "spec.checks[0].retries", "may never fail"),
        ("spec.deployment.replicas = 0", "spec.deployment.replicas", "at least one replica"),
        ("spec.deployment.command = []", "spec.deployment.command", "empty list"),
        ("spec.deployment.workdir = \"srv\"", "spec.deployment.workdir", "absolute path"),
        ("spec.deployment.secrets = [\"a\", \"a\"]", "spec.deployment.secrets[1]", "listed twice"),
        (
            "spec.deployment.secrets = [\"../a\"]",
            "spec.deployment.secrets[0]",
            "can't be the name of a secret",
        ),
        (
            "spec.deployment.env = { \"A=B\" = 1 }",
            "spec.deployment.env.\"A=B\"",
            "can't be the name of a variable",
        ),
        ("spec.scaling = { min = 4, max = 2 }", "spec.scaling.min", "is more than the greatest"),
        ("spec.scaling = { target = 120 }", "spec.scaling.target", "120 % of cpu can't be reached"),
        ("spec.update.max_parallel = 2", "spec.update.max_parallel", "when there are at most 1"),
        ("spec.restart.backoff = \"0s\"", "spec.restart.backoff", "restart without end"),
        ("spec.pricing.max_per_hour = 0", "spec.pricing.max_per_hour", "nobody runs anything for 0"),
        (
            "spec.verification = { modes = [\"redundant\"], quorum = 4 }",
            "spec.verification.quorum",
            "can't be reached by 3 nodes",
        ),
        (
            "spec.verification = { modes = [\"redundant\"], replicas = 5, quorum = 2 }",
            "spec.verification.quorum",
            "two different results",
        ),
        (
            "spec.verification = { modes = [\"consensus\"], replicas = 3 }",
            "spec.verification.replicas",
            "can't agree when one of them lies",
        ),
        ("spec.verification.replicas = 3", "spec.verification.replicas", "nothing compares their results"),
        (
            "spec.verification.modes = [\"replay\"]",
            "spec.verification.modes",
            "replay needs bit-exact execution",
        ),
        ("[[spec.conditions]]\ntype = \"height\"", "spec.conditions[0].height", "needs `height`"),
        (
            "[[spec.conditions]]\nafter = \"2026-02-30T00:00:00Z\"",
            "spec.conditions[0].after",
            "isn't a time in UTC",
        ),
        (
            "[[spec.conditions]]\nafter = \"2026-02-03T00:00:00Z\"\nheight = 3",
            "spec.conditions[0].height",
            "has no `height`",
        ),
        ("[[spec.sidecars]]\nname = \"a\"", "spec.sidecars[0].image", "is missing"),
        (
            "[[spec.sidecars]]\nname = \"a\"\nimage = \"b\"\nmemory = \"1Gi\"",
            "spec.sidecars[0].memory",
            "leaves the workload nothing of 512Mi",
        ),
        ("metadata.name = \"-a\"", "metadata.name", "starts or ends with -"),
    ];
    for (lines, key, message) in cases {
        let source = with(lines);
        let errors = errors(&source, Format::Toml);
        let rendered = errors.render("hac.toml", &source, false);
        assert_eq!(errors.0.len(), 1, "{rendered}");
        assert_eq!(errors.0[0].key.as_deref(), Some(key), "{rendered}");
        assert!(errors.0[0].message.contains(message), "{rendered}");
        assert!(errors.0[0].span.is_some_and(|span| span.line >= 2), "{rendered}");
    }
}

#[test]
fn unknown_keys_are_answered_with_what_was_meant() {
    let cases = [
        ("spec.resources.memroy = 1", "did you mean `memory`?"),
        ("spec.resources.cpus = 1", "did you mean `cpu`?"),
        ("spec.memory = 1", "did you mean `spec.resources.memory`?"),
        ("spec.volumes = []", "did you mean `spec.mounts`?"),
        ("spec.deployment.entrypoint = \"x\"", "did you mean `spec.deployment.command`?"),
        ("spec.deployment.workDir = \"/x\"", "did you mean `workdir`?"),
        ("spec.operations.update_strategy = \"x\"", "did you mean `updateStrategy`?"),
        ("spec.failover.xyzzy = 1", "known here: strategy"),
        ("image = \"b\"", "did you mean `spec.deployment.image`?"),
    ];
    for (lines, help) in cases {
        let errors = errors(&format!("{lines}\nspec.deployment.image = \"a\"\n"), Format::Toml);
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert_eq!(errors.0[0].code, Code::UnknownKey);
        assert_eq!(errors.0[0].help.as_deref(), Some(help));
    }
}

#[test]
fn wrong_types_say_what_is_expected() {
    let cases = [
        (
            "spec.deployment.replicas = \"3\"",
            "`spec.deployment.replicas` expects a whole number, and this is a string",
            "write 3 without quotes",
        ),
        (
            "spec.deployment.command = \"sh -c x\"",
            "`spec.deployment.command` expects a list, and this is a string",
            "write it as a list: [\"sh -c x\"]",
        ),
        (
            "spec.mounts = { destination = \"/a\" }",
            "`spec.mounts` expects a list, and this is a table",
            "write each as an item of its own: [[spec.mounts]], or `- ` in YAML",
        ),
        (
            "spec.observability.sidecar = \"yes\"",
            "`spec.observability.sidecar` expects true or false, and this is a string",
            "write true or false, without quotes",
        ),
        (
            "spec.observability.metrics = \"/metrics\"",
            "`spec.observability.metrics` expects a table, and this is a string",
            "it holds keys such as `port`",
        ),
        (
            "spec.observability.anomalies = \"kill\"",
            "`spec.observability.anomalies` can't be \"kill\"",
            "known are alert, pause, stop, ignore",
        ),
        (
            "spec.resources = 4",
            "`spec.resources` expects a table, and this is a number",
            "it holds keys such as `cpu`",
        ),
        (
            "spec.resources.gpu = -1",
            "`spec.resources.gpu` expects a whole number from 0 to 4294967295, and this is -1",
            "",
        ),
        (
            "spec.resources.gpu = 1.5",
            "`spec.resources.gpu` expects a whole number from 0 to 4294967295, and this is 1.5",
            "",
        ),
        (
            "spec.networking.egress = \"10MBps\"",
            "\"10MBps\" is a rate in bytes; this one is in bits: write Mbps, not MBps (1 MBps = 8 Mbps)",
            "`spec.networking.egress` expects a rate in bits a second, such as \"1Gbps\" or \"100Mbps\" (a bare number is in Gbps)",
        ),
        (
            "spec.security.isolation = \"enforced via SELinux/AppArmour\"",
            "`spec.security.isolation` can't be \"AppArmour\"",
            "did you mean \"AppArmor\"? Known are SELinux, AppArmor, seccomp",
        ),
        (
            "spec.deployment.env = { A = \"\\u0000\" }",
            "`spec.deployment.env.A` contains a NUL character, which no program could be given",
            "remove the \\0",
        ),
    ];
    for (lines, message, help) in cases {
        let errors = errors(&with(lines), Format::Toml);
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert_eq!(errors.0[0].code, Code::Value);
        assert_eq!(errors.0[0].message, message);
        assert_eq!(errors.0[0].help.as_deref().unwrap_or_default(), help);
    }
}

#[test]
fn what_could_grow_without_bound_is_refused() {
    let image = "spec: {deployment: {image: a}}";
    let deep_yaml = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_toml = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let dotted = format!("{}b = 1", "a.".repeat(400_000));
    let long = format!("# {}\n", "x".repeat(1 << 20));
    let many = format!("a: [{}1]", "1,".repeat(60_000));
    let bomb = "a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n";
    let cases = [
        (deep_yaml.as_str(), Format::Yaml, "nested more than 32 deep"),
        (deep_toml.as_str(), Format::Toml, "nested more than 32 deep"),
        (dotted.as_str(), Format::Toml, "nested more than 32 deep"),
        (long.as_str(), Format::Toml, "at most 1048576 are read"),
        (many.as_str(), Format::Yaml, "more than 10000 values"),
        (bomb, Format::Yaml, "anchors (`&name`) and aliases (`*name`) aren't accepted"),
        ("a: !!binary x", Format::Yaml, "tags (`!name`) aren't accepted"),
        ("a: 1\na: 2", Format::Yaml, "the key `a` is here a second time"),
        ("a = 1\na = 2", Format::Toml, "duplicate key"),
        ("---\na: 1\n---\nb: 2", Format::Yaml, "a second document starts here"),
        ("- a", Format::Yaml, "the manifest is a list, where it must be a table"),
        ("[a]: 1", Format::Yaml, "a key must be a word"),
    ];
    assert!(hac::parse(image, Format::Yaml).is_ok());
    for (source, format, message) in cases {
        let errors = errors(source, format);
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert_eq!(errors.0[0].code, Code::Syntax);
        assert!(errors.0[0].message.contains(message), "{errors}");
    }
}

#[test]
fn a_file_of_another_kind_gets_a_hundred_errors_and_their_number() {
    let source: String = (0..500).map(|index| format!("key{index} = 1\n")).collect();
    let errors = errors(&source, Format::Toml);
    assert_eq!(errors.0.len(), 101);
    assert_eq!(errors.0[100].message, "401 more errors aren't shown");
}

#[test]
fn yaml_given_as_toml_is_told_so() {
    let errors = errors("spec:\n  deployment:\n", Format::Toml);
    let help = errors.0[0].help.as_deref();
    assert_eq!(help, Some("it looks like YAML: name the file .yaml, or write `key = value`"));
}

#[test]
fn columns_count_characters_and_hostile_text_never_reaches_the_terminal() {
    let source = "spec: {deployment: {image: \"ä\u{1b}]0;x\u{7}\u{202e}\", replicaz: 1}}";
    let errors = errors(&source.replace('\u{1b}', "é").replace('\u{7}', "ü"), Format::Yaml);
    assert_eq!(errors.0[0].span.map(|span| (span.line, span.column)), Some((1, 40)));
    let source = "spec.deployment.image = \"a\"\nspec.\"\\u001B[2J\u{202e}\" = 1\n";
    let rendered = self::errors(source, Format::Toml).render("a\u{1b}.toml", source, false);
    assert!(!rendered.contains(['\u{1b}', '\u{202e}']), "{rendered:?}");
}

#[test]
fn a_long_line_is_shown_around_its_mark() {
    let source = format!("spec: {{deployment: {{image: \"{}\", replicaz: 1}}}}", "x".repeat(5000));
    let rendered = errors(&source, Format::Yaml).render("a", &source, false);
    assert!(rendered.lines().all(|line| line.chars().count() < 160), "{rendered}");
    let lines: Vec<_> = rendered.lines().collect();
    let mark = lines[3].find('^').unwrap();
    assert_eq!(&lines[2][mark..mark + 8], "replicaz");
}

#[test]
fn colour_is_only_written_when_asked_for() {
    let source = "x = 1";
    let errors = errors(source, Format::Toml);
    assert!(!errors.render("a", source, false).contains('\u{1b}'));
    assert!(errors.render("a", source, true).contains("\u{1b}[1;31m"));
}

#[test]
fn diagnostics_are_json_for_programs() {
    let source = with("spec.resources.memroy = 1");
    let json = serde_json::to_value(errors(&source, Format::Toml)).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{
            "code": "unknown-key",
            "message": "there is no key `memroy` in `spec.resources`",
            "help": "did you mean `memory`?",
            "key": "spec.resources.memroy",
            "span": { "line": 2, "column": 16, "start": 43, "end": 49 },
        }])
    );
}

#[test]
fn a_manifest_made_by_a_program_is_checked_too() {
    let mut manifest = hac::Manifest::from_image("docker.io/library/nginx:1.29@sha256:00");
    assert_eq!(manifest.metadata.name, "nginx");
    assert!(hac::validate(&manifest).is_ok());
    manifest.spec.resources.memory = hac::units::Bytes::from_mib(1);
    let errors = hac::validate(&manifest).unwrap_err();
    assert_eq!(errors.0[0].span, None);
    assert!(
        errors
            .render("the command line", "", false)
            .starts_with("the command line: 1Mi of memory is too little")
    );
}

#[test]
fn formats_are_recognised_by_name_and_else_by_content() {
    assert_eq!(Format::from_file_name("a/hac.TOML"), Some(Format::Toml));
    assert_eq!(Format::from_file_name("hac.yml"), Some(Format::Yaml));
    assert_eq!(Format::from_file_name("hac.json"), Some(Format::Yaml));
    assert_eq!(Format::from_file_name("hac"), None);
    assert_eq!(Format::from_content("# x\n\n[spec.deployment]\n"), Format::Toml);
    assert_eq!(Format::from_content("kind = \"a:b\"\n"), Format::Toml);
    assert_eq!(Format::from_content("image: a=b\n"), Format::Yaml);
    assert_eq!(Format::from_content("{\"spec\": {}}"), Format::Yaml);
}

#[test]
fn names_are_derived_from_every_form_of_image_reference() {
    for (image, name) in [
        ("nginx", "nginx"),
        ("docker://ghcr.io:443/acme/Web_App:1.2@sha256:ab", "web-app"),
        ("localhost:5000/a/b", "b"),
        ("oci:layout:tag", "layout"),
        ("oci-archive:/tmp/my.image.tar", "my-image"),
        ("docker-archive:x.tar:y", "x"),
        ("___", "spacecore"),
        ("", "spacecore"),
    ] {
        assert_eq!(hac::Manifest::from_image(image).metadata.name, name, "{image}");
    }
}

#[test]
fn metrics_that_cant_be_read_say_why() {
    let cases = [
        (
            "spec.scaling = { metric = \"workload\" }",
            "a workload's own metric needs a `series`",
            "write its name, such as series = \"queue_length\"",
        ),
        (
            "spec.scaling = { metric = \"workload\", series = \"a\" }",
            "nobody says where the workload serves its metrics",
            "write spec.observability.metrics = { port = 9090 }",
        ),
        ("spec.scaling = { series = \"a\" }", "the metric cpu has no series", "write metric = \"workload\""),
        (
            "spec.observability.metrics.port = 1\nspec.scaling = { metric = \"workload\", series = \"a{b}\" }",
            "\"a{b}\" can't be the name of a metric",
            "write it without labels; the values of all of its labels are added",
        ),
        (
            "spec.observability.metrics.path = \"/m\"",
            "metrics need a `port`",
            "write the port inside on which the workload serves its metrics, such as port = 9090",
        ),
        (
            "spec.observability.metrics = { port = 1, path = \"a b\" }",
            "\"a b\" can't be the path of a request",
            "it starts with / and has no blanks",
        ),
        (
            "spec.observability.metrics = { port = 1, interval = \"10ms\" }",
            "metrics can't be read every 10ms",
            "write \"1s\" to \"1h\"; \"15s\" is common",
        ),
    ];
    for (line, message, help) in cases {
        let errors = errors(&with(line), Format::Toml);
        let error = errors.iter().next().unwrap();
        assert_eq!(
            (error.code, error.message.as_str(), error.help.as_deref()),
            (Code::Conflict, message, Some(help))
        );
    }
}
