//! The workload, its folders, its health checks and its sidecars.

use std::collections::{BTreeMap, BTreeSet};

use super::{like_a_dns_label, not_a_dns_label};
use crate::decode::Context;
use crate::model::{Check, CheckKind, Deployment, Manifest, Mount, Resources, Sidecar};

/// Folders inside that the guest itself provides.
const RESERVED: [&str; 4] = ["/proc", "/sys", "/dev", "/run/secrets"];

pub(super) fn check(manifest: &Manifest, context: &mut Context<'_>) {
    let spec = &manifest.spec;
    deployment(&spec.deployment, context);
    // Without an image there is nothing to derive the name from.
    if (!spec.deployment.image.is_empty() || context.is_set("metadata.name"))
        && let Some(reason) = not_a_dns_label(&manifest.metadata.name)
    {
        let message = format!("the name {:?} can't be a host name: {reason}", manifest.metadata.name);
        context.conflict(&["metadata.name"], message, like_a_dns_label(&manifest.metadata.name));
    }
    if manifest.metadata.labels.contains_key("") {
        context.conflict(&["metadata.labels"], "a label has an empty name", None);
    }
    mounts(&spec.mounts, context);
    for (index, check) in spec.checks.iter().enumerate() {
        health_check(check, &format!("spec.checks[{index}]"), context);
    }
    sidecars(&spec.sidecars, &spec.resources, context);
}

fn deployment(deployment: &Deployment, context: &mut Context<'_>) {
    image(&deployment.image, "spec.deployment.image", context);
    process(deployment.command.as_deref(), &deployment.env, "spec.deployment", context);
    let mut seen = BTreeSet::new();
    for (index, secret) in deployment.secrets.iter().enumerate() {
        let path = format!("spec.deployment.secrets[{index}]");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if secret.is_empty() || !secret.chars().all(plain) || secret.starts_with('.') {
            context.conflict(
                &[&path],
                format!("{secret:?} can't be the name of a secret"),
                "names have letters, digits, _, - and .; the value never stands in a manifest".to_owned(),
            );
        } else if !seen.insert(secret) {
            context.conflict(&[&path], format!("the secret {secret:?} is listed twice"), None);
        }
    }
    if let Some(workdir) = &deployment.workdir
        && !workdir.starts_with('/')
    {
        let help = format!("write {:?}", format!("/{}", workdir.trim_start_matches("./")));
        context.conflict(&["spec.deployment.workdir"], "the working folder must be an absolute path", help);
    }
    if let Some(user) = &deployment.user
        && (user.is_empty() || user.contains(char::is_whitespace))
    {
        context.conflict(
            &["spec.deployment.user"],
            format!("{user:?} can't be a user"),
            "write a name, a uid, or either with a group: \"app\", 1000, \"app:app\"".to_owned(),
        );
    }
    if deployment.replicas == 0 {
        context.conflict(
            &["spec.deployment.replicas"],
            "at least one replica must run",
            "write 1 or more".to_owned(),
        );
    }
}

fn image(image: &str, path: &str, context: &mut Context<'_>) {
    let help = "for example: image = \"docker.io/library/nginx:1.29\"".to_owned();
    if image.is_empty() {
        context.conflict(&[path], format!("`{path}` is missing: it is what runs"), help);
    } else if let Some(wrong) = image.chars().find(|c| c.is_whitespace() || c.is_control()) {
        context.conflict(&[path], format!("an image reference can't contain {wrong:?}"), help);
    }
}

/// Checks what the workload and the sidecars have in common.
fn process(
    command: Option<&[String]>,
    env: &BTreeMap<String, String>,
    path: &str,
    context: &mut Context<'_>,
) {
    if let Some([]) = command {
        context.conflict(
            &[&format!("{path}.command")],
            "the command is an empty list",
            "name the program first, or remove the key to keep the image's".to_owned(),
        );
    }
    for name in env.keys().filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
        let at = crate::decode::join(&format!("{path}.env"), name);
        let help = "names are neither empty nor contain `=`".to_owned();
        context.conflict(&[&at], format!("{name:?} can't be the name of a variable"), help);
    }
}

