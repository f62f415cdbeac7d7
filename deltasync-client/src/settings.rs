//! One call out of three places: the command line outweighs the environment, and that the config file.
//!
//! What an option is called, what it takes and what it cannot stand beside is said once, by the definition of the command
//! line, and read from there. A setting becomes what it would be on the command line: switches and lists stand as arguments
//! before those that were given, other values become the default. It is left out where something that outweighs it says the
//! same option, or one that it cannot stand beside; lists add up. So that a switch of the file can be undone,
//! each takes a value too: `--delete=false`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::config_file::{ConfigEntry, ConfigFile, ConfigValue, InvalidFile};
use crate::run::{say, say_hint};
use crate::{Args, ExitStatus, Shown};

/// Which settings count, for all verbs.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct SettingsArgs {
    /// Read this config file instead of the one of the user
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read no config file
    #[arg(long, global = true, conflicts_with = "config")]
    no_config: bool,
}

/// Those two, which no file may set.
const OF_FILE: [&str; 2] = ["config", "no-config"];
/// What makes an option's name that of its variable.
const PREFIX: &str = "DELTASYNC_";
/// Verbs that must work whatever the settings are: a shell calls them when it starts.
const UNSET: [&str; 2] = ["completions", "man"];

/// Why a call cannot be carried out, or that help was asked for.
#[derive(Debug)]
#[non_exhaustive]
pub enum InvalidCall {
    /// The command line, or help.
    Line(clap::Error),
    /// A setting of the environment or a config file, or the file as a whole.
    Setting {
        /// Where it stands, safe to print.
        at: String,
        /// What is wrong with it, safe to print.
        what: String,
        /// What to do next.
        hint: String,
    },
}

impl InvalidCall {
    /// Prints it: help on the standard output, all else on the standard error.
    pub fn report(self) -> ExitStatus {
        match self {
            Self::Line(error) if error.use_stderr() => {
                let text = error.render().to_string();
                // Without any argument it is the help.
                let text =
                    text.strip_prefix("error: ").map_or_else(|| text.clone(), |text| format!("deltasync: {text}"));
                // Where the standard error is gone, the exit status has to do.
                let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
                ExitStatus::Usage
            }
            Self::Line(help) => {
                let _ = help.print();
                ExitStatus::Done
            }
            Self::Setting { at, what, hint } => {
                say(&format!("{at}: {what}"));
                say_hint(&hint);
                ExitStatus::Usage
            }
        }
    }
}

impl Args {
    /// The call of this process: its command line, its environment and the config file.
    ///
    /// # Errors
    ///
    /// [`InvalidCall`], also where help was asked for.
    pub fn of_process() -> Result<Self, InvalidCall> {
        Self::gather(std::env::args_os().collect(), |name| std::env::var_os(name))
    }

    fn gather(line: Vec<OsString>, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, InvalidCall> {
        let plain = || Self::command().try_get_matches_from(&line).map_err(InvalidCall::Line);
        let command = with_values_for_switches(Self::command());
        // What is wrong with it is told when it is read with the settings; help is as the definition has it.
        let Ok(matches) = command.clone().ignore_errors(true).try_get_matches_from(&line) else {
            return made_of(plain()?);
        };
        let Some((verb, given)) = matches.subcommand().filter(|(verb, _)| !UNSET.contains(verb)) else {
            return made_of(plain()?);
        };
        let definition = Definition { command: &command, verb };
        let mut taken = Taken::of_line(given, &definition);
        let mut settings = taken.add(definition.of_environment(&variable)?, &definition)?;
        if let Some(file) = file(given, &settings, &variable)? {
            let (top, of_verb) = definition.of_file(&file)?;
            settings.extend(taken.add(of_verb, &definition)?);
            settings.extend(taken.add(top, &definition)?);
        }
        // Of lists, what counts more stands behind.
        settings.reverse();
        definition.carry_out(line.clone(), settings)
    }
}

fn made_of(matches: ArgMatches) -> Result<Args, InvalidCall> {
    Args::from_arg_matches(&matches).map_err(|error| InvalidCall::Line(error.format(&mut Args::command())))
}

/// Where something is set.
#[derive(Clone, Debug)]
enum Origin {
    Variable(String),
    File { path: PathBuf, line: usize, key: String },
}

impl Origin {
    fn refuse(&self, what: impl Into<String>, verb: &str) -> InvalidCall {
        let (at, way_out) = match self {
            Self::Variable(name) => (name.clone(), format!("unset {name} goes without it")),
            Self::File { path, line, key } => {
                (format!("{}:{line}: {key}", Shown::path(path)), "--no-config goes without the file".to_owned())
            }
        };
        let hint = format!("`deltasync {verb} --help` tells what there is to set; {way_out}");
        InvalidCall::Setting { at, what: Shown(what.into().as_bytes()).to_string(), hint }
    }
}

/// An option that is set outside of the command line.
#[derive(Clone, Debug)]
struct Setting {
    arg: Arg,
    value: Value,
    origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Switch(bool),
    One(OsString),
    Many(Vec<OsString>),
}

/// What the definition of the command line says of one verb.
struct Definition<'a> {
    command: &'a Command,
    verb: &'a str,
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set) && arg.is_require_equals_set()
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Lets each switch be written with a value, `true` or `false`, in all verbs.
fn with_values_for_switches(command: Command) -> Command {
    let switch = |arg: Arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_parser(ValueParser::bool())
            .default_value("false")
            .default_missing_value("true"),
        _ => arg,
    };
    command.mut_args(switch).mut_subcommands(with_values_for_switches)
}

