//! Printing and reading again gives the same manifest, in both formats; nothing panics on any text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use hac::model::*;
use hac::peer::Peer;
use hac::units::*;
use hac::words::Word;
use hac::{Format, Manifest};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn word<T: Word + std::fmt::Debug>() -> impl Strategy<Value = T> {
    select(T::ALL)
}

/// Any text that a program can be given; often one that a format could take for something else.
fn text() -> impl Strategy<Value = String> {
    let tricky = select(vec![
        "",
        "true",
        "no",
        "null",
        "~",
        "1.0",
        "0x10",
        "1e3",
        "- a",
        "a: b",
        "# c",
        "'",
        "\"",
        "\\",
        "&a",
        "*a",
        "!t",
        "[",
        "{",
        "a\nb",
        "\n",
        " a ",
        "\t",
        "\r\n",
        "é\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{7f}",
        "%",
        "|",
        ">",
        "@",
        "...",
        "---",
        "<<",
        "=",
        "12:30:45",
        "2026-01-01",
        ".inf",
        "\u{fffe}",
        "\u{1}",
        "😀",
    ]);
    prop_oneof![
        tricky.prop_map(str::to_owned),
        "[a-zA-Z0-9 _./:-]{0,12}",
        "\\PC{0,6}",
        any::<String>().prop_map(|text| text.replace('\0', "")),
    ]
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]([a-z0-9-]{0,8}[a-z0-9])?",
        select(vec!["no", "1", "1e3", "0x1", "null"]).prop_map(str::to_owned)
    ]
}

fn image() -> impl Strategy<Value = String> {
    "[a-z]{1,6}(:[0-9]{4})?/[a-zA-Z0-9._-]{1,12}(:[a-z0-9.]{1,6})?(@sha256:[0-9a-f]{8})?"
}

fn env() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text().prop_filter("a name", |name| !name.is_empty() && !name.contains('=')), text(), 0..4)
}

fn command() -> impl Strategy<Value = Option<Vec<String>>> {
    of(vec(text(), 1..4))
}

fn scaling() -> impl Strategy<Value = Option<Scaling>> {
    of((1u32..5, 0u32..5, word::<ScalingMetric>(), 1u32..=100)
        .prop_filter("a page", |(_, _, metric, _)| *metric != ScalingMetric::Workload)
        .prop_map(|(min, more, metric, target)| Scaling {
            min,
            max: min + more,
            metric,
            target,
            series: None,
        }))
}

fn deployment(range: (u32, u32)) -> impl Strategy<Value = Deployment> {
    (
        image(),
        command(),
        of(vec(text(), 0..3)),
        env(),
        btree_set("[a-zA-Z_][a-zA-Z0-9_.-]{0,6}", 0..3),
        of("[a-z0-9]{1,6}(:[a-z0-9]{1,4})?"),
        (of("/[a-z0-9 é]{0,6}"), any::<bool>()),
        range.0..=range.1,
    )
        .prop_map(|(image, command, args, env, secrets, user, (workdir, readonly_root), replicas)| {
            Deployment {
                image,
                command,
                args,
                env,
                secrets: secrets.into_iter().collect(),
                user,
                workdir,
                readonly_root,
                replicas,
            }
        })
}

fn hardware() -> impl Strategy<Value = (Resources, Virtualization)> {
    let accelerators = vec((word::<AcceleratorKind>(), of(text()), 1u32..9), 0..3);
    let resources = (
        1u32..100_000,
        (256u64 << 20)..(1 << 45),
        (of(1u64..(1 << 50)), 1u32..100_000, 0u32..10_000_000),
        accelerators,
        of(1u32..1_000_000),
        of(1u64..(1 << 40)),
        any::<bool>(),
        word::<Class>(),
    );
    let isolation =
        word::<Isolation>().prop_flat_map(|isolation| (Just(isolation), of(select(isolation.providers()))));
    (resources, isolation, word::<Level>(), word::<Level>(), any::<bool>()).prop_map(
        |(
            (cpu, memory, (storage, pids, table_elements), accelerators, iops, rate, cpu_pinning, class),
            (isolation, provider),
            security,
            performance,
            kvm,
        )| {
            let accelerators: Vec<_> = accelerators
                .into_iter()
                .filter(|(kind, ..)| isolation != Isolation::Wasm || *kind != AcceleratorKind::Gpu)
                .map(|(kind, model, count)| Accelerator { kind, model, count })
                .collect();
            let hardware = isolation.is_hardware_virtualisation();
            let resources = Resources {
                cpu: MilliCpu(cpu),
                memory: Bytes(memory),
                storage: storage.map(Bytes),
                pids,
                table_elements,
                gpu: 0,
                accelerators,
                iops,
                disk_bandwidth: rate.map(ByteRate),
                cpu_pinning,
                class,
            };
            let virtualization = Virtualization {
                isolation,
                provider,
                accel: if hardware && kvm { Accel::Kvm } else { Accel::Auto },
                criteria: Criteria {
                    security: if hardware { security } else { Level::Standard },
                    performance,
                },
            };
            (resources, virtualization)
        },
    )
}

