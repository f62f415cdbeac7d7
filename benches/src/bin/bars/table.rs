//! The rows of the table.

use std::fmt;
use std::time::Duration;

use deltasync_benches::Used;

/// What one run cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// The time of the processor of all processes.
    pub(crate) cpu: Duration,
    /// That of the client alone.
    pub(crate) client_cpu: Duration,
    /// The time on the clock.
    pub(crate) wall: Duration,
    /// The most memory of the client, in bytes.
    pub(crate) client: u64,
    /// The most memory of the server, in bytes; 0 where there is none.
    pub(crate) server: u64,
    /// The length of what came out, in bytes; 0 where it says nothing.
    pub(crate) len: u64,
}

/// What a ratio is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The time of the processor.
    Cpu,
    /// The time on the clock.
    Wall,
}

/// Ours, beside theirs if there are any.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    what: String,
    of: Of,
    ours: Vec<Cost>,
    theirs: Option<(&'static str, Vec<Cost>)>,
    most: Option<f64>,
    most_len: Option<f64>,
    most_memory: Option<u64>,
    unfinished: bool,
}

/// The head of the table.
pub(crate) const HEAD: &str = "| what | of | deltasync: s | peak MiB, client and server | beside | s | peak MiB | ratio | \
                               bar |\n|---|---|--:|--:|---|--:|--:|--:|---|";

impl Cost {
    /// A client and, if there is one, a server.
    pub(crate) fn new((client, wall): (Used, Duration), server: Option<Used>) -> Self {
        let server = server.unwrap_or_default();
        Self {
            cpu: client.cpu + server.cpu,
            client_cpu: client.cpu,
            wall,
            client: client.peak,
            server: server.peak,
            len: 0,
        }
    }
}

impl Row {
    /// A row without a bar.
    pub(crate) fn new(what: &str, of: Of, ours: Vec<Cost>) -> Self {
        Self {
            what: what.to_owned(),
            of,
            ours,
            theirs: None,
            most: None,
            most_len: None,
            most_memory: None,
            unfinished: false,
        }
    }

    /// Sets what it is beside, unless that could not be measured.
    pub(crate) fn beside(mut self, name: &'static str, theirs: &[Cost]) -> Self {
        self.theirs = (!theirs.is_empty()).then(|| (name, theirs.to_vec()));
        self
    }

    /// Sets the bar: at most so many times their time.
    pub(crate) fn most(mut self, ratio: f64) -> Self {
        self.most = Some(ratio);
        self
    }

    /// Sets the bar for the length of what comes out: at most so many times theirs.
    pub(crate) fn most_len(mut self, ratio: f64) -> Self {
        self.most_len = Some(ratio);
        self
    }

    /// Sets the bar for the memory of either end, in MiB, unless the files are too small to say anything.
    pub(crate) fn most_memory(mut self, mib: u64, small: bool) -> Self {
        self.most_memory = (!small).then_some(mib);
        self
    }

    /// Says that it came to no end, which misses every bar; the costs are up to where it was given up.
    pub(crate) fn unfinished(mut self) -> Self {
        self.unfinished = true;
        self
    }

    /// True when a bar is missed.
    pub(crate) fn misses(&self) -> bool {
        self.unfinished || self.misses_time() || self.misses_len() || self.misses_memory()
    }

    fn misses_time(&self) -> bool {
        self.most.zip(self.ratio()).is_some_and(|(most, ratio)| ratio > most)
    }

    fn misses_len(&self) -> bool {
        let lens = self.lens().zip(self.most_len);
        lens.is_some_and(|((ours, theirs), most)| ours as f64 > most * theirs as f64)
    }

    fn misses_memory(&self) -> bool {
        let (client, server) = memory(&self.ours);
        self.most_memory.is_some_and(|most| client.max(server) > most << 20)
    }

    /// Their time divides ours; both medians.
    fn ratio(&self) -> Option<f64> {
        let (_, theirs) = self.theirs.as_ref()?;
        Some(self.seconds(&self.ours)[1] / self.seconds(theirs)[1])
    }

    fn lens(&self) -> Option<(u64, u64)> {
        let (_, theirs) = self.theirs.as_ref()?;
        Some((self.ours.first()?.len, theirs.first()?.len))
    }

