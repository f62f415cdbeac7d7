//! How numbers and names look to people.
//!
//! Names come from strangers, and a terminal obeys control characters: [`Shown`] escapes them, and the marks that turn
//! the direction of writing, wherever a name is printed. Sizes are in units of 1024 with one decimal.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use deltasync_core::Generation;
use deltasync_proto::Version;

use crate::Retries;

/// Bytes of a name or path as text that is safe to print on one line of a terminal. Not meant to be read back.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

impl<'a> Shown<'a> {
    /// A path of this machine.
    pub fn path(path: &'a Path) -> Self {
        Self(path.as_os_str().as_bytes())
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        String::from_utf8_lossy(self.0).chars().try_for_each(|c| match c {
            _ if c.is_control() => write!(f, "{}", c.escape_default()),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(f, "{}", c.escape_unicode())
            }
            _ => f.write_char(c),
        })
    }
}

/// A number of bytes as `17 B` or `5.8 KiB`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64;
        let mut unit = 0;
        // From 1023.95 on, one decimal would print as 1024.0.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

/// A whole number with a comma every three digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grouped(pub(crate) u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            let comma = i > 0 && (digits.len() - i).is_multiple_of(3);
            write!(f, "{}{digit}", if comma { "," } else { "" })?;
        }
        Ok(())
    }
}

/// A count and its noun, `1 file` or `2 files`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted(pub(crate) u64, pub(crate) &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", Grouped(self.0), self.1)
    }
}

/// Which try in a row it is, and of how many, as `2 of 5`, or as `try 2` where there is no end to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tries(pub(crate) u32, pub(crate) u32);

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Retries::ENDLESS => write!(f, "try {}", self.0),
            most => write!(f, "{} of {most}", self.0),
        }
    }
}

/// A share from 0 to 1 in per cent with one decimal, rounded down so that 100 means all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Percent(pub(crate) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A share such as 0.998 is not a round number in binary: the bit lost there is no whole tenth.
        write!(f, "{:.1} %", (self.0 * 1000.0 + 1e-9).floor() / 10.0)
    }
}

/// A version that is there, as `root R, generation 12`, or that no file is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct There<'a>(pub(crate) Option<&'a Version>);

impl fmt::Display for There<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("no file"),
            Some(Version { root, generation: Generation::ZERO }) => write!(f, "root {root}"),
            Some(Version { root, generation }) => write!(f, "root {root}, generation {}", generation.get()),
        }
    }
}

/// A span of time as `0.12 s`, `75.3 s` or `2 h 05 min`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match self.0.as_secs() {
            0..10 => write!(f, "{seconds:.2} s"),
            10..600 => write!(f, "{seconds:.1} s"),
            whole @ 600..3600 => write!(f, "{} min {:02} s", whole / 60, whole % 60),
            whole => write!(f, "{} h {:02} min", whole / 3600, whole / 60 % 60),
        }
    }
}

/// A span of time that is still growing, in whole seconds up to ten minutes, as `3 s` or `10 min 05 s`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole(pub(crate) Duration);

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..600 => write!(f, "{seconds} s"),
            _ => Span(self.0).fmt(f),
        }
    }
}

/// A time in seconds since 1970 as `2024-02-29 23:59:59`, in UTC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(pub(crate) i64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: i64 = 86_400;
        let (days, seconds) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (year, month, day) = date(days);
        write!(f, "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar carried on both ways.
///
/// Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms" (2013): years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    /// Days in 400 years, after which the calendar repeats.
    const CYCLE: i64 = 146_097;
    // Counted from a 1st of March, the leap day is the last of its year. 1970-01-01 is 719,468 days after 0000-03-01.
    let since = days.saturating_add(719_468);
    let (cycle, day) = (since.div_euclid(CYCLE), since.rem_euclid(CYCLE));
    // A leap day ends every 4th year, not the 100th, but the 400th.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March on the months have 31, 30, 31, 30, 31 days, again and again: 153 in five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(Shown(b"a\x1b[31m\n\x7f").to_string(), "a\\u{1b}[31m\\n\\u{7f}");
        assert_eq!(Shown("ab\u{202e}cd\u{9b}".as_bytes()).to_string(), "ab\\u{202e}cd\\u{9b}");
        assert_eq!(Shown("añ\u{65e5}".as_bytes()).to_string(), "añ\u{65e5}");
        assert_eq!(Shown(b"\xff").to_string(), "\u{fffd}");
    }

    #[test]
    fn sizes_have_one_decimal_and_never_1024() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (5 * 1024 + 820, "5.8 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (10 << 20, "10.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn numbers_are_grouped_and_nouns_counted() {
        assert_eq!(Grouped(0).to_string(), "0");
        assert_eq!(Grouped(999).to_string(), "999");
        assert_eq!(Grouped(10_477_568).to_string(), "10,477,568");
        assert_eq!(Counted(1, "file").to_string(), "1 file");
        assert_eq!(Counted(1000, "round trip").to_string(), "1,000 round trips");
        assert_eq!(Tries(2, 5).to_string(), "2 of 5");
        assert_eq!(Tries(2, Retries::ENDLESS).to_string(), "try 2");
    }

    #[test]
    fn only_all_of_it_is_a_hundred_per_cent() {
        assert_eq!(Percent(1.0).to_string(), "100.0 %");
        assert_eq!(Percent(0.99999).to_string(), "99.9 %");
        assert_eq!(Percent(0.998).to_string(), "99.8 %");
        assert_eq!(Percent(0.0).to_string(), "0.0 %");
    }

    #[test]
    fn spans_have_the_precision_that_matters() {
        for (millis, text) in [(123, "0.12 s"), (75_300, "75.3 s"), (600_000, "10 min 00 s"), (7_500_000, "2 h 05 min")]
        {
            assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
        }
        assert_eq!(Whole(Duration::from_millis(3999)).to_string(), "3 s");
        assert_eq!(Whole(Duration::from_secs(605)).to_string(), "10 min 05 s");
    }

    #[test]
    fn a_version_has_its_generation_where_it_is_known() {
        let root = deltasync_core::Digest::from_bytes([0xab; 32]);
        let of = |generation| Version { root, generation: Generation::new(generation) };
        let digits = "ab".repeat(32);
        assert_eq!(There(Some(&of(12_345))).to_string(), format!("root {digits}, generation 12345"));
        assert_eq!(There(Some(&of(0))).to_string(), format!("root {digits}"));
        assert_eq!(There(None).to_string(), "no file");
    }

    #[test]
    fn moments_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (4_107_456_000, "2100-02-28 00:00:00"),
            (253_402_300_799, "9999-12-31 23:59:59"),
        ] {
            assert_eq!(Moment(seconds).to_string(), text);
        }
        let _ = Moment(i64::MAX).to_string();
        let _ = Moment(i64::MIN).to_string();
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = date(-200_000);
        for days in -199_999..200_000 {
            let (year, month, day) = date(days);
            let steps = [
                (before.0, before.1, before.2 + 1) == (year, month, day),
                (before.0, before.1 + 1, 1) == (year, month, day) && before.2 >= 28,
                (before.0 + 1, 1, 1) == (year, month, day) && before.1 == 12 && before.2 == 31,
            ];
            assert!(steps.contains(&true), "{before:?} then {year}-{month}-{day}");
            before = (year, month, day);
        }
    }
}
