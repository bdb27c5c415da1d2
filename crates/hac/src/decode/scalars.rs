//! Values without keys of their own: strings, numbers, quantities, words, lists, maps.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::{Context, Decode, Place, join, nearest_word};
use crate::model::{
    Accel, AcceleratorKind, AnomalyAction, ApiVersion, Attestation, CheckKind, Class, ConditionKind,
    Confinement, FailoverStrategy, Isolation, Kind, Level, Logging, LoggingTool, Monitoring, MonitoringTool,
    NetworkType, Provider, RestartPolicy, ScalingMetric, ScalingPreset, SecurityModule, UpdateStrategy,
    VerificationMode,
};
use crate::peer::Peer;
use crate::policy::{Ignored, Pattern, Severity};
use crate::tree::{Node, Value};
use crate::units::{Amount, BitRate, ByteRate, Bytes, Duration, MilliCpu};
use crate::words::{UnknownWord, Word};

impl Decode for bool {
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Bool(flag) => Some(*flag),
            _ => {
                context.expected(
                    node,
                    path,
                    "true or false",
                    Some("write true or false, without quotes".to_owned()),
                );
                None
            }
        }
    }
}

impl Decode for String {
    /// Takes numbers and truth values as they are written: `user = 1000` and `PORT: 8080` are what people write.
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        let text = match &node.value {
            Value::String(text) | Value::Number(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::List(_) | Value::Table(_) => {
                context.expected(node, path, "a string", None);
                return None;
            }
        };
        if text.contains('\0') {
            let message = format!("`{path}` contains a NUL character, which no program could be given");
            context.wrong(path, node.bounds, message, Some("remove the \\0".to_owned()));
            return None;
        }
        Some(text)
    }
}

/// Reads a whole number from `least` to `most`.
fn integer(node: &Node, path: &str, context: &mut Context<'_>, least: u64, most: u64) -> Option<u64> {
    let Value::Number(text) = &node.value else {
        let help = match &node.value {
            Value::String(text) if text.parse::<u64>().is_ok() => {
                Some(format!("write {text} without quotes"))
            }
            _ => None,
        };
        context.expected(node, path, "a whole number", help);
        return None;
    };
    let digits = text.strip_prefix('+').unwrap_or(text);
    match digits.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Some(number),
        _ => {
            let message =
                format!("`{path}` expects a whole number from {least} to {most}, and this is {text}");
            context.wrong(path, node.bounds, message, None);
            None
        }
    }
}

impl Decode for u16 {
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        // Every 16-bit number in a manifest is a port.
        integer(node, path, context, 1, u64::from(u16::MAX)).and_then(|number| number.try_into().ok())
    }
}

impl Decode for u32 {
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        integer(node, path, context, 0, u64::from(u32::MAX)).and_then(|number| number.try_into().ok())
    }
}

impl Decode for u64 {
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        // TOML's whole numbers end there.
        integer(node, path, context, 0, i64::MAX.unsigned_abs())
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        T::decode(node, path, context).map(Some)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            let help = match &node.value {
                Value::String(text) => Some(format!("write it as a list: [{text:?}]")),
                Value::Table(_) => {
                    Some(format!("write each as an item of its own: [[{path}]], or `- ` in YAML"))
                }
                _ => None,
            };
            context.expected(node, path, "a list", help);
            return None;
        };
        let mut values = Vec::with_capacity(items.len());
        let mut whole = true;
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            context.places.insert(path.clone(), Place { key: item.bounds, value: item.bounds });
            match T::decode(item, &path, context) {
                Some(value) => values.push(value),
                None => whole = false,
            }
        }
        whole.then_some(values)
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            context.expected(node, path, "a table of names and values", None);
            return None;
        };
        let mut values = BTreeMap::new();
        let mut whole = true;
        for entry in entries {
            let path = join(path, &entry.key);
            context.places.insert(path.clone(), Place { key: entry.key_bounds, value: entry.node.bounds });
            match T::decode(&entry.node, &path, context) {
                Some(value) => {
                    values.insert(entry.key.clone(), value);
                }
                None => whole = false,
            }
        }
        whole.then_some(values)
    }
}