fn mounts(mounts: &[Mount], context: &mut Context<'_>) {
    let mut destinations: BTreeMap<&str, usize> = BTreeMap::new();
    let mut volumes: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = format!("spec.mounts[{index}]");
        let destination = format!("{path}.destination");
        match wrong_destination(&mount.destination) {
            Some((message, help)) => context.conflict(&[&destination], message, help),
            None => {
                let normal = mount.destination.trim_end_matches('/');
                if let Some(first) = destinations.insert(normal, index) {
                    context.conflict(
                        &[&destination, &format!("spec.mounts[{first}].destination")],
                        format!("two mounts have the destination {normal:?}"),
                        "give one of them another destination".to_owned(),
                    );
                }
            }
        }
        source(mount, &path, context);
        if let Some(volume) = mount.source.as_deref().filter(|_| !mount.is_host_folder())
            && let Some(first) = volumes.insert(volume, index)
            && mounts[first].size != mount.size
        {
            context.conflict(
                &[&format!("{path}.size"), &format!("spec.mounts[{first}].size")],
                format!("the volume {volume:?} has two sizes"),
                "give both mounts the same size".to_owned(),
            );
        }
    }
}

/// Says why a path can't be a mount's destination, and what would be right; `None` if it can.
pub(crate) fn wrong_destination(destination: &str) -> Option<(String, Option<String>)> {
    let example = || Some("write the absolute path inside, such as \"/data\"".to_owned());
    if destination.is_empty() {
        return Some(("a mount needs a `destination`".to_owned(), example()));
    }
    if !destination.starts_with('/') {
        return Some((format!("the destination {destination:?} isn't an absolute path"), example()));
    }
    if destination.split('/').any(|part| part == ".." || part == ".") || destination.contains("//") {
        return Some((format!("the destination {destination:?} contains `.`, `..` or `//`"), example()));
    }
    let normal = destination.trim_end_matches('/');
    if normal.is_empty() {
        return Some(("a mount can't replace the root folder".to_owned(), example()));
    }
    let reserved = RESERVED.iter().find(|reserved| {
        normal.strip_prefix(*reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })?;
    // POSIX shared memory is the one thing below them that people size.
    let shared_memory = normal == "/dev/shm";
    (!shared_memory)
        .then(|| (format!("{reserved} is provided by the isolation and can't be mounted over"), example()))
}

fn source(mount: &Mount, path: &str, context: &mut Context<'_>) {
    let at = format!("{path}.source");
    let size = format!("{path}.size");
    if mount.size.is_some_and(|size| size.0 == 0) {
        context.conflict(&[&size], "a size of 0 holds nothing", None);
    }
    if mount.encrypted && !mount.is_volume() {
        context.conflict(
            &[&format!("{path}.encrypted")],
            "only a volume can be encrypted: a folder of the host is the host's, and an empty folder lies in memory",
            "name a volume as `source`, or remove `encrypted`".to_owned(),
        );
    }
    match &mount.source {
        None if mount.readonly => context.conflict(
            &[&format!("{path}.readonly")],
            "an empty folder that can't be written stays empty",
            "give the mount a `source`, or remove `readonly`".to_owned(),
        ),
        None => {}
        Some(_) if mount.is_host_folder() && mount.size.is_some() => context.conflict(
            &[&size, &at],
            "a folder of the host has the size that it has",
            "remove `size`, or name a volume as `source`".to_owned(),
        ),
        Some(_) if mount.is_host_folder() => {}
        Some(volume) => {
            if let Some(reason) = not_a_dns_label(volume) {
                context.conflict(
                    &[&at],
                    format!("{volume:?} is neither a host folder nor the name of a volume: {reason}"),
                    "a host folder starts with /, ./, ../ or ~/; a volume's name has a-z, 0-9 and -"
                        .to_owned(),
                );
            }
        }
    }
}

fn health_check(check: &Check, path: &str, context: &mut Context<'_>) {
    let at = |key: &str| format!("{path}.{key}");
    let (port, command, url_path) = (at("port"), at("command"), at("path"));
    match check.kind {
        CheckKind::Http | CheckKind::Tcp => {
            if check.port.is_none() {
                let help = "name the port on which the workload listens: port = 8080".to_owned();
                context.conflict(&[&port], format!("a check of type {} needs a `port`", check.kind), help);
            }
            if check.command.is_some() {
                let message = format!("a check of type {} runs no command", check.kind);
                context.conflict(&[&command, &at("type")], message, "write type = \"exec\"".to_owned());
            }
        }
        CheckKind::Exec => {
            if check.command.as_deref().unwrap_or_default().is_empty() {
                let help = "for example: command = [\"pg_isready\"]".to_owned();
                context.conflict(&[&command], "a check of type exec needs a `command`", help);
            }
            if check.port.is_some() {
                let help = "write type = \"tcp\" or \"http\"".to_owned();
                context.conflict(&[&port, &at("type")], "a check of type exec has no port", help);
            }
        }
    }
    if check.kind != CheckKind::Http && check.path != "/" {
        let message = format!("a check of type {} has no path", check.kind);
        context.conflict(&[&url_path, &at("type")], message, "write type = \"http\"".to_owned());
    }
    if !check.path.starts_with('/') || check.path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let message = format!("{:?} can't be the path of a request", check.path);
        context.conflict(&[&url_path], message, "it starts with / and has no blanks".to_owned());
    }
    if check.interval.0 == 0 {
        context.conflict(&[&at("interval")], "an interval of 0 would check without end", None);
    }
    if check.timeout.0 == 0 {
        context.conflict(&[&at("timeout")], "nothing answers in no time", None);
    }
    if check.timeout > check.interval {
        context.conflict(
            &[&at("timeout"), &at("interval")],
            format!("the timeout {} is longer than the interval {}", check.timeout, check.interval),
            format!("write a timeout of at most {}, or a longer interval", check.interval),
        );
    }
    if check.retries == 0 {
        let help = "write 1 to act on the first failure".to_owned();
        context.conflict(&[&at("retries")], "a check that may never fail says nothing", help);
    }
}

