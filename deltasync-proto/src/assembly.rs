//! Operations and literal bytes that came apart, put together again in portions that a planner can check.
//!
//! Operations come first and their literals when they come; a literal whose bytes are here in part is made in part. The
//! literals of a portion lie in one piece of what came, so nothing is copied.
//!
//! Invariant: portions follow the operations in order and use the literal bytes in order; literals never come before the
//! operations that want them; a frame counts as used up when all its literal bytes are, and those of all frames before it.

use alloc::collections::VecDeque;

use bytes::Bytes;
use deltasync_core::{ByteLen, Op, Ops, PlanError};

/// The most operations in one portion.
const OPS: usize = 4 << 10;

/// What has come of a delta and is not used up.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    ops: VecDeque<Op>,
    literals: VecDeque<Bytes>,
    /// How many bytes they are.
    held: usize,
    /// How many literal bytes the operations so far want beyond those that frames so far carry.
    due: u64,
    frames: VecDeque<Frame>,
}

/// A frame whose literals are not used up.
#[derive(Debug)]
struct Frame {
    payload: usize,
    literals: u64,
}

impl Assembly {
    /// Takes in a frame that carries operations and so many literal bytes, which follow when they are unpacked.
    ///
    /// # Errors
    ///
    /// [`PlanError::Literals`] when no operation so far wants all of them.
    pub(crate) fn frame(&mut self, ops: &Ops, literals: ByteLen, payload: usize) -> Result<(), PlanError> {
        let wanted = self.due.saturating_add(ops.literal_len().get());
        self.due = wanted
            .checked_sub(literals.get())
            .ok_or(PlanError::Literals { wanted: ByteLen::new(wanted), given: literals })?;
        self.ops.extend(ops.as_slice());
        self.frames.push_back(Frame { payload, literals: literals.get() });
        Ok(())
    }

