//! TOML into the tree.

use toml_edit::{Document, Item, TableLike};

use super::{Bounds, Budget, Entry, Node, SyntaxError, Value};

impl From<Option<std::ops::Range<usize>>> for Bounds {
    fn from(range: Option<std::ops::Range<usize>>) -> Self {
        range.map_or_else(Self::default, |range| Self {
            start: range.start,
            end: range.end,
        })
    }
}

/// Reads a TOML document.
pub(super) fn read(source: &str) -> Result<Node, SyntaxError> {
    let document = Document::parse(source).map_err(|error| {
        let bounds = Bounds::from(error.span());
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        let syntax = SyntaxError::new(format!("this isn't TOML: {message}"), bounds);
        let line = source
            .get(..bounds.start)
            .unwrap_or_default()
            .lines()
            .next_back()
            .unwrap_or_default();
        match source.get(bounds.start..).unwrap_or_default().chars().next() {
            Some(':') if !line.contains('=') => {
                syntax.help("in TOML it is `key = value`; name the file .yaml if it is YAML")
            }
            _ => syntax,
        }
    })?;
    let mut budget = Budget::new();
    let root = document.as_item();
    table(root.as_table_like(), Bounds { start: 0, end: 0 }, 0, &mut budget)
}

fn table(
    table: Option<&dyn TableLike>,
    bounds: Bounds,
    depth: usize,
    budget: &mut Budget,
) -> Result<Node, SyntaxError> {
    budget.take(depth, bounds)?;
    let mut entries = Vec::new();
    let pairs = table.into_iter().flat_map(|table| {
        table
            .iter()
            .map(move |(name, item)| (table.key(name), name, item))
    });
    for (key, name, item) in pairs {
        let key_bounds = key.map_or(bounds, |key| Bounds::from(key.span()));
        entries.push(Entry {
            key: name.to_owned(),
            key_bounds,
            node: node(item, key_bounds, depth + 1, budget)?,
        });
    }
    Ok(Node {
        bounds,
        value: Value::Table(entries),
    })
}

/// Converts an item; `fallback` is the place of what has none of its own (a table that only dotted keys make).
fn node(item: &Item, fallback: Bounds, depth: usize, budget: &mut Budget) -> Result<Node, SyntaxError> {
    let bounds = item.span().map_or(fallback, |range| Bounds {
        start: range.start,
        end: range.end,
    });
    match item {
        Item::None => Ok(Node {
            bounds,
            value: Value::Null,
        }),
        Item::Value(inner) => value(inner, bounds, depth, budget),
        Item::Table(_) => table(item.as_table_like(), bounds, depth, budget),
        Item::ArrayOfTables(tables) => {
            budget.take(depth, bounds)?;
            let mut items = Vec::new();
            for inner in tables {
                let at = inner.span().map_or(bounds, |range| Bounds {
                    start: range.start,
                    end: range.end,
                });
                items.push(table(Some(inner), at, depth + 1, budget)?);
            }
            Ok(Node {
                bounds,
                value: Value::List(items),
            })
        }
    }
}

fn value(
    value: &toml_edit::Value,
    fallback: Bounds,
    depth: usize,
    budget: &mut Budget,
) -> Result<Node, SyntaxError> {
    let bounds = value.span().map_or(fallback, |range| Bounds {
        start: range.start,
        end: range.end,
    });
    budget.take(depth, bounds)?;
    let value = match value {
        toml_edit::Value::String(text) => Value::String(text.value().clone()),
        toml_edit::Value::Integer(number) => Value::Number(number.value().to_string()),
        // The text rather than the value: no float is ever computed with.
        toml_edit::Value::Float(number) => {
            let text = number
                .as_repr()
                .and_then(|repr| repr.as_raw().as_str())
                .unwrap_or_default();
            Value::Number(number_text(text))
        }
        toml_edit::Value::Boolean(flag) => Value::Bool(*flag.value()),
        toml_edit::Value::Datetime(time) => Value::String(time.value().to_string()),
        toml_edit::Value::Array(items) => {
            let items = items
                .iter()
                .map(|item| self::value(item, bounds, depth + 1, budget));
            Value::List(items.collect::<Result<_, _>>()?)
        }
        toml_edit::Value::InlineTable(inner) => {
            return table(Some(inner), bounds, depth, budget);
        }
    };
    Ok(Node { bounds, value })
}

fn number_text(text: &str) -> String {
    text.trim().replace('_', "")
}
