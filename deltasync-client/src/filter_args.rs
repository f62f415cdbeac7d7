//! The options that say what of a directory takes part: their order on the command line is their meaning, so they are
//! read together.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use deltasync_proto::Filter;

/// `--exclude`, `--include` and `--ignore-files`.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilterArgs {
    pub(crate) filter: Filter,
}

const EXCLUDE: &str = "exclude";
const INCLUDE: &str = "include";
const IGNORE_FILES: &str = "ignore-files";

impl clap::Args for FilterArgs {
    fn augment_args(command: Command) -> Command {
        let pattern = |id: &'static str| Arg::new(id).long(id).value_name("PATTERN").action(ArgAction::Append);
        // Also where it stands, each pattern is looked at by itself, so that a setting that means nothing can be named.
        let meaningful = |text: &str| match Filter::default().exclude(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(format!("it cannot be used: {error}")),
        };
        let pattern = |id| pattern(id).value_parser(meaningful);
        let exclude = pattern(EXCLUDE).help("Leave out what PATTERN matches, a line of a .gitignore, at both ends");
        let include = pattern(INCLUDE)
            .help("Take what PATTERN matches, where an earlier --exclude or an ignore file leaves it out");
        let ignore_files = Arg::new(IGNORE_FILES).long(IGNORE_FILES).action(ArgAction::SetTrue);
        let ignore_files = ignore_files.help("Leave out what .gitignore and .deltasyncignore files in the tree say");
        command.arg(exclude).arg(include).arg(ignore_files)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FilterArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |id: &'static str| {
            let values = matches.get_many::<String>(id).into_iter().flatten();
            matches.indices_of(id).into_iter().flatten().zip(values).map(move |(at, pattern)| (at, id, pattern))
        };
        let mut patterns: Vec<_> = given(EXCLUDE).chain(given(INCLUDE)).collect();
        patterns.sort_unstable();
        let mut filter = Filter::default().ignore_files(matches.get_flag(IGNORE_FILES));
        for (_, id, pattern) in patterns {
            let more = if id == EXCLUDE { filter.exclude(pattern) } else { filter.include(pattern) };
            let invalid = |error| {
                clap::Error::raw(ErrorKind::ValueValidation, format!("--{id} {pattern:?} cannot be used: {error}"))
            };
            filter = more.map_err(invalid)?;
        }
        Ok(Self { filter })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
