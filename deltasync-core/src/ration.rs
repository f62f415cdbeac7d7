//! A bound on the strong sums that a search takes in vain.
//!
//! A weak sum of 32 bits is easily made to collide: a target of nothing but candidates would cost a strong sum, a whole
//! block of hashing, at every byte. So hashing in vain is earned by moving on, [`RATION`] bytes of it for each byte of the
//! target, up to a burst; what is not allowed is not looked up, and its bytes become literals.
//!
//! Chance alone asks for basis / 2^32 bytes of hashing for each unmatched byte, whatever the block length. Below a basis
//! of 32 GiB that stays within the ration; above, a match at a new shift may be found some blocks late.
//!
//! Invariant: what is allowed depends on the positions asked for alone, so it is the same for any split of the target.

/// How many bytes of strong sums may be computed in vain for each byte of the target.
const RATION: u64 = 8;

/// How much hashing in vain is still allowed, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Ration {
    cost: u64,
    most: u64,
    left: u64,
    /// The position in the target up to which it has been earned.
    earned: u64,
}

impl Ration {
    pub(crate) fn new(block_len: usize) -> Self {
        // Hashing a short block costs as much as one of 64 bytes and a call.
        let cost = block_len as u64 + 128;
        let most = 64 * cost + (1 << 20);
        Self { cost, most, left: most, earned: 0 }
    }

    /// True when one more strong sum may be taken at `position`, which never goes back.
    pub(crate) fn allows(&mut self, position: u64) -> bool {
        let gain = (position - self.earned).saturating_mul(RATION);
        self.left = self.left.saturating_add(gain).min(self.most);
        self.earned = position;
        self.left >= self.cost
    }

    /// Counts a strong sum that found nothing.
    pub(crate) fn spend(&mut self) {
        self.left = self.left.saturating_sub(self.cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strong_sums_in_vain_are_rationed() {
        let mut ration = Ration::new(4096);
        let granted = (0..1_000_000)
            .filter(|position| {
                ration.allows(*position) && {
                    ration.spend();
                    true
                }
            })
            .count();
        let burst = ration.most / ration.cost + 1;
        assert!(granted as u64 <= burst + 1_000_000 * RATION / ration.cost, "{granted}");
        assert!(ration.allows(2_000_000), "and earned again");
    }
}
