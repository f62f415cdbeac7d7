//! A delta checked against the basis, the announced length and the limits: what is left can be carried out blindly.
//!
//! Operations come in pieces, so the check does too: a [`Planner`] follows how much of the target has been made, turns
//! each piece into a [`Plan`], and says at the end whether the target is whole. Nobody else can make a `Plan`, so
//! whatever takes one (a storage, a patcher) need not check again.
//!
//! Invariant: every copy of a `Plan` lies within the basis, and the literals of a piece are as long as its bytes.

use alloc::vec::Vec;

use crate::{ByteLen, LimitExceeded, Limits, Offset, Op, Ops};

/// Checks the pieces of one delta in order.
#[derive(Clone, Debug)]
pub struct Planner {
    basis: ByteLen,
    target: ByteLen,
    made: ByteLen,
    limits: Limits,
}

/// One piece of a delta that fits its basis: steps in the order in which they make the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
}

/// One operation that has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Append this range of the piece's literal bytes.
    Literal {
        /// Where in the piece's literals, in bytes.
        start: usize,
        /// How many bytes.
        len: usize,
    },
    /// Append this range of the basis.
    Copy {
        /// Where in the basis.
        from: Offset,
        /// How many bytes.
        len: ByteLen,
    },
}

/// Why a delta does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A copy reaches outside the basis.
    #[error("copy of {len} bytes at offset {from} runs past the basis ({basis} bytes)")]
    PastBasis {
        /// Where the copy starts.
        from: Offset,
        /// How long it is.
        len: ByteLen,
        /// How long the basis is.
        basis: ByteLen,
    },
    /// The operations make more than was announced.
    #[error("delta makes more than the announced {target} bytes")]
    PastTarget {
        /// The announced length.
        target: ByteLen,
    },
    /// The operations end before the target is whole.
    #[error("delta makes {made} of the announced {target} bytes")]
    Short {
        /// What the operations make.
        made: ByteLen,
        /// The announced length.
        target: ByteLen,
    },
    /// The literal operations of a piece want another number of bytes than came with it.
    #[error("operations want {wanted} literal bytes, {given} came with them")]
    Literals {
        /// What the operations want.
        wanted: ByteLen,
        /// What came.
        given: ByteLen,
    },
    /// The target or a piece is larger than we allow.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

impl Planner {
    /// A planner for a target of `target` bytes made from a basis of `basis` bytes (zero when there is none).
    ///
    /// # Errors
    ///
    /// [`PlanError::Limit`] when the target is longer than `limits` allow.
    pub fn new(basis: ByteLen, target: ByteLen, limits: &Limits) -> Result<Self, PlanError> {
        LimitExceeded::check("file length", target.get(), limits.file.get())?;
        Ok(Self { basis, target, made: ByteLen::ZERO, limits: limits.clone() })
    }

    /// Checks the next operations, which came with `literals` bytes.
    ///
    /// # Errors
    ///
    /// [`PlanError`] naming the first operation that does not fit. The planner is of no use afterwards.
    ///
    /// # Security
    ///
    /// The operations may come from a hostile peer: all arithmetic is checked, and nothing is allocated beyond one step
    /// for each operation.
    pub fn plan(&mut self, ops: &Ops, literals: ByteLen) -> Result<Plan, PlanError> {
        LimitExceeded::check("operations in a piece", ops.len() as u64, self.limits.ops as u64)?;
        LimitExceeded::check("literal bytes in a piece", literals.get(), self.limits.piece as u64)?;
        let mut steps = Vec::with_capacity(ops.len());
        let mut used = ByteLen::ZERO;
        for op in ops.as_slice() {
            let made = self.made.checked_add(op.len()).filter(|made| *made <= self.target);
            self.made = made.ok_or(PlanError::PastTarget { target: self.target })?;
            match *op {
                Op::Literal { len } => {
                    // Cannot overflow: the sum of all operations is at most the target.
                    let start = used;
                    used += len;
                    if used > literals {
                        return Err(PlanError::Literals { wanted: used, given: literals });
                    }
                    let fits = "at most the bytes at hand";
                    steps
                        .push(Step::Literal { start: start.to_usize().expect(fits), len: len.to_usize().expect(fits) });
                }
                Op::Copy { from, len } => {
                    if from.checked_add(len).is_none_or(|end| end.to_len() > self.basis) {
                        return Err(PlanError::PastBasis { from, len, basis: self.basis });
                    }
                    steps.push(Step::Copy { from, len });
                }
            }
        }
        if used != literals {
            return Err(PlanError::Literals { wanted: used, given: literals });
        }
        Ok(Plan { steps })
    }

    /// How much of the target the operations so far make.
    pub const fn made(&self) -> ByteLen {
        self.made
    }

    /// `Ok` when the operations so far make the whole target.
    ///
    /// # Errors
    ///
    /// [`PlanError::Short`] otherwise.
    pub fn finish(&self) -> Result<(), PlanError> {
        if self.made == self.target { Ok(()) } else { Err(PlanError::Short { made: self.made, target: self.target }) }
    }
}