/// Gives the text of a scalar that isn't a truth value.
fn text<'n>(node: &'n Node, path: &str, context: &mut Context<'_>, what: &str) -> Option<&'n str> {
    match &node.value {
        Value::String(text) | Value::Number(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Table(_) => {
            context.expected(node, path, what, None);
            None
        }
    }
}

macro_rules! quantity {
    ($($name:ident),+) => {
        $(impl Decode for $name {
            fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
                let text = text(node, path, context, Self::EXPECTED)?;
                match Self::from_str(text) {
                    Ok(value) => Some(value),
                    Err(error) => {
                        let help = format!("`{path}` expects {}", Self::EXPECTED);
                        context.wrong(path, node.bounds, error.to_string(), Some(help));
                        None
                    }
                }
            }
        })+
    };
}

quantity!(Amount, BitRate, ByteRate, Bytes, Duration, MilliCpu, Peer);

/// Reports a word that isn't known.
fn unknown_word(node: &Node, path: &str, context: &mut Context<'_>, error: &UnknownWord) {
    let message = format!("`{path}` can't be {:?}", error.found);
    let known = error.known.join(", ");
    let help = match nearest_word(&error.found, error.known.iter().copied()) {
        Some(similar) => format!("did you mean {similar:?}? Known are {known}"),
        None => format!("known are {known}"),
    };
    context.wrong(path, node.bounds, message, Some(help));
}

/// Reads a word, or several of them with slashes between.
fn word<T: FromStr<Err = UnknownWord>>(node: &Node, path: &str, context: &mut Context<'_>) -> Option<T> {
    match T::from_str(text(node, path, context, "a word")?) {
        Ok(word) => Some(word),
        Err(error) => {
            unknown_word(node, path, context, &error);
            None
        }
    }
}

macro_rules! word {
    ($($name:ident),+) => {
        $(impl Decode for $name {
            fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
                word(node, path, context)
            }
        })+
    };
}

word!(
    Accel,
    AcceleratorKind,
    AnomalyAction,
    Attestation,
    CheckKind,
    Class,
    ConditionKind,
    FailoverStrategy,
    Isolation,
    Level,
    LoggingTool,
    MonitoringTool,
    NetworkType,
    Provider,
    RestartPolicy,
    ScalingMetric,
    ScalingPreset,
    SecurityModule,
    Severity,
    UpdateStrategy,
    VerificationMode
);

/// Reads what a type of the policy reads from a string.
macro_rules! string {
    ($($name:ident: $what:literal),+) => {
        $(impl Decode for $name {
            fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
                match Self::from_str(text(node, path, context, $what)?) {
                    Ok(value) => Some(value),
                    Err(error) => {
                        let message = format!("`{path}`: {error}");
                        context.wrong(path, node.bounds, message, Some(error.help()));
                        None
                    }
                }
            }
        })+
    };
}

string!(Ignored: "an advisory and a reason", Pattern: "the start of an image's name");

impl Decode for ApiVersion {
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        let given = text(node, path, context, "a version")?;
        let version = Self::from_str(given).ok();
        if version.is_none() {
            let known = Self::spellings().join(", ");
            let message = format!("version {given:?} of the manifest isn't known to this program");
            let help = format!("known are {known}; a newer program may know more");
            context.wrong(path, node.bounds, message, Some(help));
        }
        version
    }
}

impl Decode for Kind {
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        word(node, path, context)
    }
}

impl<T: Word + Decode> Decode for BTreeSet<T> {
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
        Some(Vec::<T>::decode(node, path, context)?.into_iter().collect())
    }
}

/// Reads `"A/B"` or `["A", "B"]`.
macro_rules! slashed {
    ($($name:ident: $make:expr),+ $(,)?) => {
        $(impl Decode for $name {
            fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
                match &node.value {
                    Value::List(_) => Vec::decode(node, path, context).map($make),
                    _ => word(node, path, context),
                }
            }
        })+
    };
}

slashed! {
    Monitoring: |tools: Vec<MonitoringTool>| Self(tools.into_iter().collect()),
    Logging: |tools: Vec<LoggingTool>| Self(tools.into_iter().collect()),
    Confinement: |modules: Vec<SecurityModule>| Self::new(modules),
}
