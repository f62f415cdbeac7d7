//! What the desktop client has done, kept between its runs: the last [`History::MAX`] entries, the newest first.
//!
//! It is kept as JSON lines, the oldest first, as in a log. A line that does not read is left out.

use serde::{Deserialize, Serialize};

/// What was done, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    entries: Vec<HistoryEntry>,
}

/// One thing that was done. Texts in it are safe to draw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When it ended, in seconds since 1970.
    pub at: i64,
    /// What it was, such as `Push`.
    pub what: String,
    /// What was moved.
    pub name: String,
    /// Where to.
    pub to: String,
    /// How it ended.
    pub ended: HistoryEnd,
    /// What it came to, or what went wrong, in one line.
    pub line: String,
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryEnd {
    /// As it should.
    Done,
    /// It failed, or what was compared differs.
    Failed,
    /// Whoever sat there ended it.
    Cancelled,
}

impl History {
    /// The most entries it keeps.
    pub const MAX: usize = 500;
    /// The longest text of an entry, in bytes.
    const TEXT_MAX: usize = 2000;

    /// Reads what [`History::to_text`] made.
    pub fn parse(text: &str) -> Self {
        let newest_first = text.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
        Self { entries: newest_first.take(Self::MAX).collect() }
    }

    /// One line for each entry, the oldest first.
    pub fn to_text(&self) -> String {
        let line = |entry| serde_json::to_string(entry).expect("numbers and text serialize") + "\n";
        self.entries.iter().rev().map(line).collect()
    }

    /// The entries, the newest first.
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// Adds what has just ended.
    pub fn add(&mut self, mut entry: HistoryEntry) {
        for text in [&mut entry.name, &mut entry.to, &mut entry.line] {
            text.truncate(text.floor_char_boundary(Self::TEXT_MAX));
        }
        self.entries.insert(0, entry);
        self.entries.truncate(Self::MAX);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: i64) -> HistoryEntry {
        HistoryEntry {
            at,
            what: "Push".into(),
            name: "a \"file\"\n".into(),
            to: "deltasync://h/".into(),
            ended: HistoryEnd::Done,
            line: "1 B sent".into(),
        }
    }

    #[test]
    fn it_reads_what_it_wrote_and_keeps_the_newest() {
        let mut history = History::default();
        for at in 0..History::MAX as i64 + 20 {
            history.add(entry(at));
        }
        assert_eq!(history.entries().len(), History::MAX);
        assert_eq!(history.entries()[0].at, History::MAX as i64 + 19);
        assert_eq!(History::parse(&history.to_text()), history);
        let longer = entry(-1);
        let text = serde_json::to_string(&longer).expect("text") + "\n" + &history.to_text();
        assert_eq!(History::parse(&text), history, "the oldest goes first");
    }

    #[test]
    fn damaged_lines_are_left_out_and_long_ones_cut() {
        let mut history = History::default();
        history.add(HistoryEntry { line: "ä".repeat(History::TEXT_MAX), ..entry(1) });
        assert!(history.entries()[0].line.len() <= History::TEXT_MAX);
        let text = "{\"at\":1}\n".to_owned() + &history.to_text() + "{\"at\":";
        assert_eq!(History::parse(&text), history);
        history.clear();
        assert_eq!(history.to_text(), "");
    }
}
