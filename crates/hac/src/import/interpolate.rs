//! `${NAME}` in the values of a compose file, as the compose specification's section "Interpolation" has it.
//!
//! `$NAME` and `${NAME}` stand for a variable's value, `$$` for one `$`. `${NAME:-text}` and `${NAME-text}` fall back to a
//! text (the first if the variable is empty too), `${NAME:+text}` and `${NAME+text}` replace a variable that is set, and
//! `${NAME:?reason}` and `${NAME?reason}` demand one. The texts may hold variables themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::{At, Reader};
use super::remark::Outcome;
use crate::decode::join;
use crate::tree::{Node, Value};

/// The deepest nesting of variables in each other's texts.
const MOST_DEPTH: usize = 16;
/// The most bytes that all texts of a file have in the end.
const MOST_BYTES: usize = 1 << 20;

/// What keeps a text from being complete.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// A variable has no value, and perhaps the file says why it needs one.
    Unset(String, Option<String>),
    /// A `${` is never closed, or doesn't hold a name.
    Malformed,
    TooDeep,
}

/// Replaces the variables in every value of a tree. A value that needs one which isn't set becomes nothing, and is named.
pub(super) fn tree(root: &mut Node, variables: &BTreeMap<String, String>, reader: &mut Reader<'_>) {
    let mut pass = Pass { variables, told: BTreeSet::new(), bytes: 0 };
    let Value::Table(entries) = &mut root.value else { return };
    for entry in entries.iter_mut().filter(|entry| !entry.key.starts_with("x-")) {
        let path = join("", &entry.key);
        match &mut entry.node.value {
            Value::Table(services) if entry.key == "services" => {
                for service in services {
                    reader.service = Some(service.key.clone());
                    pass.node(&mut service.node, join(&path, &service.key), service.key_bounds, reader);
                }
                reader.service = None;
            }
            _ => pass.node(&mut entry.node, path, entry.key_bounds, reader),
        }
    }
}

struct Pass<'v> {
    variables: &'v BTreeMap<String, String>,
    /// The variables of which it has been said that their value is written.
    told: BTreeSet<String>,
    bytes: usize,
}

impl Pass<'_> {
    fn node(&mut self, node: &mut Node, path: String, key: crate::tree::Bounds, reader: &mut Reader<'_>) {
        let text = match &mut node.value {
            Value::String(text) if text.contains('$') => std::mem::take(text),
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let bounds = item.bounds;
                    self.node(item, format!("{path}[{index}]"), bounds, reader);
                }
                return;
            }
            Value::Table(entries) => {
                for entry in entries {
                    self.node(&mut entry.node, join(&path, &entry.key), entry.key_bounds, reader);
                }
                return;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return,
        };
        let budget = MOST_BYTES.saturating_sub(self.bytes);
        let mut expansion = Expansion { variables: self.variables, used: BTreeSet::new(), most: budget };
        let result = expansion.text(&text, 0);
        node.value = match &result {
            Ok(complete) => {
                self.bytes = self.bytes.saturating_add(complete.len());
                Value::String(complete.clone())
            }
            Err(_) => Value::Null,
        };
        let at = At { node, path, key };
        match result {
            Ok(complete) if complete.len() > budget => {
                reader.error(&at, "the variables make the file's texts larger than 1 MiB", "");
            }
            Ok(_) => {
                for name in expansion.used {
                    if self.told.insert(name.clone()) {
                        let why = format!(
                            "`${{{name}}}` was replaced by its value, which now stands in the manifest"
                        );
                        reader.noted(Outcome::Changed, &at, why, "");
                    }
                }
            }
            Err(Failure::Unset(name, reason)) => {
                let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                reader.lost_to_variable(
                    &at,
                    format!("the variable {name} isn't set{reason}"),
                    &format!(
                        "set it in the environment or a file for --env-file, or write the value: {name}=..."
                    ),
                );
            }
            Err(Failure::Malformed) => reader.error(
                &at,
                format!("a variable in {text:?} isn't complete"),
                "write ${NAME} or ${NAME:-default}, and $$ for a dollar sign",
            ),
            Err(Failure::TooDeep) => reader.error(&at, "variables are nested too deep here", ""),
        }
    }
}

