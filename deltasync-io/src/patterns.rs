//! Patterns of a filter and lines of ignore files, as git reads them.
//!
//! The crate `ignore` reads a line and matches all of them at once, in time that no pattern makes grow beyond the product
//! of their length and the path's. It knows alternatives, `{a,b}`, which git does not: braces stand for themselves here.

use deltasync_proto::Filter;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// A pattern that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} {reason}")]
pub struct InvalidPattern {
    /// The pattern, as a line of a `.gitignore`.
    pub pattern: String,
    /// What is wrong with it, for people.
    pub reason: String,
}

/// Looks whether a filter's patterns mean something, before they are sent to a peer.
///
/// # Errors
///
/// The first [`InvalidPattern`], or that all of them together are too large to be matched.
pub fn check_filter(filter: &Filter) -> Result<(), InvalidPattern> {
    for line in filter.patterns() {
        let invalid = |reason: &str| InvalidPattern { pattern: line.clone(), reason: reason.to_owned() };
        let mut one = Lines::default();
        one.add(line).map_err(|reason| invalid(&reason))?;
        if one.build().map_err(|reason| invalid(&reason))?.is_empty() {
            return Err(invalid("is a comment or matches nothing"));
        }
    }
    compile(filter).map(drop)
}

/// What matches a filter's patterns, at the top of a tree.
pub(crate) fn compile(filter: &Filter) -> Result<Gitignore, InvalidPattern> {
    let mut lines = Lines::default();
    for line in filter.patterns() {
        lines.add(line).map_err(|reason| InvalidPattern { pattern: line.clone(), reason })?;
    }
    let all = || InvalidPattern { pattern: filter.patterns().join(" "), reason: String::new() };
    lines.build().map_err(|reason| InvalidPattern { reason, ..all() })
}

/// Lines that are read one by one, the later ones counting more.
pub(crate) struct Lines(GitignoreBuilder);

impl Default for Lines {
    fn default() -> Self {
        Self(GitignoreBuilder::new(""))
    }
}

impl Lines {
    /// Adds one; what is wrong with it, if it means nothing.
    pub(crate) fn add(&mut self, line: &str) -> Result<(), String> {
        // A class that is not closed is looked for from every bracket on.
        if line.len() > Filter::PATTERN_MAX {
            return Err(format!("has over {} bytes", Filter::PATTERN_MAX));
        }
        self.0.add_line(None, &plain_braces(line)).map(drop).map_err(|error| reason(&error))
    }

    /// What matches them; what is wrong with them, if they are too much together.
    pub(crate) fn build(&self) -> Result<Gitignore, String> {
        self.0.build().map_err(|error| reason(&error))
    }
}

fn reason(error: &ignore::Error) -> String {
    match error {
        ignore::Error::Glob { err, .. } => format!("is not valid: {err}"),
        other => other.to_string(),
    }
}

/// The line with a backslash before each brace that has none.
fn plain_braces(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut is_escaped = false;
    for letter in line.chars() {
        if matches!(letter, '{' | '}') && !is_escaped {
            out.push('\\');
        }
        is_escaped = letter == '\\' && !is_escaped;
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn matches(pattern: &str, path: &str, is_directory: bool) -> bool {
        let filter = Filter::default().exclude(pattern).expect("a line");
        check_filter(&filter).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        compile(&filter).expect("valid").matched(path, is_directory).is_ignore()
    }

    #[test]
    fn patterns_mean_what_git_says() {
        for (pattern, path, is_directory, expected) in [
            ("*.o", "a.o", false, true),
            ("*.o", "deep/down/a.o", false, true),
            ("/*.o", "deep/a.o", false, false),
            ("/a.o", "a.o", false, true),
            ("a/b", "a/b", false, true),
            ("a/b", "x/a/b", false, false),
            ("**/a/b", "x/a/b", false, true),
            ("a/**/b", "a/x/y/b", false, true),
            ("a/**", "a", true, false),
            ("a/**", "a/b", false, true),
            ("build/", "build", true, true),
            ("build/", "build", false, false),
            ("a?c", "abc", false, true),
            ("a?c", "a/c", false, false),
            ("[a-c]x", "bx", false, true),
            ("[!a-c]x", "bx", false, false),
            ("\\#x", "#x", false, true),
            ("\\!x", "!x", false, true),
            ("x ", "x", false, true),
            ("{a,b}", "a", false, false),
            ("{a,b}", "{a,b}", false, true),
            ("\\{a}", "{a}", false, true),
            ("[a", "[a", false, true),
        ] {
            assert_eq!(matches(pattern, path, is_directory), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused_by_its_name() {
        for wrong in ["#x", " ", "/", "[z-a]", "x\\"] {
            let filter = Filter::default().exclude(wrong).expect("a line");
            let error = check_filter(&filter).expect_err(wrong);
            assert_eq!(error.pattern, wrong);
            assert!(error.to_string().starts_with(&format!("the pattern {wrong:?} ")), "{error}");
        }
    }

    #[test]
    fn hostile_patterns_cost_little() {
        let most = Filter::BYTES_MAX;
        let repeated = |unit: &str, len: usize| unit.repeat(len / unit.len());
        let (long, short) = (Filter::PATTERN_MAX, most / Filter::PATTERNS_MAX);
        for unit in ["*a", "?", "[", "[!a]", "**/", "{a,", "*a?", "[[:alpha:]]", "\u{e9}", "*?[a-z]"] {
            for len in [long, short] {
                let pattern = repeated(unit, len);
                let mut filter = Filter::default();
                while let Ok(more) = filter.clone().exclude(&pattern) {
                    filter = more;
                }
                let begun = Instant::now();
                // Some of them are too much together, which is said.
                let Ok(rules) = compile(&filter) else { continue };
                let compiled = begun.elapsed();
                let begun = Instant::now();
                for path in 0..20u32 {
                    let name = format!("{}{path}", "aab".repeat(80));
                    let _ = rules.matched([&*name; 8].join("/"), false);
                }
                let matched = begun.elapsed();
                let most = Duration::from_secs(10);
                assert!(compiled < most && matched < most, "{unit} {len}: {compiled:?}, {matched:?}");
            }
        }
    }
}
