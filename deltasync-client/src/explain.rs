//! What a push of a file would send and why, as a map of the file in text.
//!
//! The dry run of the push goes as far as its delta and tells range by range where the target would come from; here that is
//! drawn. The strip is as wide as the terminal; its characters tell it, and colours only once more. Ranges come as coarse as a
//! [`Placer`](deltasync_core::Placer) tells them: some 2,000 at most, however many edits there are.

use std::env;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use deltasync_core::{BlockMap, ByteLen, ChangeReason, Offset, Origin, Placed};
use deltasync_proto::EventKind;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{SessionArgs, StateArgs, place};
use crate::color::Color;
use crate::face::{Face, Look};
use crate::prediction::{Predicted, Prediction};
use crate::shown::{Counted, Grouped, Percent, Size};
use crate::{ClientError, Options, Place, Update, UsageError, predict_push};

const EXPLAIN_HELP: &str = "\
Nothing is changed at either end. It is the dry run of `deltasync push FILE URL`, drawn: a strip of the whole file, then the
largest ranges that would be sent.

JSON: source, target, bytes, copied, sent (bytes before compression), change (new, changed or null), known, reasons, ranges (how
many would be sent), wire_predicted, round_trips (at most so many), and runs: a list of at, len, origin (copied, sent or mixed)
and copied.";

/// How many ranges are listed.
const LISTED: usize = 10;
/// The columns of a strip that goes to no terminal.
const COLUMNS: u16 = 80;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXPLAIN_HELP)]
pub(crate) struct ExplainArgs {
    /// A file of this machine
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where it would be pushed
    #[arg(value_name = "URL", value_parser = place())]
    place: Place,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Whether the strip is coloured too
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    color: Color,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    session: SessionArgs,
}

/// Says what a push of the file would do; the text, with its last line end.
pub(crate) async fn explain(
    args: &ExplainArgs,
    of_user: impl FnOnce() -> Option<crate::State>,
    cancel: &CancellationToken,
) -> Result<String, ClientError> {
    if args.file.is_dir() {
        return Err(UsageError::SourceDirectory(crate::Shown::path(&args.file).to_string()).into());
    }
    let options: Options = args.state.add_to(args.session.options(), of_user);
    let face = Face::new(Look::Lines);
    let mut ranges = Ranges::default();
    let report = |update: Update| {
        if let Update::File { kind, .. } = &update {
            ranges.take(kind);
        }
        face.update(&update);
    };
    let work = predict_push(std::slice::from_ref(&args.file), &args.place, &options, cancel, report);
    let mut prediction = face.watch(work).await?;
    if let Some(error) = prediction.failures.pop() {
        return Err(error);
    }
    let Some(mut told) = prediction.files.pop() else { return Err(UsageError::NoSource.into()) };
    std::mem::replace(&mut told.result, Ok(()))?;
    let explained = Explained { told: &told, prediction: &prediction, ranges: &ranges };
    if args.json {
        return Ok(explained.json() + "\n");
    }
    let out = std::io::stdout();
    let columns = crate::terminal::columns(&out).unwrap_or(COLUMNS);
    Ok(explained.text(columns.into(), args.color.is_on(out.is_terminal(), |name| env::var_os(name))))
}

/// Where the ranges of a target would come from, in order.
#[derive(Debug, Default)]
struct Ranges(Vec<Placed>);

impl Ranges {
    fn take(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Placed { ranges, .. } => ranges.iter().for_each(|range| self.add(*range)),
            EventKind::Restarted => self.0.clear(),
            _ => {}
        }
    }

    /// Joins what lies side by side and is alike.
    fn add(&mut self, range: Placed) {
        // What was presumed does not hold, or another try was made: it begins again.
        if range.at == Offset::ZERO {
            self.0.clear();
        }
        if let Some(last) = self.0.last_mut()
            && last.at.get() + last.len.get() == range.at.get()
            && last.origin() == range.origin()
            && range.origin() != Origin::Mixed
        {
            last.len += range.len;
            last.copied += range.copied;
            return;
        }
        self.0.push(range);
    }

    fn copied(&self) -> ByteLen {
        self.0.iter().map(|range| range.copied).sum()
    }

    fn sent(&self) -> ByteLen {
        self.0.iter().map(Placed::sent).sum()
    }
}

/// The character of an origin in the strip, how it is coloured, and what it means.
const fn look(origin: Origin) -> (char, &'static str, &'static str) {
    match origin {
        Origin::Missing => ('?', "", "not told"),
        Origin::Copied => ('.', "\x1b[32m", "there already"),
        Origin::Sent => ('#', "\x1b[1;33m", "would be sent"),
        Origin::Mixed => ('+', "\x1b[36m", "some of both"),
    }
}

/// What is known once the dry run is over.
struct Explained<'a> {
    told: &'a Predicted,
    prediction: &'a Prediction,
    ranges: &'a Ranges,
}

