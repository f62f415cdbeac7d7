//! The pairs of files whose transfer is counted, and how many bytes each may take: one table for the program and the tests.
//!
//! A bound is of all bytes on the wire, both ways, and of the round trips. It was set for one pair of each kind, by what an
//! exchange of this design needs there; pairs from other seeds have the same sizes, the same number of edits and, within
//! two in a hundred, as much content, so one bound serves all seeds. Beside it stands what others need for the same:
//! rsync 3.5.0 pushing to a daemon, with its defaults and with whichever of `-z`, `-B` and their like did best, and
//! xdelta3 with both files at hand.

use crate::{Counted, Files, MakeError, fetched, files, rows};

/// A kind of change to a file.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// `W1` and so on.
    pub name: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// The most it may cost, by [`Column`]; `None` where a column says nothing new.
    pub bounds: [Option<Bound>; 3],
    /// Bytes that rsync needs, with its defaults and at its best.
    pub rsync: [u64; 2],
    /// Bytes of xdelta3's delta.
    pub xdelta3: u64,
    make: fn(u64) -> Result<Files, MakeError>,
}

/// The most that a push may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Bytes on the wire, both ways.
    pub bytes: u64,
    /// Round trips, where they are bounded.
    pub round_trips: Option<u32>,
}

/// What the client knows of the file at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Nothing: there is no shared state.
    Cold,
    /// What it was, of which the sums of its blocks are kept.
    Sums,
    /// What it was, of which a copy is kept.
    Copy,
}

impl Column {
    /// All of them, in the order of [`Workload::bounds`].
    pub const ALL: [Self; 3] = [Self::Cold, Self::Sums, Self::Copy];

    /// The name in tables and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Sums => "sums",
            Self::Copy => "copy",
        }
    }

    /// The column of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }
}

impl Bound {
    /// True when so much is not too much.
    pub fn allows(&self, counted: Counted) -> bool {
        counted.bytes <= self.bytes && self.round_trips.is_none_or(|most| counted.round_trips <= most)
    }
}

impl Workload {
    /// The pair of this kind from a seed.
    ///
    /// # Errors
    ///
    /// [`MakeError`] where another program makes it and could not.
    pub fn files(&self, seed: u64) -> Result<Files, MakeError> {
        (self.make)(seed)
    }

    /// The most that a push may cost in this column.
    pub const fn bound(&self, column: Column) -> Option<Bound> {
        self.bounds[column as usize]
    }
}

/// The workload of this name.
pub fn workload(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name.eq_ignore_ascii_case(name))
}

const fn most(bytes: u64, round_trips: u32) -> Option<Bound> {
    Some(Bound { bytes, round_trips: Some(round_trips) })
}

const fn bytes(bytes: u64) -> Option<Bound> {
    Some(Bound { bytes, round_trips: None })
}

