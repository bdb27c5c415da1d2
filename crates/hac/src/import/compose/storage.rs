//! `volumes`, `tmpfs`, `shm_size`, `storage_opt` and `configs`: everything that becomes a mount.

use super::{Shared, granted, rebased, unsupported};
use crate::import::draft::Draft;
use crate::import::quantity;
use crate::import::reader::{At, Fields, Reader};
use crate::import::remark::Outcome;
use crate::model::Mount;
use crate::units::Bytes;

const EMPTY_AT_FIRST: &str = "a volume is always empty at first: nothing is copied out of the image";

const ENGINE: [&str; 3] = ["/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock"];

/// Reads the mounts of a service.
pub(super) fn read<'n>(
    fields: &mut Fields<'n>,
    draft: &mut Draft,
    shared: &mut Shared<'n, '_>,
    reader: &mut Reader<'_>,
) {
    if let Some(at) = reader.take(fields, "volumes") {
        for item in reader.items(&at) {
            if item.is_table() {
                long(&item, draft, shared, reader);
            } else {
                short(&item, draft, shared, reader);
            }
        }
    }
    if let Some(at) = reader.take(fields, "tmpfs") {
        for item in reader.one_or_more(at) {
            tmpfs(&item, draft, reader);
        }
    }
    if let Some(at) = reader.take(fields, "shm_size")
        && let Some(size) = quantity::compose_size(reader, &at)
    {
        let mount = Mount { destination: "/dev/shm".to_owned(), size: Some(size), ..Mount::default() };
        draft.mount(mount, &at, reader);
    }
    if let Some(at) = reader.take(fields, "storage_opt") {
        let mut options = reader.fields(&at);
        if let Some(size) = reader.take(&mut options, "size") {
            draft.from("spec.resources.storage", &size);
            draft.manifest.spec.resources.storage = quantity::compose_size(reader, &size);
        }
        reader.rest(options, &[]);
    }
    if let Some(at) = reader.take(fields, "configs") {
        for item in reader.items(&at) {
            config(&item, draft, shared, reader);
        }
    }
}

/// Reads `[SOURCE:]DESTINATION[:OPTIONS]`.
fn short<'n>(at: &At<'n>, draft: &mut Draft, shared: &mut Shared<'n, '_>, reader: &mut Reader<'_>) {
    let Some(text) = reader.text(at) else { return };
    let is_windows = text.as_bytes().get(1) == Some(&b':')
        && text.as_bytes().get(2).is_some_and(|byte| matches!(byte, b'\\' | b'/'));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts[..] {
        _ if is_windows => {
            return reader.lost(
                at,
                "folders of Windows aren't mounted",
                "copy it to a folder of this machine",
            );
        }
        [destination] => (None, destination, ""),
        [source, destination] => (Some(source), destination, ""),
        [source, destination, options] => (Some(source), destination, options),
        _ => {
            let help = "volumes are written as \"data:/data\", \"./data:/data\" or \"./conf:/conf:ro\"";
            return reader.error(at, format!("{text:?} is no volume"), help);
        }
    };
    let mut readonly = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => readonly = true,
            // They are about labels of SELinux and about how a desktop keeps copies.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" => reader.noted(Outcome::Changed, at, EMPTY_AT_FIRST, ""),
            other => reader.noted(Outcome::NotCarried, at, format!("mounts have no option {other:?}"), ""),
        }
    }
    mount(source.filter(|source| !source.is_empty()), destination, readonly, None, at, draft, shared, reader);
}

/// Tells a folder or file of the host from the name of a volume.
fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

/// Gives the path of what is a path even where it starts like a name.
fn as_path(source: String) -> String {
    if is_path(&source) { source } else { format!("./{source}") }
}

/// Adds a mount from a source as a compose file has it.
#[expect(clippy::too_many_arguments, reason = "a mount has four parts, and four things to do with it")]
fn mount<'n>(
    source: Option<&str>,
    destination: &str,
    readonly: bool,
    size: Option<Bytes>,
    at: &At<'n>,
    draft: &mut Draft,
    shared: &mut Shared<'n, '_>,
    reader: &mut Reader<'_>,
) {
    let destination = destination.to_owned();
    let Some(source) = source else {
        if readonly {
            return reader.lost(
                at,
                "an empty folder that can't be written stays empty",
                "name what it is to hold",
            );
        }
        let why = "a volume without a name is an empty folder here, which ends with the spacecore";
        reader.noted(Outcome::Changed, at, why, "give it a name to keep what is in it: `source = \"data\"`");
        return draft.mount(
            Mount { source: None, destination, size, readonly: false, encrypted: false },
            at,
            reader,
        );
    };
    if ENGINE.contains(&source) {
        return reader.lost(at, "there is no container engine that a spacecore could steer", "");
    }
    if is_path(source) {
        let source = rebased(source, &shared.options.base);
        return draft.mount(
            Mount { source: Some(source), destination, size: None, readonly, encrypted: false },
            at,
            reader,
        );
    }
    if !shared.volumes.contains_key(source) {
        let help = "declare it below `volumes:`; a folder of this machine starts with /, ./ or ~/".to_owned();
        return reader.error(at, format!("there is no volume {source:?} in this file"), &help);
    }
    let (users, _) = shared.volume_users.entry(source.to_owned()).or_insert_with(|| (Vec::new(), at.clone()));
    if !users.contains(&draft.service) {
        users.push(draft.service.clone());
    }
    let source = Some(shared.volume_labels.of(source));
    draft.mount(Mount { source, destination, size, readonly, encrypted: false }, at, reader);
}