fn sidecars(sidecars: &[Sidecar], resources: &Resources, context: &mut Context<'_>) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, sidecar) in sidecars.iter().enumerate() {
        let path = format!("spec.sidecars[{index}]");
        let name = format!("{path}.name");
        if let Some(reason) = not_a_dns_label(&sidecar.name) {
            let message =
                format!("a sidecar needs a name that is a DNS label; {:?} isn't: {reason}", sidecar.name);
            context.conflict(&[&name], message, like_a_dns_label(&sidecar.name));
        } else if sidecar.name == "workload" {
            context.conflict(&[&name], "\"workload\" is what the main container is called", None);
        } else if let Some(first) = names.insert(&sidecar.name, index) {
            context.conflict(
                &[&name, &format!("spec.sidecars[{first}].name")],
                format!("two sidecars have the name {:?}", sidecar.name),
                None,
            );
        }
        image(&sidecar.image, &format!("{path}.image"), context);
        process(sidecar.command.as_deref(), &sidecar.env, &path, context);
        for (key, zero) in [
            ("cpu", sidecar.cpu.is_some_and(|cpu| cpu.0 == 0)),
            ("memory", sidecar.memory.is_some_and(|memory| memory.0 == 0)),
        ] {
            if zero {
                context.conflict(
                    &[&format!("{path}.{key}")],
                    format!("nothing runs with a `{key}` of 0"),
                    None,
                );
            }
        }
    }
    let memory = sidecars
        .iter()
        .filter_map(|sidecar| sidecar.memory)
        .fold(0u64, |sum, size| sum.saturating_add(size.0));
    if memory >= resources.memory.0 && memory > 0 {
        let index = sidecars.iter().position(|sidecar| sidecar.memory.is_some()).unwrap_or(0);
        context.conflict(
            &[&format!("spec.sidecars[{index}].memory"), "spec.resources.memory"],
            format!(
                "the sidecars may use {}, which leaves the workload nothing of {}",
                crate::units::Bytes(memory),
                resources.memory
            ),
            "a sidecar's memory is a part of the spacecore's: raise that one".to_owned(),
        );
    }
}
