//! One service of a compose file.

use super::{Shared, deploy, granted, health, pairs, ports, storage, unsupported};
use crate::import::draft::Draft;
use crate::import::reader::{At, Fields, Reader};
use crate::import::remark::Outcome;
use crate::import::{dotenv, shell::command_line};
use crate::model::NetworkType;

/// Reads a service into a draft.
pub(super) fn read<'n>(
    name: &str,
    at: &At<'n>,
    shared: &mut Shared<'n, '_>,
    reader: &mut Reader<'_>,
) -> Draft {
    let label = shared.labels.of(name);
    let mut draft = Draft::new(name, label, at, shared.options, reader);
    let mut fields = reader.fields(at);
    image(at, &mut fields, &mut draft, reader);
    process(&mut fields, &mut draft, reader);
    environment(&mut fields, &mut draft, shared, reader);
    labels(&mut fields, &mut draft, reader);
    host_name(&mut fields, &draft, reader);
    let without_network = network_mode(&mut fields, &mut draft, reader);
    ports::read(&mut fields, &mut draft, without_network, reader);
    storage::read(&mut fields, &mut draft, shared, reader);
    deploy::read(&mut fields, &mut draft, reader);
    health::read(&mut fields, &mut draft, reader);
    depends_on(&mut fields, &mut draft, shared, reader);
    secrets(&mut fields, &mut draft, shared, reader);
    let privileges = unsupported::privileges(draft.manifest.spec.virtualization.isolation);
    reader.rest(fields, &[unsupported::SERVICE, &privileges].concat());
    draft.tell_defaults(at, reader);
    draft
}

fn image(at: &At<'_>, fields: &mut Fields<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let image = reader.take(fields, "image").and_then(|image| {
        let text = reader.text(&image)?;
        draft.from("spec.deployment.image", &image);
        Some(text)
    });
    let extends = reader.take(fields, "extends");
    if let Some(extends) = &extends {
        reader.lost(
            extends,
            "what another service says isn't taken over",
            "`docker compose config` writes it out: import its output",
        );
    }
    let build = reader.take(fields, "build");
    if let Some(build) = &build {
        let name = &draft.label;
        let instead = match &image {
            Some(image) => format!("build it, and push it to its registry as {image}"),
            None => format!(
                "build it into the file that the manifest names: docker build -t {name} FOLDER && docker save -o {name}/{name}.tar {name}"
            ),
        };
        reader.lost(build, "an image isn't built from a manifest", &instead);
    }
    draft.manifest.spec.deployment.image = match image {
        Some(image) => image,
        None if build.is_some() => format!("docker-archive:{}.tar", draft.label),
        None => {
            let why = format!("the service {:?} has no image", draft.service);
            let image = format!("{}.image", at.path);
            let help = if reader.is_unset(&image) {
                "its variable isn't set: set it in the environment, or in a file for --env-file"
            } else if extends.is_some() {
                "it is in what the service extends: `docker compose config` writes that out, import its output"
            } else {
                "write, for example, `image: docker.io/library/nginx:1.29`"
            };
            reader.error_at(&at.path, at.key, why, help);
            "missing".to_owned()
        }
    };
}

/// Reads what is run, as whom, and where.
fn process(fields: &mut Fields<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    if let Some(at) = reader.take(fields, "entrypoint")
        && let Some(words) = command_line(&at, reader)
    {
        if words.is_empty() {
            reader.lost(
                &at,
                "a manifest can't empty the image's entrypoint",
                "name the program in `spec.deployment.command`",
            );
        } else {
            draft.from("spec.deployment.command", &at);
            draft.manifest.spec.deployment.command = Some(words);
        }
    }
    if let Some(at) = reader.take(fields, "command")
        && let Some(words) = command_line(&at, reader)
    {
        draft.from("spec.deployment.args", &at);
        draft.manifest.spec.deployment.args = Some(words);
    }
    if let Some(at) = reader.take(fields, "user") {
        draft.from("spec.deployment.user", &at);
        draft.manifest.spec.deployment.user = reader.text(&at).filter(|user| !user.is_empty());
    }
    if let Some(at) = reader.take(fields, "working_dir") {
        draft.from("spec.deployment.workdir", &at);
        draft.manifest.spec.deployment.workdir = reader.text(&at).filter(|folder| !folder.is_empty());
    }
    if let Some(at) = reader.take(fields, "read_only") {
        draft.from("spec.deployment.readonly_root", &at);
        draft.manifest.spec.deployment.readonly_root = reader.flag(&at).unwrap_or_default();
    }
}

fn environment(fields: &mut Fields<'_>, draft: &mut Draft, shared: &Shared<'_, '_>, reader: &mut Reader<'_>) {
    if let Some(at) = reader.take(fields, "env_file") {
        for file in reader.one_or_more(at) {
            env_file(&file, draft, shared, reader);
        }
    }
    let Some(at) = reader.take(fields, "environment") else { return };
    draft.from("spec.deployment.env", &at);
    for (name, value, at) in pairs(&at, reader) {
        match value.or_else(|| shared.options.variables.get(&name).cloned()) {
            Some(value) if !value.contains('\0') => draft.env(&name, value, &at, reader),
            _ => reader.lost(
                &at,
                format!("{name} takes its value from where it is started, and has none here"),
                &format!("`vimana run -e {name}=...`, or write the value"),
            ),
        }
    }
}