/// Reads the long form.
fn long<'n>(at: &At<'n>, draft: &mut Draft, shared: &mut Shared<'n, '_>, reader: &mut Reader<'_>) {
    let mut fields = reader.fields(at);
    let kind = reader.take_text(&mut fields, "type").unwrap_or_else(|| "volume".to_owned());
    let source = reader.take_text(&mut fields, "source");
    let destination = reader.take_text(&mut fields, "target").unwrap_or_default();
    let readonly = reader.take(&mut fields, "read_only").and_then(|at| reader.flag(&at)).unwrap_or_default();
    let mut size = None;
    if let Some(at) = reader.take(&mut fields, "tmpfs") {
        let mut options = reader.fields(&at);
        if let Some(at) = reader.take(&mut options, "size") {
            size = quantity::compose_size(reader, &at);
        }
        reader.rest(options, &[("mode", "a new folder belongs to the workload's user", "")]);
    }
    if let Some(at) = reader.take(&mut fields, "volume") {
        let options = reader.fields(&at);
        reader.rest(
            options,
            &[
                ("nocopy", EMPTY_AT_FIRST, ""),
                ("subpath", "a volume is mounted as a whole", "make it a volume of its own"),
            ],
        );
    }
    reader.rest(fields, unsupported::MOUNT);
    match (kind.as_str(), source) {
        ("tmpfs", _) => draft.mount(Mount { destination, size, ..Mount::default() }, at, reader),
        ("bind", Some(source)) => {
            mount(Some(&as_path(source)), &destination, readonly, None, at, draft, shared, reader);
        }
        ("volume", source) if !source.as_deref().is_some_and(is_path) => {
            mount(source.as_deref(), &destination, readonly, size, at, draft, shared, reader);
        }
        ("volume" | "bind", _) => {
            let help = "`type: bind` takes a folder as `source`, `type: volume` the name of a volume";
            reader.error(at, format!("`{}` has no fitting `source`", at.path), help);
        }
        (other, _) => reader.lost(at, format!("mounts of the type {other:?} aren't known"), ""),
    }
}

/// Reads `DESTINATION[:OPTIONS]`, an empty folder in memory.
fn tmpfs(at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let Some(text) = reader.text(at) else { return };
    let (destination, options) = text.split_once(':').unwrap_or((&text, ""));
    let mut size = None;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => match quantity::parse_compose_size(value) {
                Ok(read) => size = Some(read),
                Err(error) => {
                    reader.noted(Outcome::NotCarried, at, format!("the size can't be read: {error}"), "")
                }
            },
            _ => reader.noted(Outcome::NotCarried, at, format!("a folder has no option {option:?}"), ""),
        }
    }
    draft.mount(Mount { destination: destination.to_owned(), size, ..Mount::default() }, at, reader);
}

/// Reads a config: a file that is mounted, if the file declares where it is.
fn config<'n>(at: &At<'n>, draft: &mut Draft, shared: &mut Shared<'n, '_>, reader: &mut Reader<'_>) {
    let (name, target) = granted(at, "a mounted file keeps the owner and mode that it has", reader);
    let target = target.and_then(|target| reader.text(&target));
    let Some(name) = name else { return };
    let Some(declared) = shared.configs.get(&name).cloned() else {
        return reader.error(
            at,
            format!("there is no config {name:?} in this file"),
            "declare it below `configs:`",
        );
    };
    let file = reader.named(&declared).into_iter().find(|(key, _)| key == "file");
    match file.and_then(|(_, file)| reader.text(&file)) {
        Some(file) => {
            let source = Some(rebased(&as_path(file), &shared.options.base));
            let destination = target.unwrap_or_else(|| format!("/{name}"));
            shared.used.insert(format!("config {name}"));
            draft.mount(
                Mount { source, destination, size: None, readonly: true, encrypted: false },
                at,
                reader,
            );
        }
        None => reader.lost(
            at,
            "only a config that is a file can be mounted",
            "write it into a file, and mount that",
        ),
    }
}

/// Deals with the volumes that are declared at the top.
pub(super) fn declared_volumes(shared: &mut Shared<'_, '_>, reader: &mut Reader<'_>) {
    for (name, at) in shared.volumes.clone() {
        let Some((users, _)) = shared.volume_users.get(&name).cloned() else {
            reader.lost(&at, "no service uses this volume", "");
            continue;
        };
        if at.is_null() {
            reader.carried(&at);
        } else {
            declared(&at, reader);
        }
        let label = shared.volume_labels.of(&name);
        if label != name {
            let why = format!("the volume became {label:?}, because a volume's name has a-z, 0-9 and - only");
            reader.noted(Outcome::Changed, &at, why, "");
        }
        if users.len() > 1 {
            let why = format!(
                "{} use this volume; whether several spacecores may at a time is up to the node",
                users.join(", ")
            );
            reader.noted(Outcome::Changed, &at, why, "have one of them serve what the others need");
        }
    }
}

fn declared(at: &At<'_>, reader: &mut Reader<'_>) {
    let mut fields = reader.fields(at);
    if let Some(driver) = reader.take(&mut fields, "driver")
        && reader.text(&driver).is_some_and(|driver| driver != "local")
    {
        reader.lost(
            &driver,
            "volumes lie on the node's disks, whatever the driver",
            "mount it on the host, and mount that folder",
        );
    }
    if let Some(external) = reader.take(&mut fields, "external") {
        let is_external = match external.is_table() {
            true => true,
            false => reader.flag(&external).unwrap_or_default(),
        };
        if is_external {
            let why = "the volume is made when it is first used, and is empty: what another tool keeps in it isn't moved";
            reader.lost(&external, why, "copy the files into a folder, and mount that");
        }
    }
    if let Some(name) = reader.take(&mut fields, "name") {
        reader.lost(&name, "the volume is called as its key is", "write the name as `source` of the mounts");
    }
    reader.rest(fields, unsupported::VOLUME);
}
