//! Text as programs write it, statements, tables and logs, row by row, and a few of its rows edited.

use std::fmt::Write as _;

use deltasync_testkit::Rng;

use crate::files::places;
use crate::{ExactSizes, Files, MakeError};

/// What rows are made of; `python/database.py` has the same.
const WORDS: &str = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa \
                     quebec romeo sierra tango uniform victor whiskey xray yankee zulu order invoice customer shipped \
                     pending failed retry timeout connection session warehouse payment refund gateway request response \
                     error warning info";

/// A hundred MiB of rows, of which 500 are edited: three in five get another number in the middle, the others are new or
/// gone. The floor is what is inserted, packed behind the rows beside it as the exact delta does; places are not counted.
pub(crate) fn rows_edited(seed: u64) -> Result<Files, MakeError> {
    Ok(edited(seed, 100 << 20, 500))
}

fn edited(seed: u64, len: usize, edits: usize) -> Files {
    let mut writer = Writer { rng: Rng::new(seed), words: WORDS.split_ascii_whitespace().collect() };
    let (mut old, mut starts) = (String::with_capacity(len + 200), Vec::new());
    while old.len() < len {
        starts.push(old.len());
        let kind = starts.len() - 1;
        writer.row(kind, &mut old);
    }
    let (mut new, mut done) = (String::with_capacity(old.len() + (64 << 10)), 0);
    for row in places(&mut writer.rng, starts.len(), edits) {
        let (start, end) = (starts[row], starts.get(row + 1).copied().unwrap_or(old.len()));
        let text = &old[start..end];
        // The insertion, where it goes, and where the old text goes on.
        let (insertion, at, resume) = match writer.rng.below(10) {
            0..6 => {
                let third = text.len() / 3;
                let field = text[third..].find([' ', ',']).map_or(third, |at| third + at + 1);
                let resume = (field + writer.rng.below(8)).min(text.len() - 1);
                (writer.rng.below(1_000_000).to_string(), start + field, start + resume)
            }
            6..8 => {
                let mut insertion = String::new();
                let kind = writer.rng.below(3);
                writer.row(row * 3 + kind, &mut insertion);
                (insertion, start, start)
            }
            _ => (String::new(), start, end),
        };
        new += &old[done..at];
        new += &insertion;
        done = resume;
    }
    new += &old[done..];
    let packed = ExactSizes::of(old.as_bytes(), new.as_bytes()).packed;
    Files::new(old, new, 0, packed as u64)
}

/// Writes rows by a seed.
struct Writer {
    rng: Rng,
    words: Vec<&'static str>,
}

impl Writer {
    /// Row number `number`: a statement, a line of a table or one of a log, in turn.
    fn row(&mut self, number: usize, out: &mut String) {
        let mut words = [""; 4];
        words.fill_with(|| self.words[self.rng.below(self.words.len())]);
        let [w1, w2, w3, w4] = words;
        let id = self.rng.next_u64() as u32;
        let mut n = |bound| self.rng.below(bound);
        let written = match number % 3 {
            0 => {
                let (price, cents, month, day) = (n(9000), n(100), 1 + n(12), 1 + n(28));
                let (hour, minute, second) = (n(24), n(60), n(60));
                writeln!(
                    out,
                    "INSERT INTO orders VALUES ({number},'{w1} {w2}',{price}.{cents:02},\
                     '2024-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}','{w3}');"
                )
            }
            1 => writeln!(out, "{number},{w1},{w2},{id:08x},{},{w3},{w4}", n(100_000)),
            _ => {
                let (day, hour, minute, second, milli) = (1 + number % 28, n(24), n(60), n(60), n(1000));
                let level = ["INFO", "WARN", "ERROR", "DEBUG"][n(4)];
                let (host, process, took) = (n(40), n(65_536), n(5000));
                writeln!(
                    out,
                    "2024-06-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z {level} host{host:02} \
                     svc[{process}]: {w1} {w2} {w3} id={id:08x} took={took}ms"
                )
            }
        };
        written.expect("a string takes all");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn edits_touch_the_rows_they_should_and_no_others() {
        let Files { old, new, floor } = edited(1, 1 << 20, 100);
        assert!(((1 << 20)..(1 << 20) + 200).contains(&old.len()));
        let [old, new] = [&old, &new].map(|text| std::str::from_utf8(text).expect("text"));
        assert!(old.ends_with('\n') && new.ends_with('\n'));
        let rows: BTreeSet<_> = old.lines().collect();
        let other = new.lines().filter(|row| !rows.contains(row)).count();
        assert!((60..=95).contains(&other), "{other} rows are new or edited");
        assert!((300..3000).contains(&floor), "{floor}");
    }
}