/// Reads the variables of a file that was given with the import.
fn env_file(at: &At<'_>, draft: &mut Draft, shared: &Shared<'_, '_>, reader: &mut Reader<'_>) {
    let path = if at.is_table() {
        let mut fields = reader.fields(at);
        let path = reader.take(&mut fields, "path");
        for key in ["required", "format"] {
            // They say how the file is read, which has happened.
            if let Some(at) = reader.take(&mut fields, key) {
                reader.carried(&at);
            }
        }
        reader.rest(fields, &[]);
        path
    } else {
        Some(at.clone())
    };
    let Some(path) = path else { return };
    let Some(name) = reader.text(&path) else { return };
    let again = "put it there and import again, or write the variables into `spec.deployment.env`";
    let text = match shared.options.env_files.get(&name) {
        Some(Ok(text)) => text,
        Some(Err(reason)) => return reader.lost(&path, format!("{name} can't be read: {reason}"), again),
        None => return reader.lost(&path, format!("{name} wasn't read"), again),
    };
    let variables = match dotenv::dotenv(text) {
        Ok(variables) => variables,
        Err(error) => return reader.lost(&path, format!("{name}: {error}"), again),
    };
    let mut written = 0usize;
    for (variable, value) in variables {
        match value.or_else(|| shared.options.variables.get(&variable).cloned()) {
            Some(value) if !value.contains('\0') => {
                if value.contains("${") {
                    reader.noted(
                        Outcome::Changed,
                        &path,
                        format!("{variable} in {name} is taken as it is, with the variables in it"),
                        "",
                    );
                }
                draft.env(&variable, value, &path, reader);
                written = written.saturating_add(1);
            }
            _ => reader.lost(&path, format!("{variable} in {name} has no value"), ""),
        }
    }
    let why = format!(
        "the {written} variables of {name} were written into the manifest, for everybody to see who reads it"
    );
    reader.changed(&path, why, "");
}

fn labels(fields: &mut Fields<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let Some(at) = reader.take(fields, "labels") else { return };
    for (name, value, at) in pairs(&at, reader) {
        if name.is_empty() {
            reader.lost(&at, "a label has an empty name", "");
            continue;
        }
        reader.carried(&at);
        draft.manifest.metadata.labels.insert(name, value.unwrap_or_default());
    }
}

fn host_name(fields: &mut Fields<'_>, draft: &Draft, reader: &mut Reader<'_>) {
    for key in ["hostname", "container_name"] {
        let Some(at) = reader.take(fields, key) else { continue };
        let Some(name) = reader.text(&at) else { continue };
        if name != draft.label {
            let why = format!("the spacecore and its host are called {:?}, as the service is", draft.label);
            reader.lost(&at, why, &format!("write `metadata.name = {name:?}`, or `vimana run --name`"));
        }
    }
}

/// Reads the kind of network; tells whether there is none.
fn network_mode(fields: &mut Fields<'_>, draft: &mut Draft, reader: &mut Reader<'_>) -> bool {
    let Some(at) = reader.take(fields, "network_mode") else { return false };
    match reader.text(&at).as_deref() {
        Some("none") => {
            draft.from("spec.networking.network_type", &at);
            draft.manifest.spec.networking.network_type = NetworkType::None;
            return true;
        }
        Some("bridge") | None => {}
        Some(_) => reader.lost(
            &at,
            "a spacecore has a network of its own, which it shares neither with the host nor with another",
            "publish the ports that are needed, or make it a [[spec.sidecars]] of the one whose network it shares",
        ),
    }
    false
}

/// Reads what must run before.
fn depends_on(
    fields: &mut Fields<'_>,
    draft: &mut Draft,
    shared: &mut Shared<'_, '_>,
    reader: &mut Reader<'_>,
) {
    let Some(at) = reader.take(fields, "depends_on") else { return };
    let mut names = Vec::new();
    if at.is_table() {
        for (name, entry) in reader.named(&at) {
            let mut fields = reader.fields(&entry);
            if let Some(condition) = reader.take(&mut fields, "condition") {
                match reader.text(&condition).as_deref() {
                    Some("service_started" | "service_healthy") | None => {}
                    Some(_) => reader.lost(
                        &condition,
                        "a condition waits until another is active, not until it has ended",
                        "run that one first",
                    ),
                }
            }
            reader.rest(
                fields,
                &[
                    ("restart", "a spacecore isn't restarted because another is", ""),
                    ("required", "a condition always holds", "remove the condition"),
                ],
            );
            names.push((name, entry));
        }
    } else {
        for item in reader.items(&at) {
            if let Some(name) = reader.text(&item) {
                names.push((name, item));
            }
        }
    }
    for (name, at) in names {
        if !shared.services.contains(&name) {
            let help = format!("the services are {}", shared.services.join(", "));
            reader.error_at(&at.path, at.key, format!("there is no service {name:?} to depend on"), &help);
            continue;
        }
        draft.waits_for(shared.labels.of(&name), &at);
    }
}

fn secrets(fields: &mut Fields<'_>, draft: &mut Draft, shared: &mut Shared<'_, '_>, reader: &mut Reader<'_>) {
    let Some(at) = reader.take(fields, "secrets") else { return };
    for item in reader.items(&at) {
        let (name, target) = granted(&item, "only the workload's user reads a secret", reader);
        if let Some(target) = target
            && let Some(path) = reader.text(&target)
            && path.strip_prefix("/run/secrets/").unwrap_or(&path) != name.as_deref().unwrap_or_default()
        {
            let why = "a secret is always the file /run/secrets/NAME";
            reader.lost(&target, why, "have the workload read it there, or rename the secret");
        }
        let Some(name) = name else { continue };
        shared.used.insert(format!("secret {name}"));
        if draft.manifest.spec.deployment.secrets.contains(&name) {
            continue;
        }
        let index = draft.manifest.spec.deployment.secrets.len();
        draft.from(format!("spec.deployment.secrets[{index}]"), &item);
        draft.manifest.spec.deployment.secrets.push(name);
    }
}
