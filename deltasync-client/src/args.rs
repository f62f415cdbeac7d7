//! The command line: its verbs, their options and the help that documents statuses and the JSON summary.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};
use deltasync_core::{Algorithm, ByteLen, Digest};
use deltasync_io::{Bandwidth, KeepForm};
use deltasync_proto::{Condition, Config, Extra, Scope, TreeOptions};

use crate::completions::{CompletionsArgs, ManArgs};
use crate::demo::DemoArgs;
use crate::explain::ExplainArgs;
use crate::filter_args::FilterArgs;
use crate::settings::SettingsArgs;
use crate::{Options, Place, Retries, State, WatchOptions};

/// Bring a file or directory up to date with another one by moving only what differs, and prove the result.
#[derive(Clone, Debug, Parser)]
#[command(name = "deltasync", version, after_help = NOTES, max_term_width = 110)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) verb: ArgsVerb,
    #[command(flatten)]
    settings: SettingsArgs,
}

const NOTES: &str = "\
Places:
  deltasync://HOST[:PORT]/PATH   at a server; port 7440 unless given, IPv6 in brackets, PATH percent-encoded
  anything else                  a path on this machine; no server is needed for it
  A DST that ends in `/` or is a directory takes a file by its name. Several SRC need such a DST.

Directories:
  push DIR DST   makes DST the tree that DIR is, so that the same call again does the same
  push DIR DST/  takes DIR into DST by its name, as several SRC do
  push DIR/ DST  means what is in DIR: it makes DST, with or without `/`, the tree that DIR is
  A pull goes likewise; a URL that ends in `/` is a directory. Names, permissions, times and symbolic links (as links) are
  kept, owners and the bits set-user-id, set-group-id and sticky are not. What only DST has stays, unless --delete is
  given. Devices, sockets and pipes, and what cannot be read, are left out and named: status 1. Nothing is deleted while
  something cannot be read.

What takes part of a directory:
  A PATTERN of --exclude or --include is what a line of a .gitignore at the top of DIR would be: *.o anywhere, /build at the
  top, cache/ only a directory. Of all that match, the last one on the command line counts. What is excluded, with all that
  is in it, is neither sent, nor replaced or deleted at DST; a directory that holds some of it stays.
  With --ignore-files the .gitignore and .deltasyncignore files in the tree count too, behind all PATTERN. Each end goes by
  those that it has: what only those at DST exclude is not deleted there, but comes when SRC sends it, each time anew.

Dry runs:
  --dry-run (-n) prints a line for each path that would change, + new, ~ changed, - deleted, with the reason, and ! for what
  would be refused; then what it would move: for a push about so much, for a pull at most about so much. Nothing is changed
  at either end, and nothing remembered. What is left out is named, with status 0; status 4 when what is there is not what
  --if-match names.

Settings:
  Each option may also stand in a config file, as NAME = VALUE, true for one without a value: at the top for all verbs, in a
  table such as [push] for one. It is $XDG_CONFIG_HOME/deltasync/config.toml, else ~/.config/deltasync/config.toml; none in
  the working directory is read. DELTASYNC_NAME in the environment outweighs it, such as DELTASYNC_BWLIMIT=1M, and the
  command line outweighs both; --NAME=false undoes what they switch on. Lists add up.

Exit status:
    0  done
    1  a transfer failed, or a file cannot be read or written
    2  the command line cannot work
    3  cannot connect
    4  refused by the peer, or what is there is not what --if-match names
    5  integrity: content is not what it should be, files differ, a copy is damaged; nothing was published
  130  interrupted
  Of several failures the greatest counts.

Lost connections:
  A connection that cannot be made, is lost, falls silent or is turned away because the server is busy is made again,
  --retries times in a row that bring no file further, after 0.25 s, 0.5 s and so on up to 15 s (or half of that, at
  random). What had not ended is asked again. Then the status is that of the last failure.";

