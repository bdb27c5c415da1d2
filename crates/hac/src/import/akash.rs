//! Akash SDL, versions 2.0 and 2.1 (<https://akash.network/docs/developers/deployment/akash-sdl>).

mod compute;
mod expose;

use std::collections::BTreeMap;

use super::draft::{Draft, Labels};
use super::reader::{At, Fields, Reader, Unsupported};
use super::remark::Outcome;
use super::shell::command_line;
use super::{Options, mentions};
use crate::tree::Node;

/// Keys at the top that no manifest has.
const TOP: &[Unsupported] = &[
    (
        "endpoints",
        "addresses aren't leased by a manifest",
        "`vimana run -p ADDRESS:HOST:PORT` publishes on an address of the machine",
    ),
    ("include", "other files aren't read", "write what they hold into this one"),
];

/// Keys of a service that no manifest has.
const SERVICE: &[Unsupported] = &[
    (
        "credentials",
        "a manifest holds no passwords",
        "log in to the registry: logins are read from ~/.docker/config.json",
    ),
    ("permissions", "a workload doesn't steer what it runs on", ""),
];

/// The profiles of a file by name.
struct Profiles<'n> {
    compute: BTreeMap<String, At<'n>>,
    placement: BTreeMap<String, At<'n>>,
}

/// Reads the services of an SDL.
pub(super) fn read(root: &Node, options: &Options, reader: &mut Reader<'_>) -> Vec<Draft> {
    let mut fields = reader.fields(&At::root(root));
    if let Some(at) = reader.take(&mut fields, "version")
        && let Some(version) = reader.text(&at)
        && !matches!(version.as_str(), "2.0" | "2.1" | "2")
    {
        reader.error(
            &at,
            format!("the version {version:?} of the SDL isn't known"),
            "write \"2.0\" or \"2.1\"",
        );
    }
    let services = table(&mut fields, "services", reader);
    let deployment: BTreeMap<String, At<'_>> = table(&mut fields, "deployment", reader).into_iter().collect();
    let mut profiles = Profiles { compute: BTreeMap::new(), placement: BTreeMap::new() };
    if let Some(at) = reader.take(&mut fields, "profiles") {
        let mut inner = reader.fields(&at);
        profiles.compute = table(&mut inner, "compute", reader).into_iter().collect();
        profiles.placement = table(&mut inner, "placement", reader).into_iter().collect();
        reader.rest(inner, &[]);
    }
    let mut labels = Labels::of_all(services.iter().map(|(name, _)| name.as_str()));
    let names: Vec<String> = services.iter().map(|(name, _)| name.clone()).collect();
    for (name, at) in deployment.iter().filter(|(name, _)| !names.contains(name)) {
        let help = format!("the services are {}", names.join(", "));
        reader.error_at(&at.path, at.key, format!("there is no service {name:?} to deploy"), &help);
    }
    let mut drafts = Vec::new();
    for (name, at) in &services {
        reader.service = Some(name.clone());
        let mut draft = Draft::new(name, labels.of(name), at, options, reader);
        let mut fields = reader.fields(at);
        process(at, &mut fields, &mut draft, reader);
        if let Some(at) = reader.take(&mut fields, "expose") {
            expose::read(&at, &mut draft, reader);
        }
        depends_on(&mut fields, &names, &mut labels, &mut draft, reader);
        let mounts = storage_mounts(&mut fields, reader);
        reader.rest(fields, SERVICE);
        match deployment.get(name) {
            Some(deployed) => deploy(deployed, &profiles, mounts, &mut draft, reader),
            None => {
                let why = "`deployment` doesn't name this service: it got the default resources";
                reader.noted(Outcome::NotCarried, at, why, "set `spec.resources`");
                compute::mounts_without_profile(mounts, reader);
            }
        }
        draft.tell_defaults(at, reader);
        drafts.push(draft);
    }
    reader.service = None;
    leftover_profiles(&profiles, reader);
    reader.rest(fields, TOP);
    mentions::tell(&drafts, reader);
    drafts
}

fn table<'n>(fields: &mut Fields<'n>, key: &str, reader: &mut Reader<'_>) -> Vec<(String, At<'n>)> {
    reader.take(fields, key).map(|at| reader.named(&at)).unwrap_or_default()
}

/// Reads the image and what is run.
fn process(at: &At<'_>, fields: &mut Fields<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    match reader.take(fields, "image").and_then(|image| Some((reader.text(&image)?, image))) {
        Some((text, image)) => {
            draft.from("spec.deployment.image", &image);
            draft.manifest.spec.deployment.image = text;
        }
        None => {
            let why = format!("the service {:?} has no image", draft.service);
            reader.error_at(
                &at.path,
                at.key,
                why,
                "write, for example, `image: docker.io/library/nginx:1.29`",
            );
            draft.manifest.spec.deployment.image = "missing".to_owned();
        }
    }
    for key in ["command", "args"] {
        let Some(at) = reader.take(fields, key) else { continue };
        let words = command_line(&at, reader).filter(|words| !words.is_empty());
        let Some(words) = words else { continue };
        draft.from(format!("spec.deployment.{key}"), &at);
        let deployment = &mut draft.manifest.spec.deployment;
        if key == "command" {
            deployment.command = Some(words);
        } else {
            deployment.args = Some(words);
        }
    }
    if let Some(at) = reader.take(fields, "env") {
        for item in reader.items(&at) {
            let Some(text) = reader.text(&item) else { continue };
            match text.split_once('=') {
                Some((name, value)) => draft.env(name, value.to_owned(), &item, reader),
                None => reader.lost(
                    &item,
                    format!("{text} has no value"),
                    &format!("write {text}=..., or `vimana run -e {text}=...`"),
                ),
            }
        }
    }
}