impl<'a> Definition<'a> {
    fn of(&self, verb: &str) -> Option<&'a Command> {
        self.command.find_subcommand(verb)
    }

    /// The options of a verb that can be set, by their names.
    fn options(&self, verb: &str) -> impl Iterator<Item = (&'a str, &'a Arg)> {
        let verb = self.of(verb).into_iter().flat_map(Command::get_arguments);
        let options = verb.chain(self.command.get_arguments()).filter(|arg| !arg.is_hide_set());
        options.filter_map(|arg| Some((arg.get_long()?, arg)))
    }

    fn option(&self, verb: &str, name: &str) -> Option<&'a Arg> {
        let mut options = self.options(verb).filter(|(name, _)| !OF_FILE.contains(name));
        options.find(|(other, _)| *other == name).map(|(_, arg)| arg)
    }

    fn verbs(&self) -> impl Iterator<Item = &'a str> {
        self.command.get_subcommands().map(Command::get_name).filter(|verb| !UNSET.contains(verb))
    }

    /// What the environment sets for this verb. An empty variable sets nothing.
    fn of_environment(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<Setting>, InvalidCall> {
        let mut settings = Vec::new();
        for (name, arg) in self.options(self.verb) {
            let name = PREFIX.to_owned() + &name.to_uppercase().replace('-', "_");
            let Some(text) = variable(&name).filter(|text| !text.is_empty()) else { continue };
            let origin = Origin::Variable(name);
            let value = match text.to_str() {
                Some("1" | "true" | "yes" | "on") if is_switch(arg) => Value::Switch(true),
                Some("0" | "false" | "no" | "off") if is_switch(arg) => Value::Switch(false),
                _ if is_switch(arg) => return Err(origin.refuse("expected true or false", self.verb)),
                // A line each, since no pattern has line ends.
                Some(lines) if is_list(arg) => Value::Many(lines.lines().map(OsString::from).collect()),
                _ => Value::One(text),
            };
            settings.push(self.checked(arg, value, origin)?);
        }
        Ok(settings)
    }

    /// What the file sets for this verb, at its top and in the verb's table; all its keys are looked at.
    fn of_file(&self, file: &ConfigFile) -> Result<(Vec<Setting>, Vec<Setting>), InvalidCall> {
        let (mut top, mut of_verb) = (Vec::new(), Vec::new());
        for entry in &file.entries {
            let ConfigEntry { table, key, value, line } = entry;
            let named = match (table, key.as_str()) {
                (Some(table), "") => format!("[{table}]"),
                (Some(table), key) => format!("[{table}] {key}"),
                (None, key) => key.to_owned(),
            };
            let origin = Origin::File { path: file.path.clone(), line: *line, key: named };
            if let Some(table) = table
                && !self.verbs().any(|verb| verb == table)
            {
                let all: Vec<_> = self.verbs().collect();
                return Err(
                    origin.refuse(format!("no verb is called so; a table is one of {}", all.join(", ")), self.verb)
                );
            }
            if key.is_empty() && table.is_some() {
                continue;
            }
            let known = |verb: &str| self.option(verb, key).map(|arg| typed(arg, value));
            let found = match table {
                Some(table) => known(table),
                None => known(self.verb).or_else(|| self.verbs().find_map(known)),
            };
            let Some(found) = found else { return Err(origin.refuse(self.unknown(table.as_deref(), key), self.verb)) };
            let value = found.map_err(|what| origin.refuse(what, self.verb))?;
            let Some(arg) =
                self.option(self.verb, key).filter(|_| table.as_deref().is_none_or(|table| table == self.verb))
            else {
                continue;
            };
            let settings = if table.is_some() { &mut of_verb } else { &mut top };
            settings.push(self.checked(arg, value, origin)?);
        }
        Ok((top, of_verb))
    }

    /// What is said of a key that names no option.
    fn unknown(&self, table: Option<&str>, key: &str) -> String {
        if OF_FILE.contains(&key) {
            return "can be set by the command line and the environment only".to_owned();
        }
        let alike = |verb: &str| {
            let tried = self.command.clone().try_get_matches_from(["deltasync", verb, &format!("--{key}")]);
            match tried.err()?.get(ContextKind::SuggestedArg)? {
                ContextValue::String(option) => Some(option.trim_start_matches('-').to_owned()),
                _ => None,
            }
        };
        let alike = match table {
            Some(verb) => alike(verb),
            None => alike(self.verb).or_else(|| self.verbs().find_map(alike)),
        };
        let of = table.map_or_else(|| "of any verb".to_owned(), |verb| format!("of `{verb}`"));
        match alike {
            Some(alike) => format!("no option {of} is called so; did you mean {alike}?"),
            None => format!("no option {of} is called so"),
        }
    }

    /// The setting, if the definition takes its value.
    fn checked(&self, arg: &Arg, value: Value, origin: Origin) -> Result<Setting, InvalidCall> {
        let setting = Setting { arg: arg.clone(), value, origin };
        let line = ["deltasync".into(), self.verb.into()].into_iter().chain(setting.arguments());
        match self.command.clone().try_get_matches_from(line) {
            // Values are looked at first; that something else is missing says nothing of them.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) => {
                let text = error.render().to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                let lines = text.split("\n\n").next().unwrap_or_default().lines();
                let text: Vec<_> = lines.map(str::trim).collect();
                Err(setting.origin.refuse(text.join(" "), self.verb))
            }
            _ => Ok(setting),
        }
    }

    /// Reads the command line with the settings put in.
    fn carry_out(&self, mut line: Vec<OsString>, settings: Vec<Setting>) -> Result<Args, InvalidCall> {
        let mut command = self.command.clone();
        let mut first = Vec::new();
        // What is off is so anyway; it has kept what it outweighs from counting.
        for setting in settings.into_iter().filter(|setting| !setting.is_off()) {
            let Value::One(value) = &setting.value else {
                first.extend(setting.arguments());
                continue;
            };
            let (id, value) = (setting.arg.get_id().clone(), clap::builder::OsStr::from(value));
            let set = |arg: Arg| arg.default_value(value);
            let is_global = self.command.get_arguments().any(|arg| *arg.get_id() == id);
            command = match is_global {
                true => command.mut_arg(id, set),
                false => command.mut_subcommand(self.verb, |verb| verb.mut_arg(id, set)),
            };
        }
        let at = self.verb_at(&line) + 1;
        let given = line.clone();
        line.splice(at..at, first);
        let matches = command.clone().try_get_matches_from(line).map_err(|error| {
            // What is wrong without settings too is told in the words of the definition.
            let plain = Args::command().try_get_matches_from(given).err();
            InvalidCall::Line(plain.filter(|plain| plain.kind() == error.kind()).unwrap_or(error))
        })?;
        Args::from_arg_matches(&matches).map_err(|error| InvalidCall::Line(error.format(&mut command)))
    }

    /// Where the verb stands in a line that has it: behind options, and values of options, that are for all verbs.
    fn verb_at(&self, line: &[OsString]) -> usize {
        let takes_next = |text: &OsStr| {
            let name = text.to_str().and_then(|text| text.strip_prefix("--"));
            let arg = self.command.get_arguments().find(|arg| arg.get_long().is_some() && arg.get_long() == name);
            arg.is_some_and(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set())
        };
        let mut at = 1;
        while let Some(text) = line.get(at).filter(|text| text.as_encoded_bytes().starts_with(b"-")) {
            at += 1 + usize::from(takes_next(text));
        }
        at.min(line.len().saturating_sub(1))
    }
}