macro_rules! json_help {
    () => {
        "\
JSON summary (one object on one line of the standard output, also when files fail; bytes and counts are numbers):
  files          files that are done          wire_sent      bytes sent, everything above TCP
  bytes_target   their length                 wire_received  bytes received, likewise
  bytes_copied   of it, taken from the basis  round_trips    times we waited for an answer, over all connections
  bytes_literal  of it, sent                  elapsed_ms     milliseconds, connecting included
  repairs        results sent again           root           root of the file, null unless a single one is done
  known          files whose basis was known beforehand: nothing had to be compared
  A directory counts as one file, with all that is in it.
  With several SRC also: roots, a root or null for each. When something failed also: error, exit_code; and current, when
  a file is not what --if-match names or is damaged: root and generation of what is there or should be, null for no file.
  Where they are not empty: retries, how often it was tried again; replaced, what other writers had published meanwhile
  (as current, a list); restored, damaged copies of the server that were repaired from ours; members, how many files
  of directories were too large to go with the rest and went by themselves; failed, what could not be transferred of
  directories (a list of source and error).
  With --dry-run another object: dry_run (true), files, changes (a list of target, path and encoded below it, change: new,
  changed or deleted, reasons, bytes of content that would come whole or in part, text), wire_predicted, at_most, wire_sent
  and the like of the dry run itself; condition with --if-match; refusals, left_out, error, exit_code where there are any."
    };
}

const PUSH_HELP: &str = concat!(
    "\
What is remembered:
  After a push to a server, what both ends have now is remembered in a directory of yours, so that the next push of the
  file or directory takes one round trip. It is --state, else $DELTASYNC_STATE, else $XDG_STATE_HOME/deltasync, else
  ~/.local/state/deltasync. It holds what your files held, readable by you alone, and may be deleted at any time. What
  cannot be remembered or is no longer true costs a round trip, never a transfer.

",
    json_help!()
);

const WATCH_HELP: &str = "\
Each time it is as `push DIR DST` with the same options: what only DST has stays, unless --delete is given, and
--if-match is on what the first push replaces. Everything is compared, whatever has changed; that costs some 1,000 bytes
where little differs. A line is printed for each push that found something to do: with --json its object, as of `push`.

A server that is away is tried again without end (--retries does not count), and then gets what has changed meanwhile.
What fails otherwise is said once and tried again after 1 s, 2 s and so on up to --every; what fails at the start ends it.
It ends with status 1 when DIR goes or another directory takes its place, and with 130 and a summary on Ctrl-C.

Where the system cannot watch so many directories (fs.inotify.max_user_watches), that is said, and DIR is compared every 15
seconds, or --every if that is less. On network file systems it may not tell of what others change: --every helps there.

JSON at the end: compared (how often), changed (how many of these are lines), wire_sent, wire_received, elapsed_ms.";