/// Reads `dependencies`, which older SDLs have.
fn depends_on(
    fields: &mut Fields<'_>,
    names: &[String],
    labels: &mut Labels,
    draft: &mut Draft,
    reader: &mut Reader<'_>,
) {
    let Some(at) = reader.take(fields, "dependencies") else { return };
    for item in reader.items(&at) {
        let mut inner = reader.fields(&item);
        if let Some(service) = reader.take(&mut inner, "service")
            && let Some(name) = reader.text(&service)
        {
            if names.contains(&name) {
                draft.waits_for(labels.of(&name), &service);
            } else {
                reader.error(
                    &service,
                    format!("there is no service {name:?}"),
                    &format!("the services are {}", names.join(", ")),
                );
            }
        }
        reader.rest(inner, &[]);
    }
}

/// Where a service mounts its storage: by the storage's name.
fn storage_mounts<'n>(fields: &mut Fields<'n>, reader: &mut Reader<'_>) -> BTreeMap<String, At<'n>> {
    let Some(params) = reader.take(fields, "params") else { return BTreeMap::new() };
    let mut inner = reader.fields(&params);
    let mounts = table(&mut inner, "storage", reader).into_iter().collect();
    reader.rest(inner, SERVICE);
    mounts
}

/// Reads where a service is deployed, with which profile, how many times.
fn deploy(
    at: &At<'_>,
    profiles: &Profiles<'_>,
    mounts: BTreeMap<String, At<'_>>,
    draft: &mut Draft,
    reader: &mut Reader<'_>,
) {
    let mut places = reader.named(at).into_iter();
    let Some((place, first)) = places.next() else {
        reader.lost(at, "this deploys the service nowhere", "");
        return compute::mounts_without_profile(mounts, reader);
    };
    for (other, at) in places {
        let why = format!("a manifest describes one place, and this one has {place:?}");
        reader.lost(&at, why, &format!("copy the manifest, and change what differs for {other:?}"));
    }
    match profiles.placement.get(&place) {
        Some(profile) => placement(profile, draft, reader),
        None => unknown("placement", &place, &first, &profiles.placement, reader),
    }
    let mut fields = reader.fields(&first);
    if let Some(at) = reader.take(&mut fields, "count")
        && let Some(count) = reader.number(&at)
    {
        draft.replicas(count, &at, reader);
    }
    let profile = reader.take(&mut fields, "profile").and_then(|at| Some((reader.text(&at)?, at)));
    match profile {
        Some((name, at)) => match profiles.compute.get(&name) {
            Some(profile) => compute::read(profile, mounts, draft, reader),
            None => unknown("compute", &name, &at, &profiles.compute, reader),
        },
        None => {
            let help = format!("the compute profiles are {}", list(&profiles.compute));
            reader.error(&first, format!("`{}` names no profile", first.path), &help);
        }
    }
    reader.rest(fields, &[]);
}

fn list(profiles: &BTreeMap<String, At<'_>>) -> String {
    profiles.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn unknown(kind: &str, name: &str, at: &At<'_>, known: &BTreeMap<String, At<'_>>, reader: &mut Reader<'_>) {
    let help = match known.is_empty() {
        true => format!("write one below `profiles.{kind}`"),
        false => format!("below `profiles.{kind}` there are {}", list(known)),
    };
    reader.error_at(&at.path, at.key, format!("there is no {kind} profile {name:?}"), &help);
}

/// Reads the attributes of a placement profile; its prices are dealt with once, when all services are read.
fn placement(at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let mut fields = reader.fields(at);
    for (name, at) in table(&mut fields, "attributes", reader) {
        let Some(value) = reader.text(&at) else { continue };
        if name.is_empty() {
            reader.lost(&at, "an attribute has an empty name", "");
            continue;
        }
        draft.from("spec.placement.attributes", &at);
        draft.manifest.spec.placement.attributes.insert(name, value);
    }
}

/// Names what no service has taken from the profiles.
fn leftover_profiles(profiles: &Profiles<'_>, reader: &mut Reader<'_>) {
    for at in profiles.placement.values() {
        let mut fields = reader.fields(at);
        let is_used = match fields.take_any("attributes") {
            Some(attributes) => {
                let entries = if attributes.is_table() { reader.named(&attributes) } else { Vec::new() };
                entries.is_empty() || entries.iter().any(|(_, at)| reader.is_done(&at.path))
            }
            None => true,
        };
        if !is_used {
            reader.lost(at, "no service is deployed at this place first", "");
            continue;
        }
        reader.rest(
            fields,
            &[
                (
                    "pricing",
                    "these are bids in another network's token, for each of its blocks (of about 6 seconds)",
                    "write the most that an hour of one replica may cost: `spec.pricing.max_per_hour`",
                ),
                (
                    "signedBy",
                    "who audits Akash's providers says nothing about this network's operators",
                    "name the operators that you trust: `spec.placement.operators`",
                ),
            ],
        );
    }
    for at in profiles.compute.values() {
        if !reader.is_partly_done(&at.path) {
            reader.lost(at, "no service is deployed with this profile", "");
        }
    }
}
