//! The rows of the table: ours beside theirs, the ratio, the bar.

use crate::contest::Measured;

/// Ours beside theirs.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    what: String,
    bytes: u64,
    ours: Measured,
    theirs: Measured,
    clock: Clock,
    /// The least ratio of ours to theirs in speed.
    least: Option<f64>,
    /// The most literal bytes, as a multiple of theirs.
    literals: Option<f64>,
}

/// Which time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// That of the processor, which neighbours disturb little.
    Processor,
    /// That on the wall.
    Wall,
}

/// The head of the table.
pub(crate) const HEAD: &str = "| stage | MB | deltasync, GB/s (slowest to fastest) | beside | GB/s | ratio | bar |\n\
                               |---|--:|--:|---|--:|--:|--:|";

impl Row {
    /// A row without a bar, over `bytes` bytes, by the time of the processor.
    pub(crate) fn new(what: &str, bytes: u64, ours: Measured, theirs: Measured) -> Self {
        Self { what: what.to_owned(), bytes, ours, theirs, clock: Clock::Processor, least: None, literals: None }
    }

    /// Sets the bar: at least so many times their speed.
    pub(crate) fn least(mut self, ratio: f64) -> Self {
        self.least = Some(ratio);
        self
    }

    /// Sets the bars that there are: as [`least`](Self::least), and at most so many times their literal bytes.
    pub(crate) fn bars(mut self, least: Option<f64>, literals: Option<f64>) -> Self {
        (self.least, self.literals) = (least, literals);
        self
    }

    /// Counts by this time.
    pub(crate) fn by(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// True when a bar is missed.
    pub(crate) fn misses(&self) -> bool {
        self.misses_speed() || self.misses_literals()
    }

    fn misses_speed(&self) -> bool {
        self.least.is_some_and(|least| self.ratio() < least)
    }

    fn misses_literals(&self) -> bool {
        let most = self.literals.zip(self.theirs.gave).map(|(factor, theirs)| factor * theirs as f64);
        most.zip(self.ours.gave).is_some_and(|(most, ours)| ours as f64 > most)
    }

    fn ratio(&self) -> f64 {
        Measured::median(self.seconds(&self.theirs)) / Measured::median(self.seconds(&self.ours))
    }

    fn seconds<'a>(&self, measured: &'a Measured) -> &'a [f64] {
        match self.clock {
            Clock::Processor => &measured.cpu,
            Clock::Wall => &measured.wall,
        }
    }

    fn speeds(&self, measured: &Measured) -> String {
        let speed = |seconds: f64| self.bytes as f64 / seconds / 1e9;
        let seconds = self.seconds(measured);
        let (least, most) = (speed(seconds[seconds.len() - 1]), speed(seconds[0]));
        format!("{:.2} ({least:.2} to {most:.2})", speed(Measured::median(seconds)))
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ours, theirs) = (self.speeds(&self.ours), self.speeds(&self.theirs));
        let clock = if self.clock == Clock::Wall { ", on the wall" } else { "" };
        write!(f, "| {}{clock} | {} | {ours} | {} | {theirs} | ", self.what, self.bytes / 1_000_000, self.theirs.name)?;
        write!(f, "{:.2} | ", self.ratio())?;
        if let Some(least) = self.least {
            write!(f, ">= {least:.2}{}", if self.misses_speed() { " **missed**" } else { "" })?;
        }
        if let (Some(factor), Some(ours), Some(theirs)) = (self.literals, self.ours.gave, self.theirs.gave) {
            let missed = if self.misses_literals() { " **missed**" } else { "" };
            write!(f, "; literals {ours} against {theirs}, <= {factor:.2} times{missed}")?;
        }
        write!(f, " |")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(seconds: f64, gave: u64) -> Measured {
        Measured { name: "one", gave: Some(gave), cpu: vec![seconds; 3], wall: vec![2.0 * seconds; 3] }
    }

    #[test]
    fn a_row_misses_its_bar_when_it_is_slower_or_says_more() {
        let row = Row::new("x", 1000, measured(1.0, 102), measured(2.0, 100));
        assert!(!row.clone().least(2.0).misses() && row.clone().least(2.1).misses());
        assert!(!row.clone().bars(None, Some(1.02)).misses() && row.clone().bars(None, Some(1.01)).misses());
        assert!(row.to_string().contains("2.00"), "{row}");
    }
}