    /// The least, the median and the most.
    fn seconds(&self, costs: &[Cost]) -> [f64; 3] {
        let mut all: Vec<f64> =
            (costs.iter()).map(|cost| if self.of == Of::Cpu { cost.cpu } else { cost.wall }.as_secs_f64()).collect();
        all.sort_by(f64::total_cmp);
        [all[0], all[all.len() / 2], all[all.len() - 1]]
    }

    fn write_costs(&self, costs: &[Cost], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [least, median, most] = self.seconds(costs);
        let (client, server) = memory(costs);
        write!(f, "{median:.2} ({least:.2} to {most:.2}")?;
        if self.of == Of::Cpu && server > 0 {
            let [_, client, _] = spread(costs, |cost| cost.client_cpu);
            write!(f, "; client {client:.2}")?;
        }
        write!(f, ") | {:.1}", mib(client))?;
        if server > 0 {
            write!(f, ", {:.1}", mib(server))?;
        }
        write!(f, " | ")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} | {} | ", self.what, if self.of == Of::Cpu { "CPU" } else { "wall" })?;
        self.write_costs(&self.ours, f)?;
        match &self.theirs {
            Some((name, theirs)) => {
                write!(f, "{name} | ")?;
                self.write_costs(theirs, f)?;
            }
            None => write!(f, "- | | | ")?,
        }
        match self.ratio() {
            Some(ratio) => write!(f, "{ratio:.2} | ")?,
            None => write!(f, "| ")?,
        }
        let mark = |missed: bool| if missed { " **missed**" } else { "" };
        let mut bars = Vec::new();
        if let Some(most) = self.most {
            bars.push(format!("<= {most:.2}{}", mark(self.misses_time())));
        }
        if let (Some(most), Some((ours, theirs))) = (self.most_len, self.lens()) {
            let missed = mark(self.misses_len());
            bars.push(format!("{ours} B against {theirs} B, <= {most:.2} times{missed}"));
        }
        if let Some(most) = self.most_memory {
            bars.push(format!("<= {most} MiB{}", mark(self.misses_memory())));
        }
        if self.unfinished {
            bars.push("**no end**".to_owned());
        }
        write!(f, "{} |", bars.join("; "))
    }
}

/// The least, the median and the most, in seconds.
fn spread(costs: &[Cost], of: impl Fn(&Cost) -> Duration) -> [f64; 3] {
    let mut all: Vec<f64> = costs.iter().map(|cost| of(cost).as_secs_f64()).collect();
    all.sort_by(f64::total_cmp);
    [all[0], all[all.len() / 2], all[all.len() - 1]]
}

/// The most memory that a client and a server had in any run, in bytes.
fn memory(costs: &[Cost]) -> (u64, u64) {
    let most = |of: fn(&Cost) -> u64| costs.iter().map(of).max().unwrap_or(0);
    (most(|cost| cost.client), most(|cost| cost.server))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(cpu_ms: &[u64], len: u64) -> Vec<Cost> {
        let cost = |ms: &u64| Cost { cpu: Duration::from_millis(*ms), len, client: 40 << 20, ..Cost::default() };
        cpu_ms.iter().map(cost).collect()
    }

    #[test]
    fn each_bar_is_missed_on_its_own() {
        let row = Row::new("x", Of::Cpu, costs(&[900, 300, 700], 105)).beside("other", &costs(&[1000], 100));
        assert!(!row.clone().most(0.7).misses() && row.clone().most(0.69).misses());
        assert!(!row.clone().most_len(1.05).misses() && row.clone().most_len(1.04).misses());
        assert!(!row.clone().most_memory(40, false).misses() && row.clone().most_memory(39, false).misses());
        assert!(!row.clone().most_memory(39, true).misses(), "small files say nothing");
        assert!(row.clone().unfinished().misses());
        assert!(row.to_string().contains("0.70 (0.30 to 0.90)"), "{row}");
    }

    #[test]
    fn nothing_beside_it_is_no_miss() {
        let row = Row::new("x", Of::Wall, costs(&[1], 1)).beside("other", &[]).most(0.0).most_len(0.0);
        assert!(!row.misses(), "{row}");
    }
}