    /// Takes in literal bytes.
    pub(crate) fn literals(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.held += bytes.len();
            self.literals.push_back(bytes);
        }
    }

    /// How many literal bytes wait.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// How many operations wait.
    pub(crate) fn ops_len(&self) -> usize {
        self.ops.len()
    }

    /// True when nothing waits, neither operations nor literals.
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.literals.is_empty()
    }

    /// How many literal bytes the operations that wait want, and how many wait.
    pub(crate) fn missing(&self) -> (ByteLen, ByteLen) {
        let literal = |op: &Op| if let Op::Literal { len } = op { len.get() } else { 0 };
        let wanted = self.ops.iter().fold(0u64, |sum, op| sum.saturating_add(literal(op)));
        (ByteLen::new(wanted), ByteLen::new(self.held as u64))
    }

    /// The next operations with the literals they use; `None` when the first of them wants literals that are not here.
    pub(crate) fn next(&mut self) -> Option<(Ops, Bytes)> {
        let here = self.literals.front().map_or(0, Bytes::len);
        let (mut ops, mut used) = (Ops::new(), 0);
        while ops.len() < OPS {
            match self.ops.front_mut() {
                Some(Op::Literal { len }) => {
                    let take = len.get().min((here - used) as u64);
                    if take == 0 && len.get() > 0 {
                        break;
                    }
                    ops.push(Op::Literal { len: ByteLen::new(take) });
                    used += take as usize;
                    *len = *len - ByteLen::new(take);
                    if len.get() == 0 {
                        self.ops.pop_front();
                    }
                }
                Some(copy) => {
                    ops.push(*copy);
                    self.ops.pop_front();
                }
                None => break,
            }
        }
        self.held -= used;
        let literals = match self.literals.front_mut() {
            Some(bytes) if used == bytes.len() => self.literals.pop_front().unwrap_or_default(),
            Some(bytes) => bytes.split_to(used),
            None => Bytes::new(),
        };
        (!ops.is_empty()).then_some((ops, literals))
    }

    /// So many literal bytes have been used up: calls `give` with the payload of each frame that is.
    pub(crate) fn used(&mut self, literals: ByteLen, mut give: impl FnMut(usize)) {
        let mut left = literals.get();
        while let Some(frame) = self.frames.front_mut() {
            let take = frame.literals.min(left);
            frame.literals -= take;
            left -= take;
            if frame.literals > 0 {
                return;
            }
            give(frame.payload);
            self.frames.pop_front();
        }
    }

    /// Throws everything away: calls `give` with the payload of each frame.
    pub(crate) fn clear(&mut self, mut give: impl FnMut(usize)) {
        self.ops.clear();
        self.literals.clear();
        (self.held, self.due) = (0, 0);
        self.frames.drain(..).for_each(|frame| give(frame.payload));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use deltasync_core::Offset;
    use proptest::prelude::*;

    use super::*;

    fn literal(len: u64) -> Op {
        Op::Literal { len: ByteLen::new(len) }
    }

    fn copy(from: u64, len: u64) -> Op {
        Op::Copy { from: Offset::new(from), len: ByteLen::new(len) }
    }

    /// The bytes that operations make of literals, copies as zeros.
    fn make(ops: &Ops, mut literals: &[u8]) -> Vec<u8> {
        let mut made = Vec::new();
        for op in ops.as_slice() {
            let len = op.len().get() as usize;
            if let Op::Literal { .. } = op {
                made.extend_from_slice(&literals[..len]);
                literals = &literals[len..];
            } else {
                made.resize(made.len() + len, 0);
            }
        }
        assert!(literals.is_empty());
        made
    }

    /// However the literals are cut, the portions make the same and every frame is used up once, when its turn comes.
    fn check_portions_make_the_whole(ops: &[Op], cuts: &[usize]) {
        let whole: Ops = ops.iter().copied().collect();
        let total = whole.literal_len().get() as usize;
        let literals: Vec<u8> = (0..total).map(|i| i as u8 | 1).collect();
        let mut assembly = Assembly::default();
        let (mut made, mut given) = (Vec::new(), Vec::new());
        let (mut at, mut frames) = (0, 0);
        for (i, cut) in cuts.iter().copied().chain([total]).enumerate() {
            let end = total.min(at + cut);
            let ops = if i == 0 { whole.clone() } else { Ops::new() };
            assembly.frame(&ops, ByteLen::new((end - at) as u64), i).expect("operations come first");
            assembly.literals(Bytes::copy_from_slice(&literals[at..end]));
            at = end;
            frames += 1;
            while let Some((ops, literals)) = assembly.next() {
                made.extend(make(&ops, &literals));
                assembly.used(ByteLen::of(&literals), |frame| given.push(frame));
            }
        }
        assert_eq!(made, make(&whole, &literals));
        assert!(assembly.is_empty(), "{assembly:?}");
        assembly.used(ByteLen::ZERO, |frame| given.push(frame));
        assert_eq!(given, (0..frames).collect::<Vec<_>>());
    }

    #[test]
    fn portions_make_the_whole() {
        check_portions_make_the_whole(&[], &[]);
        check_portions_make_the_whole(&[literal(10), copy(5, 3), literal(1)], &[4, 0, 6, 1]);
        check_portions_make_the_whole(&[copy(0, 9)], &[]);
    }

    #[test]
    fn what_does_not_add_up_is_told() {
        let mut assembly = Assembly::default();
        let ops: Ops = [copy(0, 1), literal(5)].into_iter().collect();
        assembly.frame(&ops, ByteLen::new(2), 7).expect("two of five");
        let more = assembly.frame(&Ops::new(), ByteLen::new(4), 8);
        let (wanted, given) = (ByteLen::new(3), ByteLen::new(4));
        assert_eq!(more, Err(PlanError::Literals { wanted, given }), "three are due");
        assembly.literals(vec![1, 2].into());
        assert_eq!(assembly.next().map(|(ops, _)| ops.len()), Some(2));
        assert_eq!(assembly.next(), None);
        assert_eq!(assembly.missing(), (ByteLen::new(3), ByteLen::ZERO));
        assembly.clear(|payload| assert_eq!(payload, 7));
        assert!(assembly.is_empty());
    }

    proptest! {
        #[test]
        fn any_cuts_make_the_whole(
            ops in proptest::collection::vec((any::<bool>(), 1u64..20), 0..20),
            cuts in proptest::collection::vec(0usize..30, 0..10),
        ) {
            let ops: Vec<Op> = ops.into_iter().map(|(is_copy, len)| match is_copy {
                true => copy(len * 1000, len),
                false => literal(len),
            }).collect();
            check_portions_make_the_whole(&ops, &cuts);
        }
    }
}
