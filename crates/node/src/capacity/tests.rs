//! Properties of what fits.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

fn ask(class: Class, cpu_millis: u64, memory: u64) -> Ask {
    Ask { class, cpu_millis, memory, scratch: 0, volumes: 0 }
}

/// What one deployment has: for each replica the asks of which it may run one.
type Replicas = Vec<Vec<Ask>>;

fn claim(replicas: &[Vec<Ask>], oversell: u32) -> Claim {
    replicas.iter().fold(Claim::default(), |sum, one| sum.and(Claim::of(one, oversell)))
}

fn holders(held: &BTreeMap<String, Replicas>, but: &str, oversell: u32) -> Vec<Holder> {
    let others = held.iter().filter(|(name, _)| *name != but);
    let holder = |(name, replicas): (&String, &Replicas)| Holder {
        deployment: name.clone(),
        claim: claim(replicas, oversell),
    };
    others.map(holder).collect()
}

/// The worst that can come of it, whichever alternative each replica runs: guaranteed memory, guaranteed CPU, disk, and whether
/// burstable memory goes beyond what it may be oversold to. Counted without the module's own rule.
fn is_sound(offer: &Offer, held: &BTreeMap<String, Replicas>, choose: &dyn Fn(usize) -> usize) -> bool {
    let all: Vec<Ask> = held
        .values()
        .flatten()
        .enumerate()
        .map(|(index, alternatives)| alternatives[choose(index) % alternatives.len()])
        .collect();
    let sum = |of: &dyn Fn(&Ask) -> u64| all.iter().map(of).sum::<u64>();
    let of_class = |ask: &Ask, class, amount| if ask.class == class { amount } else { 0 };
    let guaranteed = sum(&|ask| of_class(ask, Class::Guaranteed, ask.memory));
    let burstable = sum(&|ask| of_class(ask, Class::Burstable, ask.memory));
    let cpu = sum(&|ask| of_class(ask, Class::Guaranteed, ask.cpu_millis));
    let disk = sum(&|ask| ask.scratch + ask.volumes);
    guaranteed <= offer.memory
        && cpu <= offer.cpu_millis
        && disk <= offer.disk
        && burstable * 100 <= (offer.memory - guaranteed) * u64::from(offer.oversell)
}

#[derive(Debug, Clone)]
enum Step {
    Apply(u8, Ask, u32),
    Scale(u8, u32),
    /// The update is done: each replica runs the newest.
    Settle(u8),
    Remove(u8),
}

fn asks() -> impl Strategy<Value = Ask> {
    let class = prop_oneof![Just(Class::Guaranteed), Just(Class::Burstable)];
    (class, 100..3000u64, 1..3000u64, 0..1000u64, 0..1000u64).prop_map(
        |(class, cpu_millis, memory, scratch, volumes)| Ask { class, cpu_millis, memory, scratch, volumes },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8, asks(), 0..5u32).prop_map(|(name, ask, replicas)| Step::Apply(name, ask, replicas)),
        3 => (0..4u8, 0..8u32).prop_map(|(name, replicas)| Step::Scale(name, replicas)),
        2 => (0..4u8).prop_map(Step::Settle),
        1 => (0..4u8).prop_map(Step::Remove),
    ]
}