/// The value as the option takes it, or what is wrong with its type.
fn typed(arg: &Arg, value: &ConfigValue) -> Result<Value, String> {
    match value {
        ConfigValue::Switch(on) if is_switch(arg) => Ok(Value::Switch(*on)),
        ConfigValue::Text(text) if is_list(arg) => Ok(Value::Many(vec![text.into()])),
        ConfigValue::List(all) if is_list(arg) => Ok(Value::Many(all.iter().map(OsString::from).collect())),
        ConfigValue::Text(text) if !is_switch(arg) => Ok(Value::One(text.into())),
        other => {
            let expected = match arg {
                arg if is_switch(arg) => "true or false",
                arg if is_list(arg) => "a string or a list of strings",
                _ => "a string or a number",
            };
            Err(format!("expected {expected}, not {}", other.name()))
        }
    }
}

impl Setting {
    /// As it is written on a command line.
    fn arguments(&self) -> Vec<OsString> {
        let written = |value: &OsStr| {
            let mut text = OsString::from(format!("--{}=", self.arg.get_long().unwrap_or_default()));
            text.push(value);
            text
        };
        match &self.value {
            Value::Switch(on) => vec![written(OsStr::new(if *on { "true" } else { "false" }))],
            Value::One(value) => vec![written(value)],
            Value::Many(values) => values.iter().map(|value| written(value)).collect(),
        }
    }