fn networking() -> impl Strategy<Value = Networking> {
    let ports = btree_map(1u16.., text().prop_filter("a name", |name| !name.is_empty()), 0..4);
    let peers = ["public", "any:53/udp", "10.0.0.0/8:5432", "[2001:db8::1]:80-90", "*.example.org:443/tcp"];
    let to = proptest::sample::subsequence(peers.to_vec(), 0..=peers.len());
    (of(1000u64..(1 << 45)), of(1u64..1000), of(1u64..1000), word::<NetworkType>(), ports, to).prop_map(
        |(limit, ingress, egress, network_type, ports, to)| {
            let limit = limit.map(BitRate);
            Networking {
                bandwidth_limit: limit,
                ingress: ingress.map(BitRate).or(limit),
                egress: egress.map(BitRate).or(limit),
                network_type,
                private_network: to.first().map(|_| "shop".to_owned()),
                allow_to: to.iter().map(|peer| peer.parse().unwrap()).collect(),
                allow_from: if to.len() > 1 { vec!["10.0.0.0/8".parse().unwrap()] } else { vec![Peer::ANY] },
                inbound_ports: match network_type {
                    NetworkType::None => BTreeMap::new(),
                    _ => ports.into_iter().map(|(port, name)| (name, port)).collect(),
                },
            }
        },
    )
}

fn mounts() -> impl Strategy<Value = Vec<Mount>> {
    let source =
        prop_oneof![Just(None), label().prop_map(Some), "(/|\\./|\\.\\./|~/)[a-z é]{0,5}".prop_map(Some),];
    vec((source, "/[a-z]{1,4}x", of(1u64..(1 << 50)), any::<bool>()), 0..4).prop_map(|mounts| {
        let mounts = mounts.into_iter().enumerate().map(|(index, (source, destination, size, readonly))| {
            // Each volume once, each destination once.
            let source = source.map(|source| {
                if source.starts_with(['/', '.', '~']) { source } else { format!("{source}{index}") }
            });
            let mut mount = Mount {
                readonly: readonly && source.is_some(),
                source,
                destination: format!("{destination}{index}"),
                size: None,
                encrypted: false,
            };
            mount.encrypted = mount.is_volume() && !readonly;
            mount.size = size.map(Bytes).filter(|_| !mount.is_host_folder());
            mount
        });
        mounts.collect()
    })
}

fn checks() -> impl Strategy<Value = Vec<Check>> {
    let check = (
        word::<CheckKind>(),
        1u16..,
        "/[a-z/?=&]{0,8}",
        vec(text(), 1..3),
        1u64..10_000,
        0u64..10_000,
        any::<u64>(),
        1u32..9,
    );
    let check = check.prop_map(|(kind, port, path, command, timeout, more, grace, retries)| Check {
        kind,
        port: (kind != CheckKind::Exec).then_some(port),
        path: if kind == CheckKind::Http { path } else { "/".to_owned() },
        command: (kind == CheckKind::Exec).then_some(command),
        interval: Duration(timeout + more),
        timeout: Duration(timeout),
        grace_period: Duration(grace),
        retries,
    });
    vec(check, 0..3)
}

fn sidecars() -> impl Strategy<Value = Vec<Sidecar>> {
    let sidecar =
        (label(), image(), command(), of(vec(text(), 0..3)), env(), of(1u32..9999), of(1u64..(50 << 20)));
    vec(sidecar, 0..3).prop_map(|sidecars| {
        let sidecars = sidecars.into_iter().enumerate().map(
            |(index, (name, image, command, args, env, cpu, memory))| Sidecar {
                name: format!("{name}{index}"),
                image,
                command,
                args,
                env,
                cpu: cpu.map(MilliCpu),
                memory: memory.map(Bytes),
            },
        );
        sidecars.collect()
    })
}

