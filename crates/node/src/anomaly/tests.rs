use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { cpu_milli: 1000, memory: 1 << 30, own_kernel: true, counts_traffic: true };
const MINUTE: u64 = 60_000;

/// Numbers that look random and are the same every time.
struct Noise(u64);

impl Noise {
    /// From 0 to 999.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % 1000
    }
}

/// A service with day and night, jitter, jobs each hour, crashes now and then.
struct Service {
    noise: Noise,
    minute: u64,
    attempt: u64,
    usage: Usage,
    /// What is added by something that isn't ordinary.
    burn_us: u64,
    sends: u64,
    leaks: u64,
    refuses: u64,
    lies: bool,
}

impl Service {
    fn new(seed: u64) -> Self {
        Self {
            noise: Noise(seed),
            minute: 0,
            attempt: 1,
            usage: Usage { traffic: Some((0, 0)), guest_memory: 1_000_000_000, ..Usage::default() },
            burn_us: 0,
            sends: 0,
            leaks: 0,
            refuses: 0,
            lies: false,
        }
    }

    /// From 0 at midnight to 1000 at noon, and back.
    fn daylight(&self) -> u64 {
        let minute = self.minute % 1440;
        let half = minute.min(1440 - minute);
        // A smooth step.
        let x = half * 1000 / 720;
        x * x / 1000 * (3000 - 2 * x) / 1000
    }

    /// The next minute.
    fn next(&mut self) -> Sample {
        self.minute += 1;
        let (jitter, light) = (self.noise.next(), self.daylight());
        // 3 % at night, 35 % at noon, give or take a third of it.
        let mut cpu = (30 + light * 320 / 1000) * (700 + jitter * 600 / 1000) / 1000;
        let mut sent = (20_000 + light * 800) * (500 + self.noise.next()) / 1000;
        // A job each hour takes a minute or two, sometimes of all that there is.
        if self.minute % 60 < 1 + self.noise.next() % 2 {
            cpu = 600 + self.noise.next() * 400 / 1000;
            sent *= 3;
        }
        // Twice a day on average it crashes.
        if self.noise.next() < 2 && self.noise.next() < 700 {
            self.attempt += 1;
            self.usage = Usage { traffic: Some((0, 0)), guest_memory: 1_000_000_000, ..Usage::default() };
        }
        let cpu_us = cpu * 60_000 + self.burn_us;
        self.usage.cpu_us += cpu_us;
        // An emulated guest's clock is rough.
        self.usage.guest_cpu_us +=
            if self.lies { cpu_us / 50 } else { cpu_us * (600 + self.noise.next() * 500 / 1000) / 1000 };
        let sent = sent * 60 + self.sends;
        let traffic = self.usage.traffic.as_mut().unwrap();
        (traffic.0, traffic.1) = (traffic.0 + sent / 5, traffic.1 + sent);
        self.usage.guest_traffic.0 += sent / 5;
        self.usage.guest_traffic.1 +=
            if self.lies { sent / 20 } else { sent * (950 + self.noise.next() / 10) / 1000 };
        self.usage.resident = 200_000_000 + light * 50_000 + self.noise.next() * 30_000 + self.leaks;
        self.usage.refused += self.noise.next() / 300 + self.refuses;
        Sample { at_ms: self.minute * MINUTE, attempt: self.attempt, breach: None, usage: Some(self.usage) }
    }
}

fn step(watch: &mut Watch, sample: &Sample) -> Vec<Finding> {
    watch.step(Settings::default(), LIMITS, sample)
}

/// What is found within so many minutes.
fn found(watch: &mut Watch, service: &mut Service, minutes: u64) -> Vec<(u64, Rule, bool)> {
    let mut all = Vec::new();
    for minute in 0..minutes {
        let sample = service.next();
        all.extend(step(watch, &sample).into_iter().map(|finding| (minute, finding.rule, finding.begins)));
    }
    all
}

#[test]
fn an_ordinary_noisy_week_alarms_nobody() {
    for seed in 0..10 {
        let (mut watch, mut service) = (Watch::default(), Service::new(seed * 7919));
        assert_eq!(found(&mut watch, &mut service, 7 * 1440), [], "seed {seed}");
    }
}

#[test]
fn whatever_is_planted_is_found_within_minutes_at_any_time_of_day() {
    type Plant = fn(&mut Service);
    let plants: [(Rule, Plant); 6] = [
        (Rule::Cpu, |service| service.burn_us = 900 * 60_000),
        (Rule::Egress, |service| service.sends = 60 * (8 << 20)),
        (Rule::Memory, |service| service.leaks = 700_000_000),
        (Rule::Refused, |service| service.refuses = 500),
        (Rule::Disagreement, |service| {
            service.lies = true;
            service.sends = 60 << 20;
        }),
        (Rule::Disagreement, |service| service.usage.guest_memory = 1 << 40),
    ];
    for (rule, plant) in plants {
        for hour in [26, 30, 36, 42, 47] {
            let (mut watch, mut service) = (Watch::default(), Service::new(hour));
            assert_eq!(found(&mut watch, &mut service, hour * 60 + 5), []);
            plant(&mut service);
            let all = found(&mut watch, &mut service, 10);
            let when = all.iter().find(|(_, found, begins)| *found == rule && *begins);
            assert!(when.is_some_and(|(minute, ..)| *minute <= 4), "{rule} at {hour}: {all:?}");
            let again = all.iter().filter(|(_, found, begins)| *found == rule && *begins).count();
            assert_eq!(again, 1, "it is told once: {all:?}");
        }
    }
}

