//! The inputs of the benches: what users have, made from a seed so that every run measures the same bytes.
//!
//! Benches are named `stage/workload/size`, give their throughput in bytes of the target (or of the only input), and
//! print beside the time what it buys.

/// How a target came from its basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// The target is the basis.
    Identical,
    /// One byte in the middle is another.
    OneByteChanged,
    /// Every 200 kB (and at least once) a hundred bytes are others, or gone, or new, in turn.
    ScatteredEdits,
    /// One byte more at the front.
    InsertionAtTheFront,
    /// Eight regions in another order.
    MovedRegions,
    /// Nothing in common.
    Unrelated,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Identical,
        Self::OneByteChanged,
        Self::ScatteredEdits,
        Self::InsertionAtTheFront,
        Self::MovedRegions,
        Self::Unrelated,
    ];

    /// The name in the middle of a bench's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::OneByteChanged => "one byte changed",
            Self::ScatteredEdits => "scattered edits",
            Self::InsertionAtTheFront => "insertion at the front",
            Self::MovedRegions => "moved regions",
            Self::Unrelated => "unrelated",
        }
    }

    /// The target that comes from `basis`.
    pub fn target(self, basis: &[u8]) -> Vec<u8> {
        match self {
            Self::Identical => basis.to_vec(),
            Self::OneByteChanged => {
                let mut target = basis.to_vec();
                if let Some(byte) = target.get_mut(basis.len() / 2) {
                    *byte ^= 1;
                }
                target
            }
            Self::ScatteredEdits => scattered_edits(basis),
            Self::InsertionAtTheFront => [&[0x5a], basis].concat(),
            Self::MovedRegions => {
                let regions: Vec<_> = basis.chunks(basis.len().div_ceil(8).max(1)).collect();
                let order = [3, 0, 6, 1, 7, 2, 5, 4];
                order.into_iter().filter_map(|region| regions.get(region)).copied().collect::<Vec<_>>().concat()
            }
            Self::Unrelated => random(basis.len(), 0xBAD),
        }
    }
}

fn scattered_edits(basis: &[u8]) -> Vec<u8> {
    const EVERY: usize = 200_000;
    const EDIT: usize = 100;
    let new = random(EDIT, 0xED17);
    let mut target = Vec::with_capacity(basis.len() + basis.len() / 1000);
    for (i, stretch) in basis.chunks(EVERY).enumerate() {
        let (before, rest) = stretch.split_at(stretch.len() / 2);
        target.extend_from_slice(before);
        let replaced = EDIT.min(rest.len());
        match i % 3 {
            0 => target.extend_from_slice(&[&new[..replaced], &rest[replaced..]].concat()),
            1 => target.extend_from_slice(&rest[replaced..]),
            _ => target.extend_from_slice(&[&new, rest].concat()),
        }
    }
    target
}

/// `len` bytes that do not compress, the same for the same seed.
pub fn random(len: usize, seed: u64) -> Vec<u8> {
    // SplitMix64 (Steele, Lea, Flood, 2014).
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    };
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A size as it stands at the end of a bench's name.
pub fn size_name(len: usize) -> String {
    match len {
        0..1024 => format!("{len} B"),
        1024..0x10_0000 => format!("{} KiB", len >> 10),
        _ => format!("{} MiB", len >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_what_their_names_say() {
        let basis = random(500_001, 1);
        let target = |workload: Workload| workload.target(&basis);
        assert_eq!(target(Workload::Identical), basis);
        let differing = basis.iter().zip(target(Workload::OneByteChanged)).filter(|(old, new)| **old != *new).count();
        assert_eq!(differing, 1);
        assert_eq!(target(Workload::InsertionAtTheFront)[1..], basis);
        assert_eq!(target(Workload::ScatteredEdits).len(), basis.len() - 100 + 100, "one gone, one new");
        assert_eq!(target(Workload::MovedRegions).len(), basis.len());
        for workload in Workload::ALL {
            workload.target(&[]);
        }
    }

    #[test]
    fn sizes_are_named_in_their_own_unit() {
        assert_eq!([10, 4096, 64 << 20].map(size_name), ["10 B", "4 KiB", "64 MiB"]);
    }
}