fn verification() -> impl Strategy<Value = Verification> {
    (btree_set(word::<VerificationMode>(), 0..4), 4u32..12, any::<bool>()).prop_map(
        |(mut modes, replicas, all)| {
            modes.remove(&VerificationMode::Replay);
            let compared = [VerificationMode::Redundant, VerificationMode::Consensus, VerificationMode::Mpc];
            let replicas = if compared.iter().any(|mode| modes.contains(mode)) { replicas } else { 1 };
            let quorum = if all { replicas } else { replicas - replicas.saturating_sub(1) / 3 };
            Verification { modes, replicas, quorum }
        },
    )
}

fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    let condition = (word::<ConditionKind>(), text(), text(), 0..=i64::MAX.unsigned_abs(), any::<u64>());
    let condition = condition.prop_map(|(kind, first, second, height, amount)| {
        let empty = Condition { kind, ..Condition::default() };
        match kind {
            ConditionKind::Time => Condition { after: Some("2028-02-29T23:59:59Z".to_owned()), ..empty },
            ConditionKind::Height => Condition { height: Some(height), ..empty },
            ConditionKind::Environment => Condition { environment: Some(first), ..empty },
            ConditionKind::Balance => {
                Condition { account: Some(first), at_least: Some(Amount(amount)), ..empty }
            }
            ConditionKind::Zapp => Condition { zapp: Some(first), answer: Some(second), ..empty },
        }
    });
    vec(condition, 0..4)
}

fn operation() -> impl Strategy<Value = (Update, Restart, Task, Failover, Observability, Security)> {
    (
        (word::<UpdateStrategy>(), any::<bool>()),
        (
            word::<RestartPolicy>(),
            1..=u64::MAX,
            any::<u32>(),
            word::<FailoverStrategy>(),
            of(1000..=u64::MAX),
        ),
        (
            any::<bool>(),
            btree_set(word::<MonitoringTool>(), 0..3),
            btree_set(word::<LoggingTool>(), 0..3),
            of((1u16.., "/[a-z?=&%]{0,8}", 1000u64..=3_600_000)),
            word::<AnomalyAction>(),
        ),
        (word::<Attestation>(), btree_set(word::<SecurityModule>(), 0..3)),
    )
        .prop_map(
            |(
                (strategy, auto_revert),
                (policy, backoff, max_attempts, failover, deadline),
                (sidecar, monitoring, logging, page, anomalies),
                (attestation, modules),
            )| {
                let never = policy == RestartPolicy::Never;
                (
                    Update { strategy, max_parallel: 1, auto_revert },
                    Restart { policy, backoff: Duration(backoff), max_attempts },
                    Task { deadline: deadline.map(Duration) },
                    Failover { strategy: if never { FailoverStrategy::None } else { failover } },
                    Observability {
                        sidecar,
                        monitoring: Monitoring(monitoring),
                        logging: Logging(logging),
                        metrics: page.map(|(port, path, interval)| MetricsPage {
                            port: Some(port),
                            path,
                            interval: Duration(interval),
                        }),
                        anomalies,
                    },
                    Security { attestation, isolation: Confinement::new(modules) },
                )
            },
        )
}

fn placement() -> impl Strategy<Value = (Placement, Pricing)> {
    let attributes = btree_map(text(), text(), 0..3);
    let operators: BoxedStrategy<BTreeSet<String>> =
        btree_set(text().prop_filter("a name", |name| !name.is_empty()), 0..3).boxed();
    (of(text()), attributes, operators, of(1..=u64::MAX)).prop_map(|(dvci, attributes, operators, price)| {
        let placement = Placement { dvci, attributes, operators: operators.into_iter().collect() };
        (placement, Pricing { max_per_hour: price.map(Amount) })
    })
}

