//! How much a service gets and how it is operated: `deploy`, and the older keys beside it.

use super::unsupported;
use crate::import::draft::Draft;
use crate::import::quantity;
use crate::import::reader::{At, Fields, Reader};
use crate::import::remark::Outcome;
use crate::model::{RestartPolicy, UpdateStrategy};

const ONE_AMOUNT: &str = "a manifest has one amount: what is reserved is what is granted";

/// Reads resources, replicas, restarts, updates and placement.
pub(super) fn read(fields: &mut Fields<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let mut amounts = Amounts::default();
    if let Some(at) = reader.take(fields, "scale")
        && let Some(count) = reader.number(&at)
    {
        draft.replicas(count, &at, reader);
    }
    if let Some(at) = reader.take(fields, "gpus") {
        if at.is_list() {
            devices(&at, draft, reader);
        } else if let Some(count) = reader.text(&at) {
            gpus(&count, &at, draft, reader);
        }
    }
    let restart = reader.take(fields, "restart");
    let mut deploys_restart = false;
    if let Some(deploy) = reader.take(fields, "deploy") {
        let mut deploy = reader.fields(&deploy);
        replicas(&mut deploy, draft, reader);
        if let Some(at) = reader.take(&mut deploy, "resources") {
            resources(&at, &mut amounts, draft, reader);
        }
        if let Some(at) = reader.take(&mut deploy, "restart_policy") {
            deploys_restart = true;
            restart_policy(&at, draft, reader);
        }
        if let Some(at) = reader.take(&mut deploy, "update_config") {
            update_config(&at, draft, reader);
        }
        if let Some(at) = reader.take(&mut deploy, "placement") {
            placement(&at, draft, reader);
        }
        reader.rest(deploy, unsupported::DEPLOY);
    }
    amounts.memory.extend(reader.take(fields, "mem_limit"));
    amounts.memory.extend(reader.take(fields, "mem_reservation"));
    amounts.cpu.extend(reader.take(fields, "cpus"));
    amounts.pids.extend(reader.take(fields, "pids_limit"));
    amounts.apply(draft, reader);
    match restart {
        Some(at) if deploys_restart => {
            reader.lost(&at, "`deploy.restart_policy` says it too, and goes before", "");
        }
        Some(at) => restart_word(&at, draft, reader),
        None => {}
    }
}

/// Where a service says how much it gets, in the order in which compose goes by them.
#[derive(Default)]
struct Amounts<'n> {
    memory: Vec<At<'n>>,
    cpu: Vec<At<'n>>,
    pids: Vec<At<'n>>,
}

impl Amounts<'_> {
    fn apply(self, draft: &mut Draft, reader: &mut Reader<'_>) {
        if let Some((at, size)) = granted(&self.memory, quantity::compose_size, reader) {
            draft.memory(size, at, reader);
        }
        if let Some((at, amount)) = granted(&self.cpu, quantity::cpu, reader) {
            draft.cpu(amount, at);
        }
        if let Some((at, count)) = granted(&self.pids, pids, reader) {
            draft.pids(count, at, reader);
        }
    }
}

/// Finds the first amount that isn't 0, which stands for none, and names the others that say something else.
fn granted<'a, 'n, T: Copy + Default + PartialEq>(
    said: &'a [At<'n>],
    read: fn(&mut Reader<'_>, &At<'_>) -> Option<T>,
    reader: &mut Reader<'_>,
) -> Option<(&'a At<'n>, T)> {
    let read: Vec<_> = said.iter().filter_map(|at| Some((at, read(reader, at)?))).collect();
    let mut amounts = read.into_iter();
    let (at, amount) = amounts.find(|(_, amount)| *amount != T::default())?;
    amounts.filter(|(_, other)| *other != amount).for_each(|(at, _)| reader.lost(at, ONE_AMOUNT, ""));
    Some((at, amount))
}

/// Reads the most processes, where compose takes 0 and -1 for no limit.
fn pids(reader: &mut Reader<'_>, at: &At<'_>) -> Option<u32> {
    if matches!(reader.text(at)?.trim(), "0" | "-1") {
        let why = "a spacecore always has a limit of processes";
        reader.lost(at, why, "`spec.resources.pids` is 4096 where nothing else is written");
        return None;
    }
    reader.number(at)
}