    fn is_off(&self) -> bool {
        self.value == Value::Switch(false)
    }
}

/// What is said already by something that outweighs what is yet to come.
struct Taken(Vec<(Arg, bool)>);

impl Taken {
    /// What the command line says.
    fn of_line(given: &ArgMatches, definition: &Definition<'_>) -> Self {
        let is_given = |arg: &Arg| {
            let id = arg.get_id().as_str();
            given.try_contains_id(id).is_ok() && given.value_source(id) == Some(ValueSource::CommandLine)
        };
        let is_off = |arg: &Arg| matches!(given.try_get_one::<bool>(arg.get_id().as_str()), Ok(Some(false)));
        let options = definition.options(definition.verb).map(|(_, arg)| arg).filter(|arg| is_given(arg));
        Self(options.map(|arg| (arg.clone(), is_off(arg))).collect())
    }

    /// Takes in settings of equal weight, and returns those that count.
    fn add(&mut self, settings: Vec<Setting>, definition: &Definition<'_>) -> Result<Vec<Setting>, InvalidCall> {
        let Some(verb) = definition.of(definition.verb) else { return Ok(Vec::new()) };
        let names = |one: &Arg, other: &Arg| {
            let command = if verb.get_arguments().any(|arg| arg == one) { verb } else { definition.command };
            command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
        };
        let excludes = |one: &Arg, other: &Arg| names(one, other) || names(other, one);
        let outweighed = |setting: &Setting| {
            self.0.iter().any(|(arg, is_off)| {
                let same = arg.get_id() == setting.arg.get_id() && !is_list(arg);
                same || (!is_off && !setting.is_off() && excludes(arg, &setting.arg))
            })
        };
        let mut counting: Vec<Setting> = settings.into_iter().filter(|setting| !outweighed(setting)).collect();
        for (i, setting) in counting.iter().enumerate().filter(|(_, setting)| !setting.is_off()) {
            let before = counting[..i].iter().filter(|other| !other.is_off());
            if let Some(other) = before.into_iter().find(|other| excludes(&other.arg, &setting.arg)) {
                let name = other.arg.get_long().unwrap_or_default();
                return Err(setting.origin.refuse(format!("cannot stand beside {name}"), definition.verb));
            }
        }
        self.0.extend(counting.iter().map(|setting| (setting.arg.clone(), setting.is_off())));
        // The caller turns the order of all of them round.
        counting.reverse();
        Ok(counting)
    }
}

/// The file that counts, if there is one.
fn file(
    given: &ArgMatches,
    settings: &[Setting],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<ConfigFile>, InvalidCall> {
    let [config, no_config] = OF_FILE;
    let set = |name: &str| settings.iter().find(|setting| setting.arg.get_long() == Some(name));
    let is_on = |setting: &Setting| setting.value == Value::Switch(true);
    if matches!(given.try_get_one::<bool>("no_config"), Ok(Some(true))) || set(no_config).is_some_and(is_on) {
        return Ok(None);
    }
    let mut named = given.try_get_one::<PathBuf>("config").ok().flatten().cloned();
    if let Some(Setting { value: Value::One(path), .. }) = set(config) {
        named = Some(path.into());
    }
    let path = match named {
        Some(path) => path,
        None => match ConfigFile::places(variable).into_iter().find(|path| path.exists()) {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    let shown = Shown::path(&path).to_string();
    ConfigFile::read(&path).map(Some).map_err(|error| match error {
        InvalidFile::Read(error) => InvalidCall::Setting {
            at: shown,
            what: format!("cannot read the config file: {error}"),
            hint: "--config names another one, --no-config goes without".to_owned(),
        },
        InvalidFile::Toml { line, message } => InvalidCall::Setting {
            at: format!("{shown}:{line}"),
            what: message,
            hint: "a config file is TOML, such as `retries = 10`; --no-config goes without".to_owned(),
        },
    })
}
