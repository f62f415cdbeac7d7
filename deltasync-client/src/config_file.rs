//! The config file: where it is, and what is written in it.
//!
//! It is TOML. What stands at the top is meant for all verbs, what stands in a table for the verb of that name. Which keys
//! there are is not known here; each comes with its line, so that whoever knows can say what is wrong with it. A file in
//! the working directory is never looked for: whoever unpacks an archive there must not decide what is deleted.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use toml::de::{DeTable, DeValue};

use crate::base;

/// What a config file says, in its order.
#[derive(Debug, Default)]
pub(crate) struct ConfigFile {
    /// Its path, as it is told to people.
    pub(crate) path: PathBuf,
    pub(crate) entries: Vec<ConfigEntry>,
}

/// One key of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigEntry {
    /// The table it stands in, `None` at the top.
    pub(crate) table: Option<String>,
    pub(crate) key: String,
    pub(crate) value: ConfigValue,
    /// Where it stands, from 1.
    pub(crate) line: usize,
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConfigValue {
    Switch(bool),
    /// A string, or a number as text.
    Text(String),
    List(Vec<String>),
    /// Something that no option takes, by its name.
    Other(&'static str),
}

impl ConfigValue {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Switch(_) => "true or false",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Other(name) => name,
        }
    }
}

/// Why a config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidFile {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is not TOML.
    #[error("{message}")]
    Toml {
        /// Where, from 1.
        line: usize,
        message: String,
    },
}

impl ConfigFile {
    /// Where it is looked for unless its place is named: the first of these that is there counts.
    pub(crate) fn places(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
        let home = base::named(&variable, "HOME").filter(|_| cfg!(target_os = "macos"));
        let support = home.map(|home| home.join("Library/Application Support"));
        base::config(&variable).into_iter().chain(support).map(|dir| dir.join("deltasync/config.toml")).collect()
    }

    /// Reads it.
    pub(crate) fn read(path: &Path) -> Result<Self, InvalidFile> {
        Self::parse(path, &fs::read_to_string(path)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, InvalidFile> {
        let line = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        let tables = DeTable::parse(text).map_err(|error| InvalidFile::Toml {
            line: line(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let mut entries: Vec<(usize, ConfigEntry)> = Vec::new();
        let mut add = |at: usize, table: Option<&str>, key: &str, value: &DeValue<'_>| {
            let (table, key) = (table.map(str::to_owned), key.to_owned());
            entries.push((at, ConfigEntry { table, key, value: value_of(value), line: line(at) }));
        };
        for (key, value) in tables.get_ref() {
            match value.get_ref() {
                DeValue::Table(table) => {
                    // An empty table counts too, since its name may be wrong.
                    if table.is_empty() {
                        add(key.span().start, Some(key.get_ref()), "", value.get_ref());
                    }
                    for (inner, value) in table {
                        add(inner.span().start, Some(key.get_ref()), inner.get_ref(), value.get_ref());
                    }
                }
                single => add(key.span().start, None, key.get_ref(), single),
            }
        }
        entries.sort_by_key(|(at, _)| *at);
        Ok(Self { path: path.to_owned(), entries: entries.into_iter().map(|(_, entry)| entry).collect() })
    }
}

fn value_of(value: &DeValue<'_>) -> ConfigValue {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let written = number.as_str();
            Some(i64::from_str_radix(written, number.radix()).map_or_else(|_| written.to_owned(), |n| n.to_string()))
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    };
    match value {
        DeValue::Boolean(on) => ConfigValue::Switch(*on),
        DeValue::Array(all) => {
            let all: Option<Vec<_>> = all.iter().map(|one| text(one.get_ref())).collect();
            all.map_or(ConfigValue::Other("a list of something else than strings"), ConfigValue::List)
        }
        DeValue::Table(_) => ConfigValue::Other("a table"),
        DeValue::Datetime(_) => ConfigValue::Other("a date"),
        single => ConfigValue::Text(text(single).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, InvalidFile> {
        ConfigFile::parse(Path::new("c"), text)
    }

    #[test]
    fn keys_come_in_order_with_their_lines() {
        let text =
            "retries = 0x10\n# no key\nquiet = true\n\n[push]\nexclude = ['*.o', \"/x\"]\nbwlimit = 1.5\n[empty]\n";
        let entries = parse(text).expect("TOML").entries;
        let entry = |table: Option<&str>, key: &str, value, line| ConfigEntry {
            table: table.map(str::to_owned),
            key: key.to_owned(),
            value,
            line,
        };
        let list = ConfigValue::List(vec!["*.o".into(), "/x".into()]);
        assert_eq!(
            entries,
            [
                entry(None, "retries", ConfigValue::Text("16".into()), 1),
                entry(None, "quiet", ConfigValue::Switch(true), 3),
                entry(Some("push"), "exclude", list, 6),
                entry(Some("push"), "bwlimit", ConfigValue::Text("1.5".into()), 7),
                entry(Some("empty"), "", ConfigValue::Other("a table"), 8),
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        for (text, at) in [("a = 1\nb = \n", 2), ("\n\na = 1\na = 2\n", 4), ("[push\n", 1)] {
            let Err(InvalidFile::Toml { line, message }) = parse(text) else { panic!("{text:?}") };
            assert_eq!(line, at, "{text:?}: {message}");
            assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
        }
        assert!(parse("").expect("nothing is said").entries.is_empty());
    }

    #[test]
    fn the_place_is_that_of_the_platform() {
        let places = |variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| OsString::from(value))
            };
            ConfigFile::places(variable).into_iter().next()
        };
        let home = ("HOME", "/home/u");
        let of_home = Some(PathBuf::from("/home/u/.config/deltasync/config.toml"));
        assert_eq!(places(&[("XDG_CONFIG_HOME", "/xdg"), home]), Some("/xdg/deltasync/config.toml".into()));
        assert_eq!(places(&[home]), of_home);
        assert_eq!(places(&[("XDG_CONFIG_HOME", "xdg"), home]), of_home, "relative");
        assert_eq!(places(&[("XDG_CONFIG_HOME", ""), home]), of_home, "empty");
        assert_eq!(places(&[]), None);
    }
}