/// All of them.
pub static WORKLOADS: [Workload; 14] = [
    Workload {
        name: "W1",
        what: "10 MiB, a block of 4 KiB replaced",
        bounds: [most(5_200, 2), most(4_600, 1), most(4_400, 1)],
        rsync: [42_488, 19_873],
        xdelta3: 4_238,
        make: files::one_block_replaced,
    },
    Workload {
        name: "W2",
        what: "10 MiB, one byte changed",
        bounds: [most(900, 2), most(500, 1), most(300, 1)],
        rsync: [36_032, 19_873],
        xdelta3: 110,
        make: files::one_byte_changed,
    },
    Workload {
        name: "W3",
        what: "10 MiB, one byte inserted at the front",
        bounds: [most(800, 2), most(400, 1), most(250, 1)],
        rsync: [32_805, 1_164],
        xdelta3: 73,
        make: files::one_byte_inserted,
    },
    Workload {
        name: "W4",
        what: "100 MiB, 20 edits of up to 2,000 B",
        bounds: [most(24_500, 2), most(20_000, 1), most(17_000, 1)],
        rsync: [331_394, 273_241],
        xdelta3: 16_779,
        make: files::twenty_edits,
    },
    Workload {
        name: "W5",
        what: "1 GiB, 200 overwrites of 100 B",
        bounds: [most(100_000, 2), most(45_000, 1), most(23_000, 1)],
        rsync: [6_915_207, 2_930_000],
        xdelta3: 26_900,
        make: files::overwrites,
    },
    Workload {
        name: "W6",
        what: "100 MiB, unchanged",
        bounds: [most(1_600, 1), most(200, 1), most(200, 1)],
        rsync: [112_994, 315],
        xdelta3: 379,
        make: files::unchanged,
    },
    Workload {
        name: "W7",
        what: "100 MiB, 1 MiB appended",
        bounds: [most(1_054_500, 3), most(1_050_500, 2), most(1_049_500, 2)],
        rsync: [1_161_826, 1_057_187],
        xdelta3: 1_049_116,
        make: files::appended,
    },
    Workload {
        name: "W8",
        what: "20 MiB, halves swapped and 10 edits",
        bounds: [most(9_000, 4), bytes(9_000), most(3_500, 1)],
        rsync: [102_048, 73_416],
        xdelta3: 2_759,
        make: files::halves_swapped,
    },
    Workload {
        name: "W9",
        what: "100 MiB of text rows, 500 edited",
        bounds: [most(110_000, 3), most(35_000, 1), most(8_500, 1)],
        rsync: [5_130_489, 866_684],
        xdelta3: 8_062,
        make: rows::rows_edited,
    },
    Workload {
        name: "W10",
        what: "a SQLite file of 90 MB, 1,000 statements",
        bounds: [most(540_000, 3), most(300_000, 2), most(82_000, 2)],
        rsync: [12_319_438, 1_549_514],
        xdelta3: 73_564,
        make: fetched::database,
    },
    Workload {
        name: "W11",
        what: "two releases of a package as tar, all headers new",
        bounds: [most(950_000, 4), most(300_000, 2), most(165_000, 2)],
        rsync: [36_382_228, 1_287_729],
        xdelta3: 187_296,
        make: fetched::releases,
    },
    Workload {
        name: "W14",
        what: "100 MiB, unrelated",
        bounds: [most(104_880_000, 3), None, None],
        rsync: [104_955_230, 104_883_547],
        xdelta3: 104_864_401,
        make: files::unrelated,
    },
    Workload {
        name: "W15a",
        what: "100 MiB of zeros, 20 bytes changed",
        bounds: [most(4_500, 2), bytes(4_500), most(900, 1)],
        rsync: [215_446, 5_550],
        xdelta3: 490,
        make: files::zeros_edited,
    },
    Workload {
        name: "W15b",
        what: "100 MiB of a pattern of 1,000 B, 20 edits",
        bounds: [most(4_500, 2), bytes(4_500), most(1_600, 1)],
        rsync: [246_007, 7_312],
        xdelta3: 1_252,
        make: files::pattern_edited,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_workload_and_no_other() {
        for known in &WORKLOADS {
            assert_eq!(workload(&known.name.to_lowercase()).map(|found| found.what), Some(known.what));
        }
        assert!(workload("W12").is_none() && workload("W").is_none());
    }

    #[test]
    fn a_bound_is_of_bytes_and_of_round_trips() {
        let counted = |bytes, round_trips| Counted { bytes, round_trips };
        let both = most(100, 2).expect("a bound");
        assert!(both.allows(counted(100, 2)) && !both.allows(counted(101, 2)) && !both.allows(counted(100, 3)));
        let free = bytes(100).expect("a bound");
        assert!(free.allows(counted(100, 9)) && !free.allows(counted(101, 1)));
    }

    #[test]
    fn knowing_more_never_allows_more() {
        for workload in &WORKLOADS {
            let bounds: Vec<_> = workload.bounds.iter().flatten().collect();
            assert!(bounds.is_sorted_by(|more, less| less.bytes <= more.bytes), "{}", workload.name);
            assert!(workload.bounds[0].is_some(), "{}", workload.name);
        }
    }
}