const JSON_HELP: &str = json_help!();

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ArgsVerb {
    /// Bring files and directories at DST up to date with those of this machine
    #[command(after_help = PUSH_HELP)]
    Push(PushArgs),
    /// Bring files and directories of this machine at DST up to date with those at a server
    #[command(after_help = JSON_HELP)]
    Pull(CopyArgs),
    /// Keep DST equal to DIR: push it now, and again whenever something in it has changed
    #[command(after_help = WATCH_HELP, override_usage = "deltasync watch [OPTIONS] <DIR> <DST>")]
    Watch(WatchArgs),
    /// List a directory at a server: size, time of the last change in UTC, name
    Ls(ListArgs),
    /// Make directories at a server, each in one that is there
    Mkdir(MkdirArgs),
    /// Give a file or directory at a server another place, where nothing is
    Mv(MvArgs),
    /// Remove files, symbolic links and empty directories at a server
    Rm(RmArgs),
    /// Compare a file with one at a server by their roots, without moving either; status 5 when they differ
    Verify(VerifyArgs),
    /// Write the signature of BASIS to SIG
    Signature(SignatureArgs),
    /// Write to DELTA what makes TARGET from the basis behind SIG
    Delta(DeltaArgs),
    /// Write to OUT what DELTA makes of BASIS, once it is verified
    Patch(PatchArgs),
    /// Show what a push of FILE would send, and why, as a map of the file; change nothing
    Explain(ExplainArgs),
    /// Show on this machine what it does: serve a directory of its own, push to it, edit, push again
    Demo(DemoArgs),
    /// Print the script that makes a shell complete these verbs and options
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each verb
    Man(ManArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// Files and directories to take
    #[arg(required = true, value_name = "SRC", value_parser = place())]
    pub(crate) sources: Vec<Place>,
    /// Where they go
    #[arg(value_name = "DST", value_parser = place())]
    pub(crate) destination: Place,
    /// Explain where the bytes of each file went
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw no progress, also on a terminal
    #[arg(long)]
    pub(crate) no_progress: bool,
    /// Replace only the file with this root (64 hexadecimal digits, as `verify` prints them), or none: status 4 otherwise
    #[arg(long, value_name = "ROOT|absent", value_parser = condition)]
    if_match: Option<Condition>,
    /// Move at most so many KiB a second, both ways together, or bytes with a suffix K, M or G; 32K at least
    #[arg(long, value_name = "RATE", value_parser = bandwidth)]
    bwlimit: Option<Bandwidth>,
    /// Say what would change, why, and what that would move; change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Keep hard links within a directory as such
    #[arg(short = 'H', long)]
    hard_links: bool,
    /// Keep extended attributes within a directory, those of the namespace of users
    #[arg(short = 'X', long)]
    xattrs: bool,
    /// Read the files of a directory, at both ends, instead of trusting that equal length and time mean equal content
    #[arg(short, long)]
    checksum: bool,
    /// Let a directory become visible as one change, not file by file: needs room for what changes twice, beside DST
    ///
    /// The new tree is made beside the old one, as .NAME.deltasync-XXXXXXXX, and takes its place by one rename when all of it
    /// is there. DST must not be the served directory itself, and nothing may be mounted in it.
    #[arg(long)]
    atomic: bool,
    /// Use up to N connections at once, 1 to 16, where there are several files to move, or large ones in a directory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    connections: u8,
    #[command(flatten)]
    delete: DeleteArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct DeleteArgs {
    /// Delete what only DST has, of a directory; nothing when that is more than half of it
    #[arg(long)]
    delete: bool,
    /// Delete at most so many files and directories, and nothing when there are more
    #[arg(long, value_name = "N", requires = "delete")]
    max_delete: Option<u64>,
    /// Delete however much it is
    #[arg(long, requires = "delete", conflicts_with = "max_delete")]
    force: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    pub(crate) copy: CopyArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) push: PushArgs,
    /// Milliseconds without a change after which DIR is pushed, 0 to 60000; ten times that while changes go on
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    settle: u64,
    /// Seconds after which DIR is compared though no change was seen, 1 to 86400
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// The directory, or a single file
    #[arg(value_name = "URL", value_parser = place())]
    pub(crate) place: Place,
    /// Print a JSON object a line: name, encoded (the name as in a place), kind, size, modified (seconds since 1970)
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MkdirArgs {
    /// The directories; something that is there already is an error, also a directory: status 4
    #[arg(required = true, value_name = "URL", value_parser = place())]
    pub(crate) places: Vec<Place>,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MvArgs {
    /// What is there
    #[arg(value_name = "URL", value_parser = place())]
    pub(crate) from: Place,
    /// Its new place at the same server; one that ends in `/` takes it by its name. Nothing is replaced: status 4
    #[arg(value_name = "NEW", value_parser = place())]
    pub(crate) to: Place,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// What is to go
    #[arg(required = true, value_name = "URL", value_parser = place())]
    pub(crate) places: Vec<Place>,
    /// Directories with all that is in them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// A file of this machine
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The other file
    #[arg(value_name = "URL", value_parser = place())]
    pub(crate) place: Place,
    /// Print one JSON object instead of text: equal, algorithm, local and remote with root and bytes
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SignatureArgs {
    /// The basis, a file
    #[arg(value_name = "BASIS")]
    pub(crate) basis: PathBuf,
    /// Where the signature goes; `-` is the standard output
    #[arg(value_name = "SIG")]
    pub(crate) out: PathBuf,
    /// Bytes of a block, 16 to 16777216 [default: about the square root of the length of BASIS]
    #[arg(long, value_name = "BYTES")]
    pub(crate) block_len: Option<usize>,
    #[command(flatten)]
    pub(crate) hash: HashArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DeltaArgs {
    /// The signature of the basis; `-` is the standard input
    #[arg(value_name = "SIG")]
    pub(crate) signature: PathBuf,
    /// The target, a file
    #[arg(value_name = "TARGET")]
    pub(crate) target: PathBuf,
    /// Where the delta goes; `-` is the standard output
    #[arg(value_name = "DELTA")]
    pub(crate) out: PathBuf,
    /// Say on the standard error what was copied and what is literal
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PatchArgs {
    /// The basis, a file
    #[arg(value_name = "BASIS")]
    pub(crate) basis: PathBuf,
    /// The delta; `-` is the standard input
    #[arg(value_name = "DELTA")]
    pub(crate) delta: PathBuf,
    /// Where the target goes, maybe BASIS itself; `-` is the standard output
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Say on the standard error what was copied and what was literal
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HashArgs {
    /// Which digest makes roots: blake3 or sha256
    #[arg(long, value_name = "NAME", default_value_t)]
    pub(crate) hash: Algorithm,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    pub(crate) hash: HashArgs,
    /// Seconds that connecting may take, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    connect_timeout: u64,
    /// How often in a row to try again when a connection fails, 0 to 1000
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    retries: u32,
    /// Bits of a chunk tag; few of them make collisions, to exercise repair
    #[arg(long, hide = true, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=48))]
    tag_bits: Option<u32>,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StateArgs {
    /// The directory in which pushes to servers are remembered
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Neither use nor change what is remembered
    #[arg(long, conflicts_with_all = ["state", "state_quota", "keep"])]
    no_state: bool,
    /// The most that the directory may take, in bytes; what was used longest ago goes first [default: 1073741824]
    #[arg(long, value_name = "BYTES")]
    state_quota: Option<u64>,
    /// In which form files are remembered
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    keep: Keep,
}

/// [`KeepForm`] as a word.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Keep {
    /// A copy where disk blocks can be shared or the file takes little of the quota, else sums
    #[default]
    Auto,
    /// A copy: the smallest deltas
    Copy,
    /// Sums, a 24th of the file: larger deltas
    Sums,
}

impl SessionArgs {
    pub(crate) fn options(&self) -> Options {
        let mut config = Config::default().algorithm(self.hash.hash);
        if let Some(bits) = self.tag_bits {
            config = config.tag_bits(bits);
        }
        let retries = Retries { most: self.retries, ..Retries::default() };
        Options::default().config(config).connect_timeout(Duration::from_secs(self.connect_timeout)).retries(retries)
    }
}

impl CopyArgs {
    pub(crate) fn options(&self) -> Options {
        let options = self.session.options().condition(self.if_match.unwrap_or_default());
        let filter = self.filter.filter.clone();
        let scope = Scope {
            filter,
            hard_links: self.hard_links,
            xattrs: self.xattrs,
            checksum: self.checksum,
            headers_only: false,
        };
        let tree = TreeOptions { extra: self.delete.extra(), scope, atomic: self.atomic };
        let mut options = options.tree(tree);
        options.bandwidth = self.bwlimit;
        options.connections(self.connections.into())
    }
}

impl WatchArgs {
    pub(crate) fn watching(&self) -> WatchOptions {
        WatchOptions { settle: Duration::from_millis(self.settle), every: Duration::from_secs(self.every) }
    }
}

impl DeleteArgs {
    fn extra(&self) -> Extra {
        match (self.delete, self.force) {
            (false, _) => Extra::Keep,
            (true, false) => Extra::Delete { most: self.max_delete },
            (true, true) => Extra::Delete { most: Some(u64::MAX) },
        }
    }
}

impl StateArgs {
    /// These options with what is remembered; `of_user` is where, unless told otherwise.
    pub(crate) fn add_to(&self, options: Options, of_user: impl FnOnce() -> Option<State>) -> Options {
        if self.no_state {
            return options;
        }
        let Some(mut state) = self.state.clone().map(State::new).or_else(of_user) else { return options };
        if let Some(bytes) = self.state_quota {
            state = state.quota(ByteLen::new(bytes));
        }
        options.state(state.form(self.keep.into()))
    }
}

impl From<Keep> for KeepForm {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::Auto => Self::Auto,
            Keep::Copy => Self::Copy,
            Keep::Sums => Self::Sums,
        }
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    if text == "absent" {
        return Ok(Condition::Absent);
    }
    let root = text.parse::<Digest>().map_err(|_| "expected `absent` or a root, 64 hexadecimal digits".to_owned())?;
    Ok(Condition::Root(root))
}

/// A number of KiB a second, or of bytes with a suffix, maybe with a decimal point.
pub(crate) fn bandwidth(text: &str) -> Result<Bandwidth, String> {
    let (number, unit) = match text.strip_suffix(|c: char| c.is_ascii_alphabetic()) {
        None => (text, 1 << 10),
        Some(number) => match text.as_bytes().last().map(u8::to_ascii_uppercase) {
            Some(b'K') => (number, 1 << 10),
            Some(b'M') => (number, 1 << 20),
            Some(b'G') => (number, 1 << 30),
            _ => return Err("the suffix may be K, M or G".to_owned()),
        },
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = number.parse().ok().filter(|_| is_number).ok_or("expected a number, maybe with K, M or G")?;
    // Too large a number is no limit at all.
    Bandwidth::new((number * f64::from(unit)) as u64).map_err(|error| error.to_string())
}

pub(crate) fn place() -> impl TypedValueParser<Value = Place> {
    OsStringValueParser::new().try_map(|text: OsString| Place::parse(&text))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_holds() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_last_place_is_the_destination() {
        let args = Args::try_parse_from(["deltasync", "push", "a", "b", "deltasync://h/d/", "--json"]).expect("valid");
        let ArgsVerb::Push(PushArgs { copy: args, .. }) = args.verb else { panic!("{args:?}") };
        assert_eq!(args.sources, [Place::Local("a".into()), Place::Local("b".into())]);
        assert_eq!(args.destination.to_string(), "deltasync://h/d/");
        assert!(args.json && !args.quiet);
        assert!(Args::try_parse_from(["deltasync", "push", "a"]).is_err());
        assert!(Args::try_parse_from(["deltasync", "push"]).is_err());
    }

    #[test]
    fn options_reach_the_session() {
        let args = ["deltasync", "pull", "a", "b", "--hash", "sha256", "--connect-timeout", "3", "--tag-bits", "8"];
        let ArgsVerb::Pull(args) = Args::try_parse_from(args).expect("valid").verb else { panic!("pull") };
        let options = args.session.options();
        assert_eq!(options.config.algorithm, Algorithm::Sha256);
        assert_eq!(options.config.tag_bits, 8);
        assert_eq!(options.connect_timeout, Duration::from_secs(3));
        assert_eq!(options.state, None);
        for wrong in [["--hash", "md5"], ["--connect-timeout", "0"], ["--tag-bits", "49"]] {
            let args = ["deltasync", "pull", "a", "b"].into_iter().chain(wrong);
            assert!(Args::try_parse_from(args).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_condition_is_a_root_or_absent() {
        let parse = |more: &[&str]| {
            let args = ["deltasync", "pull", "a", "b"].iter().chain(more);
            let ArgsVerb::Pull(args) = Args::try_parse_from(args).ok()?.verb else { panic!("pull") };
            Some(args.options())
        };
        let condition = |text| parse(&["--if-match", text]).map(|options| options.condition);
        let digits = "0123456789abcdef".repeat(4);
        let root = digits.parse().expect("64 digits");
        assert_eq!(condition(&digits), Some(Condition::Root(root)));
        assert_eq!(condition("absent"), Some(Condition::Absent));
        assert_eq!(parse(&[]).map(|options| options.condition), Some(Condition::Any));
        for wrong in ["", "Absent", "any", &digits[1..], &format!("{digits}0"), &format!("g{}", &digits[1..])] {
            assert_eq!(condition(wrong), None, "{wrong}");
        }
        assert_eq!(parse(&[]).map(|options| options.retries), Some(Retries::default()));
        assert_eq!(parse(&["--retries", "0"]).map(|options| options.retries.most), Some(0));
        assert!(parse(&["--retries", "1001"]).is_none() && parse(&["--retries", "-1"]).is_none());
    }

    #[test]
    fn what_is_deleted_is_bounded_unless_forced() {
        let extra = |more: &[&str]| {
            let args = ["deltasync", "push", "a", "b"].iter().chain(more);
            let ArgsVerb::Push(args) = Args::try_parse_from(args).ok()?.verb else { panic!("push") };
            Some(args.copy.options().tree.extra)
        };
        assert_eq!(extra(&[]), Some(Extra::Keep));
        assert_eq!(extra(&["--delete"]), Some(Extra::Delete { most: None }));
        assert_eq!(extra(&["--delete", "--max-delete", "7"]), Some(Extra::Delete { most: Some(7) }));
        assert_eq!(extra(&["--delete", "--force"]), Some(Extra::Delete { most: Some(u64::MAX) }));
        for wrong in [&["--force"][..], &["--max-delete", "7"], &["--delete", "--force", "--max-delete", "7"]] {
            assert_eq!(extra(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn patterns_count_in_the_order_of_the_command_line() {
        let filter = |more: &[&str]| {
            let args = ["deltasync", "pull", "a", "b"].iter().chain(more);
            let ArgsVerb::Pull(args) = Args::try_parse_from(args).ok()?.verb else { panic!("pull") };
            Some(args.options().tree.scope.filter)
        };
        assert!(filter(&[]).is_some_and(|filter| filter.is_empty()));
        let some = filter(&["--exclude", "*.o", "--include=keep.o", "--ignore-files", "--exclude", "/x"]);
        let some = some.expect("valid");
        assert_eq!(some.patterns(), ["*.o", "!keep.o", "/x"]);
        assert!(some.has_ignore_files());
        for wrong in [&["--exclude", ""][..], &["--exclude", "!x"], &["--include", "a\nb"], &["--ignore-files=x"]] {
            assert_eq!(filter(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_rate_is_in_kib_or_has_its_unit() {
        let rate = |text| bandwidth(text).map(Bandwidth::bytes).ok();
        for (text, bytes) in [
            ("32", 32 << 10),
            ("100", 100 << 10),
            ("100k", 100 << 10),
            ("1.5M", 3 << 19),
            ("2G", 2 << 30),
            ("0.5m", 1 << 19),
        ] {
            assert_eq!(rate(text), Some(bytes), "{text}");
        }
        for wrong in ["", "0", "31", "-5", "1e9", "inf", "NaN", "K", "5T", "5KB", "1 M", "0x10", "1.2.3"] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
        let args = ["deltasync", "pull", "a", "b", "--bwlimit=64"];
        let ArgsVerb::Pull(args) = Args::try_parse_from(args).expect("valid").verb else { panic!("pull") };
        assert_eq!(args.options().bandwidth.map(Bandwidth::bytes), Some(64 << 10));
    }

    #[test]
    fn a_watch_takes_the_options_of_a_push() {
        let watch = |more: &[&str]| {
            let args = ["deltasync", "watch", "a", "b"].iter().chain(more);
            let ArgsVerb::Watch(args) = Args::try_parse_from(args).ok()?.verb else { panic!("watch") };
            Some((args.watching(), args.push.copy.options().tree.extra))
        };
        assert_eq!(watch(&[]), Some((WatchOptions::default(), Extra::Keep)));
        let watching = WatchOptions { settle: Duration::from_secs(1), every: Duration::from_secs(7) };
        let extra = Extra::Delete { most: None };
        assert_eq!(watch(&["--settle=1000", "--every=7", "--delete", "--no-state"]), Some((watching, extra)));
        assert!(watch(&["--every=0"]).is_none() && watch(&["--settle=60001"]).is_none());
    }

    fn state(more: &[&str]) -> Option<State> {
        let args = ["deltasync", "push", "a", "b"].iter().chain(more);
        let ArgsVerb::Push(args) = Args::try_parse_from(args).expect("valid").verb else { panic!("push") };
        args.state.add_to(args.copy.options(), || Some(State::new("of user"))).state
    }

    #[test]
    fn a_push_remembers_where_it_is_told_to() {
        assert_eq!(state(&[]), Some(State::new("of user")));
        assert_eq!(state(&["--state", "there"]), Some(State::new("there")));
        assert_eq!(state(&["--no-state"]), None);
        let expected = State::new("of user").quota(ByteLen::new(5000)).form(KeepForm::Sums);
        assert_eq!(state(&["--state-quota", "5000", "--keep", "sums"]), Some(expected));
        for wrong in [&["--no-state", "--state", "x"][..], &["--no-state", "--keep", "copy"], &["--keep", "x"]] {
            let args = ["deltasync", "push", "a", "b"].iter().chain(wrong);
            assert!(Args::try_parse_from(args).is_err(), "{wrong:?}");
        }
        assert!(Args::try_parse_from(["deltasync", "pull", "a", "b", "--no-state"]).is_err());
    }
}