fn replicas(deploy: &mut Fields<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    if let Some(at) = reader.take(deploy, "mode") {
        match reader.text(&at).as_deref() {
            Some("replicated") | None => {}
            Some("global") => reader.lost(
                &at,
                "a spacecore doesn't run on every node",
                "write how many `replicas` there are",
            ),
            Some(_) => reader.lost(
                &at,
                "a spacecore that ends is a job by itself",
                "`spec.restart.policy = \"never\"`",
            ),
        }
    }
    if let Some(at) = reader.take(deploy, "replicas")
        && let Some(count) = reader.number(&at)
    {
        draft.replicas(count, &at, reader);
    }
}

fn resources<'n>(at: &At<'n>, amounts: &mut Amounts<'n>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let mut fields = reader.fields(at);
    for key in ["limits", "reservations"] {
        let Some(at) = reader.take(&mut fields, key) else { continue };
        let mut part = reader.fields(&at);
        amounts.memory.extend(reader.take(&mut part, "memory"));
        amounts.cpu.extend(reader.take(&mut part, "cpus"));
        amounts.pids.extend(reader.take(&mut part, "pids"));
        if let Some(at) = reader.take(&mut part, "devices") {
            devices(&at, draft, reader);
        }
        reader.rest(
            part,
            &[(
                "generic_resources",
                "nodes don't offer resources by name",
                "choose nodes with `spec.placement.attributes`",
            )],
        );
    }
    reader.rest(fields, &[]);
}

/// Reads a list of devices, of which GPUs are carried over.
fn devices(at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    for item in reader.items(at) {
        let mut fields = reader.fields(&item);
        let capabilities = reader.take(&mut fields, "capabilities").and_then(|at| reader.texts(&at));
        let is_gpu = capabilities.is_none_or(|words| words.iter().any(|word| word == "gpu"));
        if !is_gpu {
            reader.lost(&item, "devices of the host aren't reached from a spacecore, but for GPUs", "");
            continue;
        }
        let ids = reader.take(&mut fields, "device_ids").and_then(|at| {
            let count = reader.texts(&at)?.len();
            reader.lost(
                &at,
                "a manifest doesn't choose devices by number",
                "name a model in `spec.resources.accelerators`",
            );
            u32::try_from(count).ok()
        });
        match reader.take(&mut fields, "count") {
            Some(at) => {
                if let Some(count) = reader.text(&at) {
                    gpus(&count, &at, draft, reader);
                }
            }
            None => match ids {
                Some(count) => draft.gpus(count, &item),
                None => gpus("all", &item, draft, reader),
            },
        }
        reader.rest(
            fields,
            &[
                (
                    "driver",
                    "GPUs aren't chosen by their driver",
                    "name a model in `spec.resources.accelerators`",
                ),
                ("options", "a driver's options aren't in a manifest", ""),
            ],
        );
    }
}

fn gpus(count: &str, at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    match count.trim().parse::<u32>() {
        Ok(count) => draft.gpus(count, at),
        Err(_) if matches!(count.trim(), "all" | "-1") => {
            draft.gpus(1, at);
            reader.noted(
                Outcome::Changed,
                at,
                "all GPUs of a machine can't be asked for; it became one",
                "write how many there are: `spec.resources.gpu`",
            );
        }
        Err(_) => reader.error(
            at,
            format!("`{}` expects a number of GPUs or `all`, and this is {count:?}", at.path),
            "",
        ),
    }
}

