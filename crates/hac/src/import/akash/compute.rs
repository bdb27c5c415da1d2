//! Compute profiles: CPU, memory, GPUs, and storage with where it is mounted.

use std::collections::BTreeMap;

use crate::import::draft::{Draft, Labels};
use crate::import::quantity;
use crate::import::reader::{At, Reader};
use crate::import::remark::Outcome;
use crate::model::{Accelerator, Mount};

const ATTRIBUTES: &str = "what the hardware is like isn't said beside its amount";
const PLACE: &str = "choose nodes with `spec.placement.attributes`";

/// Reads a profile for a service.
pub(super) fn read(
    at: &At<'_>,
    mounts: BTreeMap<String, At<'_>>,
    draft: &mut Draft,
    reader: &mut Reader<'_>,
) {
    let mut fields = reader.fields(at);
    let Some(resources) = reader.take(&mut fields, "resources") else {
        reader.error(
            at,
            format!("`{}` has no `resources`", at.path),
            "they hold `cpu`, `memory` and `storage`",
        );
        return;
    };
    reader.rest(fields, &[]);
    let mut fields = reader.fields(&resources);
    if let Some(at) = reader.take(&mut fields, "cpu") {
        let mut cpu = reader.fields(&at);
        if let Some(at) = reader.take(&mut cpu, "units")
            && let Some(amount) = quantity::cpu(reader, &at)
        {
            draft.cpu(amount, &at);
        }
        reader.rest(cpu, &[("attributes", ATTRIBUTES, PLACE)]);
    }
    if let Some(at) = reader.take(&mut fields, "memory") {
        let mut memory = reader.fields(&at);
        if let Some(at) = reader.take(&mut memory, "size")
            && let Some(size) = quantity::size(reader, &at)
        {
            draft.memory(size, &at, reader);
        }
        reader.rest(memory, &[("attributes", ATTRIBUTES, PLACE)]);
    }
    if let Some(at) = reader.take(&mut fields, "gpu") {
        gpu(&at, draft, reader);
    }
    let mut left = mounts;
    if let Some(at) = reader.take(&mut fields, "storage") {
        for item in reader.one_or_more(at) {
            storage(&item, &mut left, draft, reader);
        }
    }
    reader.rest(fields, &[]);
    for (name, at) in left {
        reader.error_at(
            &at.path,
            at.key,
            format!("the compute profile has no storage {name:?}"),
            "give a storage of the profile this `name`",
        );
    }
}

/// Names the mounts of a service that has no profile.
pub(super) fn mounts_without_profile(mounts: BTreeMap<String, At<'_>>, reader: &mut Reader<'_>) {
    for at in mounts.values() {
        reader.lost(
            at,
            "there is no profile that says how large this storage is",
            "write it as `[[spec.mounts]]`",
        );
    }
}

/// Reads one storage: a volume or folder if the service mounts it, else the writable layer.
fn storage(item: &At<'_>, mounts: &mut BTreeMap<String, At<'_>>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let mut fields = reader.fields(item);
    let name = reader.take_text(&mut fields, "name");
    let size_at = reader.take(&mut fields, "size");
    let size = size_at.as_ref().and_then(|at| quantity::size(reader, at));
    let mut is_persistent = false;
    let mut in_memory = false;
    if let Some(at) = reader.take(&mut fields, "attributes") {
        let mut attributes = reader.fields(&at);
        if let Some(at) = reader.take(&mut attributes, "persistent") {
            is_persistent = reader.flag(&at).unwrap_or_default();
        }
        if let Some(at) = reader.take(&mut attributes, "class")
            && let Some(class) = reader.text(&at)
        {
            if class == "ram" {
                in_memory = true;
            } else {
                reader.lost(
                    &at,
                    "which disk a volume lies on is the node's affair",
                    "choose nodes with `spec.placement.attributes`, for example { disk = \"nvme\" }",
                );
            }
        }
        reader.rest(attributes, &[]);
    }
    reader.rest(fields, &[]);
    let mount = name.as_ref().and_then(|name| mounts.remove(name));
    let Some(mount) = mount else {
        if is_persistent {
            let what = name.as_deref().unwrap_or_default();
            let why = format!("the persistent storage {what:?} isn't mounted by this service");
            reader.noted(
                Outcome::NotCarried,
                item,
                why,
                "name its path below the service's `params.storage`",
            );
        } else if draft.manifest.spec.resources.storage.is_some() {
            reader.noted(
                Outcome::NotCarried,
                item,
                "there is one writable layer, and it has a size already",
                "",
            );
        } else if let Some(at) = size_at {
            draft.from("spec.resources.storage", &at);
            draft.manifest.spec.resources.storage = size;
        }
        return;
    };
    let mut fields = reader.fields(&mount);
    let destination = reader.take_text(&mut fields, "mount").unwrap_or_default();
    let readonly = reader.take(&mut fields, "readOnly").and_then(|at| reader.flag(&at)).unwrap_or_default();
    reader.rest(fields, &[]);
    // Each service has storage of its own, also where a profile is shared.
    let source = (is_persistent && !in_memory)
        .then(|| Labels::default().of(&format!("{}-{}", draft.label, name.unwrap_or_default())));
    let readonly = readonly && source.is_some();
    draft.mount(Mount { source, destination, size, readonly, encrypted: false }, &mount, reader);
}

/// Reads GPUs: of any model, or of the one that is named.
fn gpu(at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let mut fields = reader.fields(at);
    let units = reader.take(&mut fields, "units").and_then(|at| Some((reader.number(&at)?, at)));
    let attributes = reader.take(&mut fields, "attributes");
    reader.rest(fields, &[]);
    let count = units.as_ref().map_or(0, |(count, _)| *count);
    let mut models = Vec::new();
    if let Some(at) = attributes {
        let mut attributes = reader.fields(&at);
        if let Some(at) = reader.take(&mut attributes, "vendor") {
            for (name, vendor) in reader.named(&at) {
                // A vendor may be named without models.
                if vendor.is_null() {
                    reader.lost(
                        &vendor,
                        format!("a GPU of any model of {name} can't be asked for"),
                        "name a model in `spec.resources.accelerators`",
                    );
                    continue;
                }
                for item in reader.items(&vendor) {
                    let mut fields = reader.fields(&item);
                    if let Some(at) = reader.take(&mut fields, "model")
                        && let Some(model) = reader.text(&at)
                    {
                        models.push((model, at));
                    }
                    reader.rest(
                        fields,
                        &[
                            (
                                "ram",
                                "a GPU's memory isn't said beside its model",
                                "name a model that has as much",
                            ),
                            ("interface", "how a GPU is attached isn't said beside its model", ""),
                        ],
                    );
                }
            }
        }
        reader.rest(attributes, &[]);
    }
    if count == 0 {
        return;
    }
    match models.as_slice() {
        [(model, at)] => {
            draft.from("spec.resources.accelerators", at);
            draft.manifest.spec.resources.accelerators.push(Accelerator {
                model: Some(model.clone()),
                count,
                ..Accelerator::default()
            });
        }
        _ => {
            if let Some((_, at)) = &units {
                draft.gpus(count, at);
            }
            for (_, at) in &models {
                reader.lost(
                    at,
                    "any of several models can't be asked for: it became a GPU of any model",
                    "name one in `spec.resources.accelerators`",
                );
            }
        }
    }
}
