//! The exact differ over gaps: old bytes and new ones, each put together from many places of its file.
//!
//! Where a remembered basis is at hand, only what its chunks do not share with the target has to be compared. The bytes
//! of the old gaps make one basis and those of the new gaps one target, so that what moved from one gap to another is
//! found too; what comes out is cut at the borders of the gaps and told in offsets of the whole basis.

use alloc::vec;
use alloc::vec::Vec;

use deltasync_core::{ByteLen, ExactDiffer, Limits, Offset, Op, Ops};

/// The operations for each of the slices that `new` consists of. `seams` are the ranges of the basis that `old` is put
/// together from. No slice and no seam is empty.
pub(crate) fn exact(old: &[u8], seams: &[(Offset, ByteLen)], new: &[u8], slices: &[usize]) -> Vec<Ops> {
    let mut starts = Vec::with_capacity(seams.len());
    let mut at = 0;
    for (_, len) in seams {
        starts.push(at);
        at += len.get();
    }
    let room = slices.first().map_or(0, |len| *len as u64);
    let mut cut = Cut { starts, seams, slices, made: vec![Ops::new(); slices.len()], slice: 0, room };
    for piece in ExactDiffer::new(old, new, &Limits::default()) {
        piece.ops.as_slice().iter().for_each(|op| cut.push(*op));
    }
    cut.made
}

/// Cuts operations at the borders of slices and seams.
struct Cut<'a> {
    /// Where in the old bytes each seam starts.
    starts: Vec<u64>,
    seams: &'a [(Offset, ByteLen)],
    slices: &'a [usize],
    made: Vec<Ops>,
    /// The slice that is being made, and how many bytes it still takes.
    slice: usize,
    room: u64,
}

impl Cut<'_> {
    fn push(&mut self, op: Op) {
        let mut rest = op.len().get();
        while rest > 0 {
            let done = op.len().get() - rest;
            let (part, len) = match op {
                Op::Literal { .. } => {
                    let len = rest.min(self.room);
                    (Op::Literal { len: ByteLen::new(len) }, len)
                }
                Op::Copy { from, .. } => {
                    let from = from.get() + done;
                    let seam = self.starts.partition_point(|start| *start <= from) - 1;
                    let within = from - self.starts[seam];
                    let (start, seam_len) = self.seams[seam];
                    let len = rest.min(self.room).min(seam_len.get() - within);
                    (Op::Copy { from: start + ByteLen::new(within), len: ByteLen::new(len) }, len)
                }
            };
            self.made[self.slice].push(part);
            rest -= len;
            self.room -= len;
            if self.room == 0 {
                self.slice += 1;
                self.room = self.slices.get(self.slice).map_or(0, |len| *len as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_cut_at_slices_and_seams() {
        let noise = |seed: u64, len: u64| -> Vec<u8> {
            (0..len).map(|i| ((i + seed * 1_000_003).wrapping_mul(0x9fb2_1c65_1e98_df25) >> 40) as u8).collect()
        };
        let (a, b) = (noise(1, 3000), noise(2, 5000));
        let old = [&a[..], &b].concat();
        let seams = [(Offset::new(10_000), ByteLen::new(3000)), (Offset::new(50_000), ByteLen::new(5000))];
        let new = [&a[..1000], b"something new", &a[1000..], &b].concat();
        let slices = [500, 1513, 3000, 3000];
        let made = exact(&old, &seams, &new, &slices);
        let basis = |at: u64| match at {
            10_000..13_000 => a[(at - 10_000) as usize],
            _ => b[(at - 50_000) as usize],
        };
        let (mut out, mut literals) = (Vec::new(), 0);
        for (ops, len) in made.iter().zip(slices) {
            assert_eq!((ops.copied_len() + ops.literal_len()).get(), len as u64);
            for op in ops.as_slice() {
                match *op {
                    Op::Literal { len } => {
                        let at = out.len();
                        out.extend_from_slice(&new[at..at + len.get() as usize]);
                        literals += len.get();
                    }
                    Op::Copy { from, len } => out.extend((from.get()..from.get() + len.get()).map(basis)),
                }
            }
        }
        assert_eq!(out, new);
        assert_eq!(literals, 13);
    }
}
