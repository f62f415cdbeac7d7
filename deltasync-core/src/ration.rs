//! A bound on the sums that a search takes in vain.
//!
//! Keys and weak sums of 32 bits are easily made to collide: a target of nothing but candidates would cost sums of a whole
//! block at every byte. So work in vain is earned by moving on, some bytes of hashing for each byte of the target, up to a
//! burst; what is not allowed is not looked up, and its bytes become literals. A weak sum counts as an eighth of a strong sum
//! of as many bytes, which is about what it costs.
//!
//! Where anchors are looked up, half a byte for each: the wrong candidates that repeated headers and phrases bring in an archive
//! of programs came to a tenth of that. Where all windows roll, eight: chance alone asks for
//! basis / 2^32 bytes of hashing for each unmatched byte, whatever the block length. Below a basis of 32 GiB that stays
//! within the ration; above, a match at a new shift may be found some blocks late.
//!
//! Invariant: what is allowed depends on the positions asked for alone, so it is the same for any split of the target.

use crate::anchor::AnchorRule;

/// What a strong sum costs in weak ones.
const STRONG: u64 = 8;
/// What a step of a search among entries costs, in bytes of weak sums: most often it waits for the memory.
const STEP: u64 = 512;

/// How much hashing in vain is still allowed, in bytes of weak sums.
#[derive(Clone, Debug)]
pub(crate) struct Ration {
    /// What must be left for a block to be looked at.
    least: u64,
    /// What is earned by a byte of the target.
    rate: u64,
    most: u64,
    left: u64,
    /// The position in the target up to which it has been earned.
    earned: u64,
}

impl Ration {
    pub(crate) fn new(block_len: usize, rule: AnchorRule) -> Self {
        let least = STRONG * cost(block_len);
        let rate = if rule.any() { STRONG / 2 } else { STRONG * 8 };
        let most = 64 * least + STRONG * (1 << 20);
        Self { least, rate, most, left: most, earned: 0 }
    }

    /// True when one more block may be looked at on account of `position`, which never goes back.
    pub(crate) fn allows(&mut self, position: u64) -> bool {
        let gain = (position - self.earned).saturating_mul(self.rate);
        self.left = self.left.saturating_add(gain).min(self.most);
        self.earned = position;
        self.left >= self.least
    }

    /// Counts a strong sum of `len` bytes that found nothing.
    pub(crate) fn spend_strong(&mut self, len: usize) {
        self.left = self.left.saturating_sub(STRONG * cost(len));
    }

    /// Counts a search among so many entries: of a single one nothing but the call.
    pub(crate) fn spend_search(&mut self, entries: usize) {
        let steps = u64::from(entries.checked_ilog2().unwrap_or(0));
        self.left = self.left.saturating_sub(cost(0) + STEP * steps);
    }

    /// Counts a weak sum of `len` bytes that found nothing.
    pub(crate) fn spend_weak(&mut self, len: usize) {
        self.left = self.left.saturating_sub(cost(len));
    }
}

/// What hashing so many bytes costs, in bytes: short ones as much as 128 more, for the call.
const fn cost(len: usize) -> u64 {
    len as u64 + 128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_sums_in_vain_are_rationed(mut ration: Ration, spend: impl Fn(&mut Ration), cost: u64, rate: u64) {
        let mut granted = 0;
        for position in 0..1_000_000 {
            if ration.allows(position) {
                spend(&mut ration);
                granted += 1;
            }
        }
        let burst = ration.most / cost + 1;
        assert!(granted <= burst + 1_000_000 * rate / cost, "{granted}");
        assert!(granted >= 1_000_000 * rate / cost, "{granted}");
        assert!(ration.allows(2_000_000), "and earned again");
    }

    #[test]
    fn sums_in_vain_are_rationed() {
        let cost = cost(4096);
        for (rule, rate) in [(AnchorRule::new(4096), 4), (AnchorRule::none(), 64)] {
            let ration = || Ration::new(4096, rule);
            check_sums_in_vain_are_rationed(ration(), |ration| ration.spend_strong(4096), 8 * cost, rate);
            check_sums_in_vain_are_rationed(ration(), |ration| ration.spend_weak(4096), cost, rate);
            check_sums_in_vain_are_rationed(ration(), |ration| ration.spend_search(1 << 20), 128 + 20 * STEP, rate);
        }
    }
}