prop_compose! {
    fn manifest()(scaling in scaling())(
        deployment in deployment(scaling.as_ref().map_or((1, 9), |scaling| (scaling.min, scaling.max))),
        scaling in Just(scaling),
        metadata in (label(), btree_map(text().prop_filter("a name", |name| !name.is_empty()), text(), 0..3)),
        (resources, virtualization) in hardware(),
        networking in networking(),
        (mounts, checks, sidecars) in (mounts(), checks(), sidecars()),
        (update, restart, task, failover, observability, security) in operation(),
        (placement, pricing) in placement(),
        (verification, conditions) in (verification(), conditions()),
    ) -> Manifest {
        let (name, labels) = metadata;
        let mut manifest = Manifest::from_image(&deployment.image);
        if name.len() % 2 == 0 {
            manifest.metadata.name = name;
        }
        manifest.metadata.labels = labels;
        manifest.spec = Spec {
            deployment, resources, virtualization, networking, mounts, checks, sidecars, security, observability,
            scaling, update, restart, task, failover, placement, pricing, verification, conditions,
        };
        manifest
    }
}

/// Reads what was printed and shows it if it can't be read.
fn read(printed: &str, format: Format) -> Result<Manifest, TestCaseError> {
    hac::parse(printed, format).map_err(|errors| {
        TestCaseError::fail(format!("{}\n{printed}", errors.render("printed", printed, false)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_manifest_survives_printing_as_toml_and_as_yaml(manifest in manifest()) {
        prop_assert!(hac::validate(&manifest).is_ok(), "{}", hac::validate(&manifest).unwrap_err());
        let toml = hac::to_toml(&manifest);
        prop_assert_eq!(&read(&toml, Format::Toml)?, &manifest, "{}", toml);
        let yaml = hac::to_yaml(&manifest);
        prop_assert_eq!(&read(&yaml, Format::Yaml)?, &manifest, "{}", yaml);
        prop_assert_eq!(Format::from_content(&toml), Format::Toml);
        prop_assert_eq!(Format::from_content(&yaml), Format::Yaml);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = (hac::parse(&text, Format::Toml), hac::parse(&text, Format::Yaml));
    }

    #[test]
    fn a_damaged_manifest_is_read_or_explained(manifest in manifest(), at in any::<proptest::sample::Index>(), junk in text()) {
        for (printed, format) in [(hac::to_toml(&manifest), Format::Toml), (hac::to_yaml(&manifest), Format::Yaml)] {
            let boundaries: Vec<usize> = printed.char_indices().map(|(offset, _)| offset).collect();
            let at = *at.get(&boundaries);
            let mut damaged = printed.clone();
            damaged.insert_str(at, &junk);
            if let Err(errors) = hac::parse(&damaged, format) {
                prop_assert!(!errors.0.is_empty());
                let _ = (errors.render("damaged", &damaged, true), errors.to_string());
                for error in errors.iter() {
                    let span = error.span.expect("what comes from text has a place");
                    prop_assert!(span.line >= 1 && span.column >= 1 && span.end <= damaged.len());
                }
            }
        }
    }
}

#[test]
fn what_equals_its_default_is_not_printed() {
    let manifest = Manifest::from_image("docker.io/library/nginx:1.29");
    assert_eq!(
        hac::to_toml(&manifest),
        "apiVersion = \"vistara.eigenlayer/v1\"\nkind = \"AVSSpaceCore\"\n\n[metadata]\nname = \"nginx\"\n\n\
         [spec.deployment]\nimage = \"docker.io/library/nginx:1.29\"\n"
    );
    assert_eq!(
        hac::to_yaml(&manifest),
        "apiVersion: vistara.eigenlayer/v1\nkind: AVSSpaceCore\nmetadata:\n  name: nginx\nspec:\n  deployment:\n    \
         image: \"docker.io/library/nginx:1.29\"\n"
    );
}

#[test]
fn scaling_with_its_defaults_is_printed_as_an_empty_table() {
    let mut manifest = Manifest::from_image("a");
    manifest.spec.scaling = Some(Scaling::default());
    assert!(hac::to_toml(&manifest).ends_with("\n[spec.scaling]\n"));
    assert!(hac::to_yaml(&manifest).ends_with("\n  scaling: {}\n"));
}

#[test]
fn json_is_read_as_yaml_is() {
    let json =
        "{\n\t\"spec\": {\n\t\t\"deployment\": { \"image\": \"a\\u0062\", \"args\": [\"x\", 1] }\n\t}\n}\n";
    let manifest = hac::parse(json, Format::Yaml)
        .unwrap_or_else(|error| panic!("{}", error.render("json", json, false)));
    assert_eq!(manifest.spec.deployment.image, "ab");
    assert_eq!(manifest.spec.deployment.args, Some(vec!["x".to_owned(), "1".to_owned()]));
}
