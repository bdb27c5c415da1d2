//! `healthcheck`, which becomes a check that runs a command inside.

use super::unsupported;
use crate::import::draft::Draft;
use crate::import::quantity;
use crate::import::reader::{At, Fields, Reader};
use crate::import::remark::Outcome;
use crate::model::{Check, CheckKind};
use crate::units::Duration;

/// Reads the health check of a service.
pub(super) fn read(fields: &mut Fields<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let Some(at) = reader.take(fields, "healthcheck") else { return };
    let mut fields = reader.fields(&at);
    let disabled = reader.take(&mut fields, "disable").and_then(|at| reader.flag(&at)).unwrap_or_default();
    let test = reader.take(&mut fields, "test");
    let command = match &test {
        Some(test) if disabled => {
            reader.lost(test, "the check is disabled", "");
            None
        }
        Some(test) => command(test, reader),
        None => None,
    };
    let Some(command) = command else {
        if disabled || test.is_some() {
            // Without a check its times say nothing; and no check is what a manifest has by itself.
            reader.carried(&at);
        } else {
            let instead = "write it out as `[[spec.checks]]` with type = \"exec\"";
            reader.lost(&at, "the image's own check isn't known here", instead);
        }
        return;
    };
    draft.from("spec.checks[0]", &at);
    let mut time = |key: &str, default: u64, reader: &mut Reader<'_>| {
        let at = reader.take(&mut fields, key);
        let time = at.as_ref().and_then(|at| quantity::duration(reader, at));
        // Compose takes 0 for its default.
        (time.filter(|time| time.0 > 0 || default == 0).unwrap_or(Duration::from_secs(default)), at)
    };
    let (interval, _) = time("interval", 30, reader);
    let (mut timeout, timeout_at) = time("timeout", 30, reader);
    let (grace_period, _) = time("start_period", 0, reader);
    if timeout > interval {
        if let Some(at) = timeout_at {
            reader.noted(
                Outcome::Changed,
                &at,
                format!("a check takes no longer than from one to the next: it became {interval}"),
                "",
            );
        }
        timeout = interval;
    }
    let retries = reader
        .take(&mut fields, "retries")
        .and_then(|at| reader.number(&at))
        .filter(|count| *count > 0)
        .unwrap_or(3);
    reader.rest(fields, unsupported::HEALTH);
    let check = Check {
        kind: CheckKind::Exec,
        command: Some(command),
        interval,
        timeout,
        grace_period,
        retries,
        ..Check::default()
    };
    draft.manifest.spec.checks.push(check);
}

/// Reads what is run; nothing if there is no check.
fn command(at: &At<'_>, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let shell = |line: String| Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), line]);
    if !at.is_list() {
        return reader.text(at).and_then(shell);
    }
    let mut words = reader.texts(at)?.into_iter();
    match (words.next().as_deref(), words.len()) {
        (Some("NONE"), 0) => None,
        (Some("CMD"), 1..) => Some(words.collect()),
        (Some("CMD-SHELL"), 1) => words.next().and_then(shell),
        _ => {
            let help = "for example: [\"CMD\", \"pg_isready\"], [\"CMD-SHELL\", \"curl -f localhost || exit 1\"] or [\"NONE\"]";
            reader.error(at, format!("`{}` isn't a check", at.path), help);
            None
        }
    }
}