/// The way through one text, and through those inside of it.
struct Expansion<'v> {
    variables: &'v BTreeMap<String, String>,
    /// The variables that gave it a value.
    used: BTreeSet<String>,
    /// The bytes beyond which it stops growing.
    most: usize,
}

impl Expansion<'_> {
    /// Replaces the variables of a text.
    fn text(&mut self, text: &str, depth: usize) -> Result<String, Failure> {
        if depth > MOST_DEPTH {
            return Err(Failure::TooDeep);
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            if out.len() > self.most {
                return Ok(out);
            }
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(inner) = rest.strip_prefix('{') {
                let end = closing(inner).ok_or(Failure::Malformed)?;
                out.push_str(&self.braced(&inner[..end], depth)?);
                rest = &inner[end + 1..];
            } else {
                let (name, after) = split_name(rest);
                if name.is_empty() {
                    out.push('$');
                } else {
                    out.push_str(&self.value(name)?);
                }
                rest = after;
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&mut self, name: &str) -> Result<String, Failure> {
        let value = self.variables.get(name).filter(|value| !value.contains('\0'));
        let value = value.ok_or_else(|| Failure::Unset(name.to_owned(), None))?;
        self.used.insert(name.to_owned());
        Ok(value.clone())
    }

    /// Gives what `${...}` stands for.
    fn braced(&mut self, inner: &str, depth: usize) -> Result<String, Failure> {
        let (name, operator) = split_name(inner);
        if name.is_empty() {
            return Err(Failure::Malformed);
        }
        let (or_empty, operator) = match operator.strip_prefix(':') {
            Some(operator) => (true, operator),
            None => (false, operator),
        };
        let is_set = self.variables.get(name).is_some_and(|value| !(or_empty && value.is_empty()));
        let Some(sign) = operator.chars().next() else {
            // `${NAME:}` has an operator without a sign.
            return if or_empty { Err(Failure::Malformed) } else { self.value(name) };
        };
        let text = operator.get(1..).unwrap_or_default();
        match sign {
            '-' | '?' if is_set => self.value(name),
            '-' => self.text(text, depth + 1),
            '?' => {
                let reason = self.text(text, depth + 1)?;
                Err(Failure::Unset(name.to_owned(), (!reason.is_empty()).then_some(reason)))
            }
            '+' if is_set => self.text(text, depth + 1),
            '+' => Ok(String::new()),
            _ => Err(Failure::Malformed),
        }
    }
}

/// Finds the brace that closes what has just been opened.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' if at > 0 && text.as_bytes()[at - 1] == b'$' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

fn split_name(text: &str) -> (&str, &str) {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(if starts { end } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, Failure> {
        let variables = [("A", "1"), ("EMPTY", ""), ("B_2", "two")];
        let variables =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Expansion { variables: &variables, used: BTreeSet::new(), most: 1000 }.text(text, 0)
    }

    #[test]
    fn every_form_gives_what_compose_gives() {
        let cases = [
            ("$A${A}-$B_2.", "11-two."),
            ("$$A $${A} cost: 5$", "$A ${A} cost: 5$"),
            ("${X:-d}${X-d}${A:-d}", "dd1"),
            ("${EMPTY:-d}${EMPTY-d}", "d"),
            ("${A:+yes}${EMPTY:+yes}${EMPTY+yes}${X+yes}", "yesyes"),
            ("${X:-é}ü", "éü"),
        ];
        for (text, expected) in cases {
            assert_eq!(expanded(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(expanded("a $X"), Err(Failure::Unset("X".to_owned(), None)));
        assert_eq!(expanded("${X:?give $A}"), Err(Failure::Unset("X".to_owned(), Some("give 1".to_owned()))));
        for wrong in ["${", "${A", "${}", "${1}", "${A:}", "${A*}", "${X:-${A}"] {
            assert_eq!(expanded(wrong), Err(Failure::Malformed), "{wrong}");
        }
        assert_eq!(expanded(&format!("{}{}", "${X:-".repeat(30), "}".repeat(30))), Err(Failure::TooDeep));
    }
}
