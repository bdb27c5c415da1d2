//! Closed vocabularies: each is an enum whose variants have one canonical spelling and perhaps other accepted ones.

/// A closed vocabulary of the manifest.
pub trait Word: Copy + Ord + std::fmt::Display + std::str::FromStr<Err = UnknownWord> + 'static {
    /// Every word, in the order in which the reference lists them.
    const ALL: &'static [Self];

    /// Gives the canonical spelling.
    fn as_str(self) -> &'static str;

    /// Gives every canonical spelling, in the order of [`Word::ALL`].
    fn spellings() -> Vec<&'static str> {
        Self::ALL.iter().map(|word| word.as_str()).collect()
    }
}

/// A word that isn't in the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is none of {}", known.join(", "))]
pub struct UnknownWord {
    /// What was given.
    pub found: String,
    /// What would have been accepted, in canonical spelling.
    pub known: Vec<&'static str>,
}

/// Defines a [`Word`]: the enum, its spellings (ASCII case doesn't matter on input), its JSON Schema.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $spelling:literal $(| $alias:literal)*,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $crate::words::Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $spelling,)+
                }
            }
        }

        impl $name {
            /// Gives the canonical spelling.
            pub fn as_str(self) -> &'static str {
                $crate::words::Word::as_str(self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::words::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $(if [$spelling $(, $alias)*].iter().any(|known| known.eq_ignore_ascii_case(text)) {
                    return Ok(Self::$variant);
                })+
                Err($crate::words::UnknownWord {
                    found: text.to_owned(),
                    known: <Self as $crate::words::Word>::spellings(),
                })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                // Every accepted spelling, so that an editor doesn't underline what the parser reads.
                schemars::json_schema!({ "type": "string", "enum": [$($spelling $(, $alias)*),+] })
            }
        }
    };
}

pub(crate) use words;