/// Reads `restart`.
fn restart_word(at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let Some(word) = reader.text(at) else { return };
    draft.from("spec.restart.policy", at);
    let restart = &mut draft.manifest.spec.restart;
    let (word, attempts) =
        word.split_once(':').map_or((word.as_str(), None), |(word, count)| (word, Some(count)));
    restart.policy = match word {
        "no" | "false" => RestartPolicy::Never,
        "on-failure" => RestartPolicy::OnFailure,
        "always" => RestartPolicy::Always,
        "unless-stopped" => {
            reader.noted(
                Outcome::Changed,
                at,
                "it became `always`: a spacecore that was stopped isn't started again by itself",
                "",
            );
            RestartPolicy::Always
        }
        other => {
            let help = "no, on-failure, on-failure:3, always or unless-stopped";
            return reader.error(at, format!("{other:?} is no way to restart"), help);
        }
    };
    if let Some(attempts) = attempts {
        match attempts.parse() {
            Ok(attempts) => restart.max_attempts = attempts,
            Err(_) => reader.error(at, format!("{attempts:?} is no number of restarts"), "on-failure:3"),
        }
    }
}

fn restart_policy(at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let mut fields = reader.fields(at);
    let condition = reader.take(&mut fields, "condition");
    let word = condition.as_ref().and_then(|at| reader.text(at));
    draft.from("spec.restart", at);
    draft.manifest.spec.restart.policy = match word.as_deref() {
        Some("none") => RestartPolicy::Never,
        Some("on-failure") => RestartPolicy::OnFailure,
        Some("any") | None => RestartPolicy::Always,
        Some(other) => {
            return reader.error(
                condition.as_ref().unwrap_or(at),
                format!("{other:?} is no condition of a restart"),
                "none, on-failure or any",
            );
        }
    };
    if let Some(at) = reader.take(&mut fields, "delay")
        && let Some(delay) = quantity::duration(reader, &at)
    {
        if delay.0 == 0 {
            reader.lost(&at, "there is always a wait before a restart", "");
        } else {
            draft.manifest.spec.restart.backoff = delay;
            reader.noted(Outcome::Changed, &at, "the wait doubles with each restart, up to 5 minutes", "");
        }
    }
    if let Some(at) = reader.take(&mut fields, "max_attempts")
        && let Some(count) = reader.number(&at)
    {
        draft.manifest.spec.restart.max_attempts = count;
    }
    reader.rest(fields, unsupported::RESTART);
}

fn update_config(at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let mut fields = reader.fields(at);
    draft.from("spec.update", at);
    let replicas = draft.manifest.spec.deployment.replicas;
    let update = &mut draft.manifest.spec.update;
    if let Some(at) = reader.take(&mut fields, "parallelism")
        && let Some(count) = reader.number(&at)
    {
        if count == 0 {
            // Compose's 0 is all at once.
            update.strategy = UpdateStrategy::Recreate;
        } else {
            update.max_parallel = count.min(replicas);
            if count > replicas {
                reader.noted(
                    Outcome::Changed,
                    &at,
                    format!("there are only {replicas} replicas to replace at a time"),
                    "",
                );
            }
        }
    }
    if let Some(at) = reader.take(&mut fields, "failure_action") {
        match reader.text(&at).as_deref() {
            Some("rollback") | None => update.auto_revert = true,
            Some("pause") => update.auto_revert = false,
            Some(_) => {
                update.auto_revert = false;
                reader.noted(
                    Outcome::Changed,
                    &at,
                    "an update that doesn't get healthy stops; it doesn't go on",
                    "",
                );
            }
        }
    }
    reader.rest(fields, unsupported::UPDATE);
}

fn placement(at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let mut fields = reader.fields(at);
    if let Some(at) = reader.take(&mut fields, "constraints") {
        for item in reader.items(&at) {
            let Some(text) = reader.text(&item) else { continue };
            let equal = text.split_once("==").map(|(name, value)| (name.trim(), value.trim()));
            match equal.and_then(|(name, value)| Some((name.strip_prefix("node.labels.")?, value))) {
                Some((name, value)) if !name.is_empty() => {
                    draft.from("spec.placement.attributes", &item);
                    draft.manifest.spec.placement.attributes.insert(name.to_owned(), value.to_owned());
                }
                _ => reader.lost(
                    &item,
                    "only `node.labels.NAME == VALUE` has a counterpart",
                    "`spec.placement.attributes` and `operators` choose nodes",
                ),
            }
        }
    }
    reader.rest(fields, unsupported::PLACEMENT);
}