impl Plan {
    /// The steps in the order in which they make the target.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The same steps in portions that each make at most `most` bytes (at least 1), so that a copy of many gigabytes can
    /// be carried out and reported bit by bit.
    pub fn portions(self, most: ByteLen) -> Vec<Plan> {
        let most = most.max(ByteLen::new(1));
        let mut portions = Vec::new();
        let (mut steps, mut made) = (Vec::new(), ByteLen::ZERO);
        for mut step in self.steps {
            while made + step.len() > most {
                let (head, tail) = step.split_at(most - made);
                steps.extend(head);
                portions.push(Plan { steps: core::mem::take(&mut steps) });
                made = ByteLen::ZERO;
                step = tail;
            }
            made += step.len();
            steps.push(step);
        }
        if !steps.is_empty() {
            portions.push(Plan { steps });
        }
        portions
    }

    /// How many bytes the steps make.
    pub fn len(&self) -> ByteLen {
        self.steps.iter().map(Step::len).sum()
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Step {
    /// How many bytes it makes.
    pub const fn len(&self) -> ByteLen {
        match *self {
            Self::Literal { len, .. } => ByteLen::new(len as u64),
            Self::Copy { len, .. } => len,
        }
    }

    /// True for a step that makes nothing.
    pub const fn is_empty(&self) -> bool {
        self.len().get() == 0
    }

    /// The first `at` bytes, unless that is none, and the rest. `at` is shorter than the step.
    fn split_at(self, at: ByteLen) -> (Option<Step>, Step) {
        match self {
            Self::Literal { start, len } => {
                let cut = at.to_usize().expect("shorter than a step in memory");
                let head = (cut > 0).then_some(Self::Literal { start, len: cut });
                (head, Self::Literal { start: start + cut, len: len - cut })
            }
            Self::Copy { from, len } => {
                let head = (at > ByteLen::ZERO).then_some(Self::Copy { from, len: at });
                (head, Self::Copy { from: from + at, len: len - at })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn planner(basis: u64, target: u64) -> Planner {
        Planner::new(ByteLen::new(basis), ByteLen::new(target), &Limits::default()).expect("within the limits")
    }

    fn ops(list: &[Op]) -> Ops {
        list.iter().copied().collect()
    }

    const fn literal(len: u64) -> Op {
        Op::Literal { len: ByteLen::new(len) }
    }

    const fn copy(from: u64, len: u64) -> Op {
        Op::Copy { from: Offset::new(from), len: ByteLen::new(len) }
    }

    #[test]
    fn pieces_that_fit_make_the_whole_target() {
        let mut planner = planner(10, 9);
        let first = planner.plan(&ops(&[literal(2), copy(6, 4), literal(1)]), ByteLen::new(3)).expect("fits");
        assert_eq!(
            first.steps(),
            [
                Step::Literal { start: 0, len: 2 },
                Step::Copy { from: Offset::new(6), len: ByteLen::new(4) },
                Step::Literal { start: 2, len: 1 },
            ]
        );
        assert_eq!(planner.finish().expect_err("2 missing").to_string(), "delta makes 7 of the announced 9 bytes");
        planner.plan(&ops(&[copy(0, 2)]), ByteLen::ZERO).expect("fits");
        assert_eq!(planner.finish(), Ok(()));
    }

    #[test]
    fn portions_make_the_same_bytes_in_bounded_steps() {
        let ops = ops(&[literal(3), copy(0, 10), copy(2, 1), literal(4)]);
        let plan = planner(10, 18).plan(&ops, ByteLen::new(7)).expect("fits");
        for most in 1..20 {
            let portions = plan.clone().portions(ByteLen::new(most));
            assert!(portions.iter().all(|portion| (1..=most).contains(&portion.len().get())), "at most {most}");
            let bytes = |plan: &Plan| {
                let byte = |step: &Step| match *step {
                    Step::Literal { start, len } => (start..start + len).map(|i| (false, i)).collect::<Vec<_>>(),
                    Step::Copy { from, len } => (0..len.get()).map(|i| (true, (from.get() + i) as usize)).collect(),
                };
                plan.steps().iter().flat_map(byte).collect::<Vec<_>>()
            };
            assert_eq!(portions.iter().flat_map(bytes).collect::<Vec<_>>(), bytes(&plan), "at most {most}");
        }
    }

    #[test]
    fn a_copy_past_the_basis_is_refused_with_its_numbers() {
        let error = planner(10_000, 1 << 20).plan(&ops(&[copy(8192, 4096)]), ByteLen::ZERO).expect_err("past the end");
        assert_eq!(error.to_string(), "copy of 4096 bytes at offset 8192 runs past the basis (10000 bytes)");
        for (from, len) in [(u64::MAX, 1), (1, u64::MAX >> 1), (10_000, 1), (0, 10_001)] {
            let refused = planner(10_000, u64::MAX >> 20).plan(&ops(&[copy(from, len)]), ByteLen::ZERO);
            assert!(matches!(refused, Err(PlanError::PastBasis { .. } | PlanError::PastTarget { .. })), "{refused:?}");
        }
    }

    #[test]
    fn what_passes_the_target_or_its_literals_is_refused() {
        assert!(matches!(planner(10, 5).plan(&ops(&[copy(0, 6)]), ByteLen::ZERO), Err(PlanError::PastTarget { .. })));
        assert!(matches!(planner(0, 5).plan(&ops(&[literal(3)]), ByteLen::new(2)), Err(PlanError::Literals { .. })));
        assert!(matches!(planner(0, 5).plan(&ops(&[literal(2)]), ByteLen::new(3)), Err(PlanError::Literals { .. })));
        let long = ByteLen::new(u64::MAX);
        assert!(matches!(Planner::new(ByteLen::ZERO, long, &Limits::default()), Err(PlanError::Limit(_))));
    }
}