proptest! {
    #[test]
    fn whatever_is_admitted_nothing_is_promised_beyond_what_it_may_be(
        oversell in 100..300u32,
        history in prop::collection::vec(steps(), 1..40),
        choices in prop::collection::vec(0..4usize, 64),
    ) {
        let offer = Offer { cpu_millis: 8000, memory: 10_000, disk: 8000, oversell, evict_below: 0 };
        let mut held: BTreeMap<String, Replicas> = BTreeMap::new();
        for step in history {
            let (name, newest, replicas) = match step {
                Step::Apply(name, ask, replicas) => (format!("d{name}"), Some(ask), replicas),
                Step::Scale(name, replicas) => (format!("d{name}"), None, replicas),
                Step::Settle(name) => {
                    for one in held.get_mut(&format!("d{name}")).into_iter().flatten() {
                        one.drain(..one.len() - 1);
                    }
                    continue;
                }
                Step::Remove(name) => {
                    held.remove(&format!("d{name}"));
                    continue;
                }
            };
            let before = held.get(&name).cloned().unwrap_or_default();
            let Some(template) = newest.or_else(|| before.last().and_then(|one| one.last().copied())) else { continue };
            let with = |count: u32| -> Replicas {
                (0..count as usize)
                    .map(|index| {
                        let mut one = before.get(index).cloned().unwrap_or_default();
                        if newest.is_some() || one.is_empty() { one.push(template) }
                        one
                    })
                    .collect()
            };
            let claimed = |count| claim(&with(count), oversell);
            let others = holders(&held, &name, oversell);
            let request = Request {
                name: &name,
                class: template.class,
                before: claim(&before, oversell),
                replicas,
                with: &claimed,
                others: &others,
            };
            let mut after = held.clone();
            let found = offer.admit(&request);
            after.insert(name.clone(), with(replicas));
            match found {
                Ok(()) => {
                    held = after;
                    prop_assert!(is_sound(&offer, &held, &|index| choices[index % 64]));
                }
                Err(no_room) => {
                    // The worst choice of alternatives can't be told from each alone, so the rule is asked with one replica more than
                    // is said to fit, and with as many.
                    prop_assert!(!no_room.lacks.is_empty() && no_room.fit < replicas);
                    let again = |replicas| offer.admit(&Request { replicas, ..request });
                    prop_assert!(no_room.fit == 0 || again(no_room.fit).is_ok());
                    prop_assert!(again(no_room.fit + 1).is_err());
                    let only_one = after.values().flatten().all(|alternatives| alternatives.len() == 1);
                    if only_one {
                        prop_assert!(!is_sound(&offer, &after, &|_| 0), "{no_room}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_guaranteed_leaves_less_to_be_oversold() {
    let offer = Offer { cpu_millis: 4000, memory: 8 * GIB, disk: 0, oversell: 150, evict_below: 0 };
    let held = [("db", Class::Guaranteed, 4), ("cache", Class::Burstable, 2)];
    let others: Vec<Holder> = held
        .map(|(name, class, gib)| Holder {
            deployment: name.to_owned(),
            claim: Claim::of(&[ask(class, 1000, gib * GIB)], 150),
        })
        .to_vec();
    let admit = |class, gib: u64, replicas: u32| {
        let one = Claim::of(&[ask(class, 500, gib * GIB)], 150);
        let with = |count: u32| (0..count).fold(Claim::default(), |sum, _| sum.and(one));
        let request =
            Request { name: "web", class, before: Claim::default(), replicas, with: &with, others: &others };
        offer.admit(&request)
    };
    assert_eq!(admit(Class::Burstable, 2, 2), Ok(()), "150 % of 4 GiB less the 2 of cache");
    let said = admit(Class::Burstable, 2, 3).unwrap_err().to_string();
    assert_eq!(
        said,
        "there is no room for 3 replicas of web: it asks for 6 GiB of burstable memory, and 4 GiB is left of 8 GiB (oversold up to \
         150 %), of which others have 6 GiB (db 4 GiB, cache 2 GiB). 2 replicas would fit"
    );
    let said = admit(Class::Guaranteed, 3, 1).unwrap_err().to_string();
    assert!(
        said.ends_with("2.6 GiB is left of 8 GiB, of which others have 6 GiB (db 4 GiB, cache 2 GiB)"),
        "{said}"
    );
    let said = admit(Class::Guaranteed, 0, 7).unwrap_err().to_string();
    assert!(
        said.contains("3500m CPU of guaranteed CPU, and 3 CPU is left")
            && said.ends_with("6 replicas would fit"),
        "{said}"
    );
}

#[test]
fn what_grows_no_further_is_never_refused() {
    let offer = Offer { cpu_millis: 0, memory: GIB, disk: 0, oversell: 100, evict_below: 0 };
    let with = |count: u32| Claim::of(&[ask(Class::Burstable, 1000, u64::from(count) * GIB)], 100);
    let request = Request {
        name: "web",
        class: Class::Burstable,
        before: with(5),
        replicas: 4,
        with: &with,
        others: &[],
    };
    assert_eq!(offer.admit(&request), Ok(()), "fewer than before, though the offer has shrunk");
    assert_eq!(offer.admit(&Request { replicas: 5, ..request }), Ok(()));
    assert!(offer.admit(&Request { replicas: 6, ..request }).is_err());
}

#[test]
fn a_manifest_s_volumes_count_with_what_they_may_grow_to() {
    let of = |more: &str, rootless| {
        let source = format!("[spec.deployment]\nimage = \"a\"\n{more}");
        Ask::of(&hac::parse(&source, hac::Format::Toml).unwrap(), rootless)
    };
    let mount = "[[spec.mounts]]\nsource = \"data\"\ndestination = \"/data\"\n";
    assert_eq!(of(mount, false).volumes, crate::volume::DEFAULT_BYTES);
    assert_eq!(of(&format!("{mount}size = \"1GiB\""), false).volumes, GIB);
    let container = format!("{mount}[spec.virtualization]\ntype = \"Container\"");
    assert_eq!(
        (of(&container, false).volumes, of(&container, true).volumes),
        (crate::volume::DEFAULT_BYTES, 0)
    );
    let folder =
        "[[spec.mounts]]\nsource = \"/srv\"\ndestination = \"/data\"\n[spec.resources]\nstorage = \"2GiB\"";
    assert_eq!((of(folder, false).volumes, of(folder, false).scratch), (0, 2 * GIB));
}
