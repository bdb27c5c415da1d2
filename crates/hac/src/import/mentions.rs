//! Services that speak with each other by name, which a file's own network provides and a spacecore's doesn't.

use super::draft::Draft;
use super::reader::{At, Reader};
use super::remark::Outcome;
use crate::tree::{Node, Value};

/// Names each place where a service's settings name another service as a host; one place for each pair.
pub(super) fn tell(drafts: &[Draft], reader: &mut Reader<'_>) {
    let nothing = Node { bounds: crate::tree::Bounds::default(), value: Value::Null };
    for draft in drafts {
        let deployment = &draft.manifest.spec.deployment;
        let variables = deployment.env.iter().map(|(name, value)| {
            (crate::decode::join("spec.deployment.env", name), name.as_str(), value.as_str())
        });
        let words = |key: &'static str, words: &'_ Option<Vec<String>>| {
            words.iter().flatten().map(|word| (key.to_owned(), "", word.clone())).collect::<Vec<_>>()
        };
        let commands = [
            words("spec.deployment.command", &deployment.command),
            words("spec.deployment.args", &deployment.args),
        ];
        let texts: Vec<(String, &str, String)> = variables
            .map(|(key, name, value)| (key, name, value.to_owned()))
            .chain(commands.into_iter().flatten())
            .collect();
        for other in drafts.iter().filter(|other| other.service != draft.service) {
            let Some((key, ..)) = texts.iter().find(|(_, name, text)| names_host(text, &other.service, name))
            else {
                continue;
            };
            let network = |draft: &Draft| draft.manifest.spec.networking.private_network.clone();
            if network(draft).is_some() && network(draft) == network(other) && other.label == other.service {
                continue;
            }
            let (path, bounds) = draft.origin(key);
            reader.service = Some(draft.service.clone());
            let at = At { node: &nothing, path, key: bounds };
            let (mine, theirs) = (&draft.service, &other.service);
            reader.noted(
                Outcome::NotCarried,
                &at,
                format!("{mine:?} reaches {theirs:?} by its name here, which spacecores of one private network alone know, and then as {:?}", other.label),
                &format!("write that, and the same `spec.networking.private_network` for both (where root runs them); or make {theirs:?} a [[spec.sidecars]] of {mine:?} and write 127.0.0.1"),
            );
        }
    }
    reader.service = None;
}

/// Tells whether a text names a host: in a URL, before a port, or alone in a variable that is called after a host.
fn names_host(text: &str, host: &str, variable: &str) -> bool {
    let variable = variable.to_ascii_uppercase();
    let is_called_host = ["HOST", "HOSTNAME", "SERVER", "ADDR", "ADDRESS", "URL", "URI", "ENDPOINT"]
        .iter()
        .any(|ending| variable.ends_with(ending));
    if text == host && is_called_host {
        return true;
    }
    let part_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.match_indices(host).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + host.len()..]);
        if before.ends_with(part_of_name) || after.starts_with(part_of_name) {
            return false;
        }
        let in_url = before.ends_with("//") || before.ends_with('@');
        let port = after.strip_prefix(':').is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()));
        let path_before = before.ends_with(['/', ':']) && !in_url;
        in_url || (port && !path_before)
    })
}

#[cfg(test)]
mod tests {
    use super::names_host;

    #[test]
    fn a_host_is_told_from_a_word() {
        for (text, variable) in [
            ("postgres://app:pw@db:5432/app", "DATABASE_URL"),
            ("http://db/x", ""),
            ("db:5432", ""),
            ("--host=db:1", ""),
            ("a:1,db:5432", ""),
            ("db", "PGHOST"),
            ("db", "db_host"),
        ] {
            assert!(names_host(text, "db", variable), "{text}");
        }
        for (text, variable) in [
            ("db", "POSTGRES_DB"),
            ("mydb:5432", ""),
            ("/var/db:1", ""),
            ("db.example.org:1", ""),
            ("the db: yes", ""),
        ] {
            assert!(!names_host(text, "db", variable), "{text}");
        }
    }
}
