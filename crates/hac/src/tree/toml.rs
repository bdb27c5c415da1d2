//! TOML into the tree.

use toml_edit::{Document, Item, TableLike};

use super::{Bounds, Budget, Entry, Format, Node, SyntaxError, Value};

impl From<Option<std::ops::Range<usize>>> for Bounds {
    fn from(range: Option<std::ops::Range<usize>>) -> Self {
        range.map_or_else(Self::default, |range| Self { start: range.start, end: range.end })
    }
}

/// Reads a TOML document.
pub(super) fn read(source: &str) -> Result<Node, SyntaxError> {
    let document = Document::parse(source).map_err(|error| {
        let bounds = Bounds::from(error.span());
        if error.message().contains("recurs") {
            return SyntaxError::too_deep(bounds);
        }
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        let syntax = SyntaxError::new(format!("this isn't TOML: {message}"), bounds);
        if Format::from_content(source) == Format::Yaml {
            return syntax.help("it looks like YAML: name the file .yaml, or write `key = value`");
        }
        syntax
    })?;
    let mut reader = Reader { source, budget: Budget::new() };
    reader.table(document.as_item().as_table_like(), Bounds::default(), 0)
}

struct Reader<'a> {
    source: &'a str,
    budget: Budget,
}

impl Reader<'_> {
    fn table(
        &mut self,
        table: Option<&dyn TableLike>,
        bounds: Bounds,
        depth: usize,
    ) -> Result<Node, SyntaxError> {
        self.budget.take(depth, bounds)?;
        let mut entries = Vec::new();
        if let Some(table) = table {
            for (name, item) in table.iter() {
                let key_bounds = table.key(name).map_or(bounds, |key| Bounds::from(key.span()));
                let node = self.item(item, key_bounds, depth + 1)?;
                entries.push(Entry { key: name.to_owned(), key_bounds, node });
            }
        }
        Ok(Node { bounds, value: Value::Table(entries) })
    }

    /// Converts an item; `fallback` is the place of what has none of its own (a table that only dotted keys make).
    fn item(&mut self, item: &Item, fallback: Bounds, depth: usize) -> Result<Node, SyntaxError> {
        let bounds = item.span().map_or(fallback, |range| Bounds::from(Some(range)));
        match item {
            Item::None => Ok(Node { bounds, value: Value::Null }),
            Item::Value(inner) => self.value(inner, bounds, depth),
            Item::Table(_) => self.table(item.as_table_like(), bounds, depth),
            Item::ArrayOfTables(tables) => {
                self.budget.take(depth, bounds)?;
                let mut items = Vec::new();
                for inner in tables {
                    let at = inner.span().map_or(bounds, |range| Bounds::from(Some(range)));
                    items.push(self.table(Some(inner), at, depth + 1)?);
                }
                Ok(Node { bounds, value: Value::List(items) })
            }
        }
    }

    fn value(
        &mut self,
        value: &toml_edit::Value,
        fallback: Bounds,
        depth: usize,
    ) -> Result<Node, SyntaxError> {
        let bounds = value.span().map_or(fallback, |range| Bounds::from(Some(range)));
        self.budget.take(depth, bounds)?;
        let value = match value {
            toml_edit::Value::String(text) => Value::String(text.value().clone()),
            toml_edit::Value::Integer(number) => Value::Number(number.value().to_string()),
            // The text rather than the value: no float is ever computed with.
            toml_edit::Value::Float(_) => {
                let text = self.source.get(bounds.start..bounds.end).unwrap_or_default();
                Value::Number(text.trim().replace('_', ""))
            }
            toml_edit::Value::Boolean(flag) => Value::Bool(*flag.value()),
            toml_edit::Value::Datetime(time) => Value::String(time.value().to_string()),
            toml_edit::Value::Array(items) => {
                let items = items.iter().map(|item| self.value(item, bounds, depth + 1));
                Value::List(items.collect::<Result<_, _>>()?)
            }
            toml_edit::Value::InlineTable(inner) => return self.table(Some(inner), bounds, depth),
        };
        Ok(Node { bounds, value })
    }
}
