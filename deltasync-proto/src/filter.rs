//! Which entries of a tree a transfer is of: the patterns of its user, and whether the tree's own ignore files count.
//!
//! A filter travels with the wish of a push and the request of a pull, since both ends list their tree by it: what it excludes
//! is neither sent, nor replaced or deleted. Here it is only data, within limits; whoever lists a tree knows what its
//! patterns match.
//!
//! Invariant: at most [`Filter::PATTERNS_MAX`] patterns of 1 to [`Filter::PATTERN_MAX`] bytes, [`Filter::BYTES_MAX`] in all,
//! each a line.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use deltasync_core::LimitExceeded;
use serde::{Deserialize, Serialize};

/// The rules by which entries of a tree take part or do not; by default all of them do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Option<Rules>", into = "Option<Rules>")]
pub struct Filter {
    patterns: Arc<[String]>,
    ignore_files: bool,
}

/// A filter that excludes something, as it is written.
type Rules = (Vec<String>, bool);

impl Filter {
    /// The most patterns.
    pub const PATTERNS_MAX: usize = 1000;

    /// The longest pattern, in bytes.
    pub const PATTERN_MAX: usize = 4096;

    /// The most bytes of all patterns together.
    pub const BYTES_MAX: usize = 32 << 10;

    /// Excludes what the pattern matches, which is written as a line of a `.gitignore` at the top of the tree. Of several
    /// patterns that match the last one counts.
    ///
    /// # Errors
    ///
    /// [`InvalidFilter`] when the pattern is empty or no line, starts with `!`, or a limit is passed.
    pub fn exclude(self, pattern: &str) -> Result<Self, InvalidFilter> {
        if pattern.starts_with('!') {
            return Err(InvalidFilter::Negated);
        }
        self.with(pattern.into())
    }

    /// Includes what the pattern matches, where an earlier pattern or an ignore file excludes it: not what is in a
    /// directory that stays excluded.
    ///
    /// # Errors
    ///
    /// As [`Filter::exclude`].
    pub fn include(self, pattern: &str) -> Result<Self, InvalidFilter> {
        if pattern.starts_with('!') {
            return Err(InvalidFilter::Negated);
        }
        check_line(pattern)?;
        self.with(format!("!{pattern}"))
    }

    /// Sets whether the tree's own ignore files count, at each end those that are there, behind all patterns.
    #[must_use]
    pub fn ignore_files(mut self, count: bool) -> Self {
        self.ignore_files = count;
        self
    }

    /// The patterns in order, as lines of a `.gitignore`: one that includes starts with `!`.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// True when the tree's own ignore files count.
    pub fn has_ignore_files(&self) -> bool {
        self.ignore_files
    }

    /// True when all entries take part.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && !self.ignore_files
    }

    fn with(self, line: String) -> Result<Self, InvalidFilter> {
        let patterns = self.patterns.iter().cloned().chain([line]).collect();
        Self::checked(patterns, self.ignore_files)
    }

    fn checked(patterns: Vec<String>, ignore_files: bool) -> Result<Self, InvalidFilter> {
        LimitExceeded::check("patterns of a filter", patterns.len() as u64, Self::PATTERNS_MAX as u64)?;
        patterns.iter().try_for_each(|line| check_line(line))?;
        let bytes = patterns.iter().map(|line| line.len() as u64).sum();
        LimitExceeded::check("bytes of a filter", bytes, Self::BYTES_MAX as u64)?;
        Ok(Self { patterns: patterns.into(), ignore_files })
    }
}

fn check_line(line: &str) -> Result<(), InvalidFilter> {
    if line.is_empty() || line.contains(['\n', '\r', '\0']) {
        return Err(InvalidFilter::Line);
    }
    Ok(LimitExceeded::check("bytes of a pattern", line.len() as u64, Filter::PATTERN_MAX as u64)?)
}

impl TryFrom<Option<Rules>> for Filter {
    type Error = InvalidFilter;
    fn try_from(rules: Option<Rules>) -> Result<Self, InvalidFilter> {
        let Some((patterns, ignore_files)) = rules else { return Ok(Self::default()) };
        let filter = Self::checked(patterns, ignore_files)?;
        if filter.is_empty() { Err(InvalidFilter::Nothing) } else { Ok(filter) }
    }
}

impl From<Filter> for Option<Rules> {
    fn from(filter: Filter) -> Self {
        (!filter.is_empty()).then(|| (filter.patterns.to_vec(), filter.ignore_files))
    }
}

/// Why something is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFilter {
    /// There is too much of it.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// A pattern is empty, or has a line break or a NUL in it.
    #[error("a pattern is a line, and not empty")]
    Line,
    /// A pattern to exclude or include starts with the sign for the other one.
    #[error("a pattern does not start with `!`: whether it excludes or includes is said beside it")]
    Negated,
    /// It has nothing in it, which is written otherwise.
    #[error("a filter without rules")]
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(filter: &Filter) -> Vec<u8> {
        postcard::to_allocvec(filter).expect("it can be written")
    }

    fn read(bytes: &[u8]) -> Option<Filter> {
        postcard::from_bytes(bytes).ok()
    }

    #[test]
    fn rules_keep_their_order_and_none_take_one_byte() {
        assert_eq!(written(&Filter::default()), [0]);
        assert_eq!(read(&[0]), Some(Filter::default()));
        let filter = Filter::default().exclude("*.o").and_then(|filter| filter.include("keep.o"));
        let filter = filter.expect("valid").ignore_files(true);
        assert_eq!(filter.patterns(), ["*.o", "!keep.o"]);
        assert_eq!(written(&filter), b"\x01\x02\x03*.o\x07!keep.o\x01");
        assert_eq!(read(&written(&filter)), Some(filter));
    }

    #[test]
    fn what_is_no_line_or_says_the_opposite_is_refused() {
        for wrong in ["", "a\nb", "a\rb", "a\0b", "!a", "!"] {
            assert!(Filter::default().exclude(wrong).is_err(), "{wrong:?}");
            assert!(Filter::default().include(wrong).is_err(), "{wrong:?}");
        }
        for wrong in [&b"\x01\x00\x00"[..], b"\x01\x01\x00\x00", b"\x01\x01\x01\n\x00", b"\x01\x01\x01\xff\x00"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_filter_has_limits() {
        let times =
            |count: usize, pattern: &str| (0..count).try_fold(Filter::default(), |filter, _| filter.exclude(pattern));
        let longest = "x".repeat(Filter::PATTERN_MAX);
        let full = Filter::BYTES_MAX / Filter::PATTERN_MAX;
        for (most, pattern) in [(Filter::PATTERNS_MAX, "x"), (full, &*longest)] {
            let filter = times(most, pattern).expect("as much as may be");
            assert_eq!(read(&written(&filter)).as_ref(), Some(&filter));
            assert!(matches!(filter.clone().exclude(pattern), Err(InvalidFilter::Limit(_))));
            let more: Rules = (filter.patterns().iter().cloned().chain([pattern.into()]).collect(), false);
            assert_eq!(read(&postcard::to_allocvec(&Some(more)).expect("it can be written")), None);
        }
        assert!(matches!(times(1, &(longest + "x")), Err(InvalidFilter::Limit(_))));
    }
}