impl Explained<'_> {
    /// Why it is as it is, a line each.
    fn reasons(&self) -> Vec<&'static str> {
        let Some(change) = self.told.changes.first() else {
            return vec!["unchanged: what is there has the same root, so nothing of it would be sent"];
        };
        let mut reasons = Vec::new();
        if change.reasons.contains(&ChangeReason::New) {
            reasons.push("no file is there: all that nothing else there has would be sent");
        } else if self.told.known {
            reasons.push("what is there is known from the last push: compared with that, on this machine");
        } else {
            reasons
                .push("another version is there, and nothing is known of it: both ends compare sums of their pieces");
        }
        if change.reasons.contains(&ChangeReason::Length) {
            reasons.push("its length differs");
        }
        reasons
    }

    fn text(&self, columns: usize, color: bool) -> String {
        let Self { told, ranges, prediction } = self;
        let mut text = format!("{} -> {}\n", told.source, told.target);
        for reason in self.reasons() {
            let _ = writeln!(text, "  {reason}");
        }
        let total = ranges.copied() + ranges.sent();
        if total > ByteLen::ZERO {
            text += &self.strip(total, columns, color);
            let reused = ranges.copied().get() as f64 / total.get() as f64;
            let parts = ranges.0.iter().filter(|range| range.sent() > ByteLen::ZERO).count() as u64;
            let _ = writeln!(
                text,
                "\n{} of {} bytes would be sent, in {} ({} reused)",
                Grouped(ranges.sent().get()),
                Grouped(total.get()),
                Counted(parts, "range"),
                Percent(reused),
            );
            if parts > 0 {
                text += &self.table(parts);
            }
        }
        let _ = writeln!(
            text,
            "about {} on the wire, in at most {}; to find that out {} moved",
            Size(told.wire.get()),
            Counted(self.round_trips().into(), "round trip"),
            Size(prediction.carried.wire_sent + prediction.carried.wire_received),
        );
        text
    }

    /// How many a push would wait for at most: as many as were waited for, and one more until what is sent is there.
    fn round_trips(&self) -> u32 {
        self.prediction.carried.round_trips.saturating_add(u32::from(self.ranges.sent() > ByteLen::ZERO))
    }

    /// The whole file in one line, and what its characters mean.
    fn strip(&self, total: ByteLen, columns: usize, color: bool) -> String {
        let cells = columns.saturating_sub(4).clamp(1, 1000).min(usize::try_from(total.get()).unwrap_or(usize::MAX));
        let mut map = BlockMap::new(total, cells);
        self.ranges.0.iter().for_each(|range| map.place(range));
        let (mut line, mut seen) = (String::new(), Vec::new());
        for run in map.runs() {
            let (mark, start, means) = look(run.origin);
            // A run is of whole cells; the last one may be short.
            let cell = |at: u64| (u128::from(at) * cells as u128).div_ceil(u128::from(total.get())) as usize;
            let count = cell(run.at.get() + run.len.get()) - cell(run.at.get());
            let marks = mark.to_string().repeat(count);
            line += &if color { format!("{start}{marks}\x1b[0m") } else { marks };
            if !seen.contains(&(mark, means)) {
                seen.push((mark, means));
            }
        }
        let legend: Vec<_> = seen.iter().map(|(mark, means)| format!("{mark} {means}")).collect();
        let each = Size(total.get().div_ceil(cells as u64));
        format!("\n  {line}\n  {}; a character is {each}\n", legend.join(", "))
    }

    /// The largest ranges that would be sent, in the order of the file.
    fn table(&self, parts: u64) -> String {
        let mut largest: Vec<_> = self.ranges.0.iter().filter(|range| range.sent() > ByteLen::ZERO).collect();
        largest.sort_by_key(|range| std::cmp::Reverse(range.sent()));
        largest.truncate(LISTED);
        largest.sort_by_key(|range| range.at);
        let mut text = format!("{:>20}  {:>17}\n", "offset", "bytes");
        for range in largest {
            let Placed { at, len, .. } = range;
            let of = if range.sent() == *len { String::new() } else { format!(" of {}", Grouped(len.get())) };
            let (at, bytes) = (Grouped(at.get()).to_string(), Grouped(range.sent().get()).to_string());
            let _ = writeln!(text, "{at:>20}  {bytes:>17}{of}");
        }
        match parts.saturating_sub(LISTED as u64) {
            0 => {}
            more => text += &format!("{:>20}  smaller ones: {}\n", "and", Grouped(more)),
        }
        text
    }

    fn json(&self) -> String {
        #[derive(Serialize)]
        struct Run {
            at: u64,
            len: u64,
            origin: &'static str,
            copied: u64,
        }
        #[derive(Serialize)]
        struct Object<'a> {
            source: &'a str,
            target: &'a str,
            bytes: u64,
            copied: u64,
            sent: u64,
            change: Option<&'static str>,
            known: bool,
            reasons: Vec<&'static str>,
            ranges: usize,
            wire_predicted: u64,
            round_trips: u32,
            runs: Vec<Run>,
        }
        let Self { told, ranges, .. } = self;
        let run = |range: &Placed| Run {
            at: range.at.get(),
            len: range.len.get(),
            origin: range.origin().name(),
            copied: range.copied.get(),
        };
        let object = Object {
            source: &told.source,
            target: &told.target,
            bytes: (ranges.copied() + ranges.sent()).get(),
            copied: ranges.copied().get(),
            sent: ranges.sent().get(),
            change: told.changes.first().map(|change| change.change.name()),
            known: told.known,
            reasons: self.reasons(),
            ranges: ranges.0.iter().filter(|range| range.sent() > ByteLen::ZERO).count(),
            wire_predicted: told.wire.get(),
            round_trips: self.round_trips(),
            runs: ranges.0.iter().map(run).collect(),
        };
        serde_json::to_string(&object).expect("numbers and text serialize")
    }
}