#[test]
fn an_alarm_ends_when_it_is_calm_again_and_what_stays_becomes_normal() {
    let (mut watch, mut service) = (Watch::default(), Service::new(1));
    found(&mut watch, &mut service, 600);
    service.burn_us = 900 * 60_000;
    assert!(found(&mut watch, &mut service, 5).iter().any(|(_, rule, begins)| *rule == Rule::Cpu && *begins));
    assert_eq!(watch.active().collect::<Vec<_>>(), [Rule::Cpu]);
    service.burn_us = 0;
    let all = found(&mut watch, &mut service, 10);
    assert!(all.iter().any(|(_, rule, begins)| *rule == Rule::Cpu && !*begins), "{all:?}");
    assert_eq!(watch.active().count(), 0);
    service.burn_us = 800 * 60_000;
    let all = found(&mut watch, &mut service, 300);
    let cpu: Vec<bool> =
        all.iter().filter(|(_, rule, _)| *rule == Rule::Cpu).map(|(_, _, begins)| *begins).collect();
    assert_eq!(cpu, [true, false], "{all:?}");
}

#[test]
fn a_small_share_that_ticks_overlook_is_no_lie() {
    let limits = Limits { cpu_milli: 100, ..LIMITS };
    let found = |cpu_us| {
        let before = Usage::default();
        let now = Usage { cpu_us, ..before };
        disagreement::find(limits, MINUTE, &before, &now).is_some()
    };
    assert!(!found(6_000_000), "all of its tenth of a processor");
    assert!(found(20_000_000), "a third of one");
}

#[test]
fn a_crash_loop_is_found_at_its_fifth_attempt_and_ends_when_it_is_calm() {
    let mut watch = Watch::default();
    let sample = |second: u64, attempt| Sample { at_ms: second * 1000, attempt, ..Sample::default() };
    for attempt in 1..=5 {
        assert_eq!(step(&mut watch, &sample(attempt * 10, attempt)), []);
    }
    let findings = step(&mut watch, &sample(60, 6));
    assert_eq!((findings.len(), findings[0].rule, findings[0].evidence["attempts"]), (1, Rule::CrashLoop, 5));
    assert_eq!(step(&mut watch, &sample(70, 7)), [], "it is told once");
    let findings = step(&mut watch, &sample(800, 7));
    assert_eq!((findings[0].rule, findings[0].begins), (Rule::CrashLoop, false));
}

#[test]
fn every_breach_is_told_at_once() {
    let mut watch = Watch::default();
    let breach = Some("a frame of unknown kind 9".to_owned());
    let findings = step(&mut watch, &Sample { attempt: 1, breach, ..Sample::default() });
    assert_eq!(findings[0].text, "the guest broke the protocol of its channel: a frame of unknown kind 9");
    let next = Sample { attempt: 2, at_ms: 9000, ..Sample::default() };
    assert_eq!(step(&mut watch, &next)[0].text, "protocol is as usual again, after 9 s");
}

#[test]
fn nothing_is_unusual_before_there_is_a_usual() {
    let (mut watch, mut service) = (Watch::default(), Service::new(3));
    service.burn_us = 900 * 60_000;
    assert_eq!(found(&mut watch, &mut service, 29), []);
}

#[test]
fn the_evidence_has_the_numbers() {
    let (mut watch, mut service) = (Watch::default(), Service::new(5));
    found(&mut watch, &mut service, 100);
    service.burn_us = 900 * 60_000;
    let findings: Vec<Finding> = (0..4).flat_map(|_| step(&mut watch, &service.next())).collect();
    let evidence = &findings[0].evidence;
    assert!(
        evidence["value"] > evidence["alarm_above"] && evidence["alarm_above"] > evidence["median"],
        "{findings:?}"
    );
    assert!(findings[0].text.starts_with("CPU of its share: "), "{}", findings[0].text);
}

proptest! {
    #[test]
    fn no_numbers_make_it_panic_and_begins_and_ends_take_turns(
        numbers in proptest::collection::vec(
            (0u64..200_000, 0u64..3, any::<[u64; 5]>(), proptest::option::of(any::<(u64, u64)>()), any::<(u64, u64)>()),
            0..80,
        ),
        cpu_milli in any::<u32>(),
        memory in any::<u64>(),
    ) {
        let mut watch = Watch::default();
        let limits = Limits { cpu_milli, memory, ..LIMITS };
        let settings = Settings { round_ms: 1000, warm_up: 5 };
        let (mut at_ms, mut attempt) = (0u64, 0u64);
        let mut open: BTreeMap<Rule, bool> = BTreeMap::new();
        for (later, more, values, traffic, guest_traffic) in numbers {
            (at_ms, attempt) = (at_ms + later, attempt + more);
            let usage = Usage {
                cpu_us: values[0], guest_cpu_us: values[1], resident: values[2], guest_memory: values[3],
                refused: values[4], traffic, guest_traffic,
            };
            let sample = Sample { at_ms, attempt, breach: None, usage: Some(usage) };
            for finding in watch.step(settings, limits, &sample) {
                prop_assert_ne!(open.insert(finding.rule, finding.begins), Some(finding.begins));
                prop_assert!(finding.begins || finding.evidence.contains_key("lasted_s"));
            }
        }
    }
}
