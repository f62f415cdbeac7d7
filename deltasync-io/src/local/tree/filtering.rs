//! Which entries of a tree take part: a filter's patterns, and the ignore files of the tree where they count.
//!
//! The patterns of the user come first; where none of them matches, the ignore files of the directory decide, then those of
//! the one above, up to the top of the tree. What is in an excluded directory is not looked at.
//!
//! Ignore files come from whoever filled the tree. So their size is bounded, how many of them count at once, and the time
//! that all matching may take. A line that means nothing is told, and matches nothing, as with git.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use deltasync_core::{LimitExceeded, Name, RelPath, tree_order};
use deltasync_proto::{FaultKind, Filter, StorageFault};
use ignore::gitignore::Gitignore;

use crate::fault::fault;
use crate::patterns::{Lines, compile};

/// The names of ignore files; what the later one says counts more.
pub(super) const IGNORE_FILES: [&[u8]; 2] = [b".gitignore", b".deltasyncignore"];

/// The longest ignore file, in bytes.
pub(super) const FILE_MAX: u64 = 64 << 10;
/// The most bytes of ignore files that count at once: those of a directory and of all above it.
const BYTES_MAX: u64 = 256 << 10;
/// In how many of these directories there may be some.
const LEVELS_MAX: u64 = 32;
/// How many lines of a directory's ignore files are told that mean nothing.
const TOLD: usize = 5;
/// How long reading patterns and matching them may take for one tree: it takes a microsecond an entry.
const TIME_MAX: Duration = Duration::from_secs(30);

/// The rules that count on the way through a tree.
#[derive(Debug)]
pub(super) struct Filtering {
    patterns: Gitignore,
    ignore_files: bool,
    /// Those of the directories on the way that have some, the deepest last.
    levels: Vec<Level>,
    spent: Duration,
}

#[derive(Debug)]
struct Level {
    directory: RelPath,
    rules: Gitignore,
    bytes: u64,
}

impl Filtering {
    /// Nothing is looked at yet.
    ///
    /// # Errors
    ///
    /// A fault that names a pattern which means nothing.
    pub(super) fn begin(filter: &Filter, at: &RelPath) -> Result<Self, StorageFault> {
        let begun = Instant::now();
        let patterns = compile(filter).map_err(|error| fault(FaultKind::Other, at, error))?;
        let ignore_files = filter.has_ignore_files();
        Ok(Self { patterns, ignore_files, levels: Vec::new(), spent: begun.elapsed() })
    }

    /// True for the name of a file that is to be given to [`Filtering::enter`].
    pub(super) fn reads(&self, name: &Name) -> bool {
        self.ignore_files && IGNORE_FILES.contains(&name.as_bytes())
    }

    /// Goes into a directory with these ignore files, in the order of [`IGNORE_FILES`]. Returns the first
    /// lines that mean nothing, each as the index of its file, its number from 1 and what is wrong with it.
    ///
    /// # Errors
    ///
    /// A fault of kind [`FaultKind::TooLarge`] when they are too much.
    pub(super) fn enter(
        &mut self,
        directory: &RelPath,
        files: &[Vec<u8>],
    ) -> Result<Vec<(usize, usize, String)>, StorageFault> {
        self.leave(directory);
        let begun = Instant::now();
        let mut wrong = Vec::new();
        let mut lines = Lines::default();
        for (index, file) in files.iter().enumerate() {
            let text = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
            for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let line = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned());
                if let Err(reason) = line.and_then(|line| lines.add(line))
                    && wrong.len() < TOLD
                {
                    wrong.push((index, number + 1, reason));
                }
            }
        }
        let too_large = |what: String| fault(FaultKind::TooLarge, directory, what);
        let rules = lines.build().map_err(|reason| too_large(format!("the ignore files here: {reason}")))?;
        if !rules.is_empty() {
            let bytes = files.iter().map(|file| file.len() as u64).sum::<u64>();
            let all = self.levels.iter().map(|level| level.bytes).sum::<u64>() + bytes;
            let levels = self.levels.len() as u64 + 1;
            LimitExceeded::check("bytes of ignore files on the way", all, BYTES_MAX)
                .and_then(|()| LimitExceeded::check("directories with ignore files on the way", levels, LEVELS_MAX))
                .map_err(|error| too_large(error.to_string()))?;
            self.levels.push(Level { directory: directory.clone(), rules, bytes });
        }
        self.spend(directory, begun)?;
        Ok(wrong)
    }

    /// True when this entry does not take part. The directory that holds it does, and was entered.
    ///
    /// # Errors
    ///
    /// A fault of kind [`FaultKind::TooLarge`] when all the matching has taken too long.
    pub(super) fn excludes(&mut self, path: &RelPath, is_directory: bool) -> Result<bool, StorageFault> {
        self.leave(path);
        let begun = Instant::now();
        let below = |directory: &RelPath| match directory.as_bytes().len() {
            0 => OsStr::from_bytes(path.as_bytes()),
            len => OsStr::from_bytes(&path.as_bytes()[len + 1..]),
        };
        let mut found = self.patterns.matched(below(&RelPath::ROOT), is_directory);
        for level in self.levels.iter().rev() {
            found = found.or(level.rules.matched(below(&level.directory), is_directory));
        }
        let excluded = found.is_ignore();
        self.spend(path, begun)?;
        Ok(excluded)
    }

    /// Only the rules of what holds this path count.
    fn leave(&mut self, path: &RelPath) {
        while self.levels.pop_if(|level| !level.directory.holds(path)).is_some() {}
    }

    fn spend(&mut self, path: &RelPath, begun: Instant) -> Result<(), StorageFault> {
        self.spent += begun.elapsed();
        if self.spent > TIME_MAX {
            let what = format!("matching patterns has taken over {} s", TIME_MAX.as_secs());
            return Err(fault(FaultKind::TooLarge, path, what));
        }
        Ok(())
    }
}

/// The entries that a walk came by and left out by its filter, in the order of the tree.
#[derive(Debug, Default)]
pub(super) struct Excluded(Vec<RelPath>);

impl Excluded {
    /// Adds the next one.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] beyond `most` of them.
    pub(super) fn push(&mut self, path: RelPath, most: usize) -> Result<(), LimitExceeded> {
        LimitExceeded::check("excluded entries", self.0.len() as u64 + 1, most as u64)?;
        self.0.push(path);
        Ok(())
    }

    /// True for one of them, and for what is in one.
    pub(super) fn covers(&self, path: &RelPath) -> bool {
        let at = self.0.partition_point(|excluded| tree_order(excluded, path).is_le());
        at.checked_sub(1).is_some_and(|last| self.0[last] == *path || self.0[last].holds(path))
    }

    /// True for a directory in which one of them is.
    pub(super) fn are_in(&self, directory: &RelPath) -> bool {
        let at = self.0.partition_point(|excluded| tree_order(excluded, directory).is_le());
        self.0.get(at).is_some_and(|next| directory.holds(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> RelPath {
        RelPath::new(path.as_bytes()).expect("a path")
    }

    fn filtering(filter: Filter) -> Filtering {
        Filtering::begin(&filter, &RelPath::ROOT).expect("valid patterns")
    }

    #[test]
    fn patterns_come_before_ignore_files_and_near_ones_before_far_ones() {
        let filter = Filter::default().exclude("*.o").and_then(|filter| filter.include("keep.*"));
        let mut rules = filtering(filter.expect("valid").ignore_files(true));
        let enter = |rules: &mut Filtering, at: &str, files: &[&[u8]]| {
            let files: Vec<_> = files.iter().map(|file| file.to_vec()).collect();
            rules.enter(&path(at), &files).expect("small")
        };
        let told = enter(&mut rules, "", &[b"\xef\xbb\xbf*.log\r\n/top\n!a.o\nkeep.x\n", b"!b.log"]);
        assert!(told.is_empty());
        let check = |rules: &mut Filtering, at: &str, is_directory, expected| {
            assert_eq!(rules.excludes(&path(at), is_directory).expect("quick"), expected, "{at}");
        };
        for (at, expected) in
            [("a.o", true), ("keep.o", false), ("keep.x", false), ("x.log", true), ("b.log", false), ("top", true)]
        {
            check(&mut rules, at, false, expected);
        }
        enter(&mut rules, "d", &[b"!x.log\n/top\ninner/\n"]);
        for (at, is_directory, expected) in [
            ("d/x.log", false, false),
            ("d/y.log", false, true),
            ("d/top", false, true),
            ("d/inner", true, true),
            ("d/inner", false, false),
            ("d/e/top", false, false),
        ] {
            check(&mut rules, at, is_directory, expected);
        }
        // Left again.
        check(&mut rules, "d-", false, false);
        check(&mut rules, "e/x.log", false, true);
        assert_eq!(rules.levels.len(), 1);
    }

    #[test]
    fn lines_that_mean_nothing_are_told_and_the_rest_counts() {
        let mut rules = filtering(Filter::default().ignore_files(true));
        let long = "x".repeat(Filter::PATTERN_MAX + 1);
        let file = [b"a\n[z-a]\n\xff\n# comment\n\n", long.as_bytes(), b"\nb"].concat();
        let told = rules.enter(&RelPath::ROOT, &[file]).expect("small");
        assert_eq!(told.iter().map(|(file, line, _)| (*file, *line)).collect::<Vec<_>>(), [(0, 2), (0, 3), (0, 6)]);
        for (at, expected) in [("a", true), ("b", true), ("c", false)] {
            assert_eq!(rules.excludes(&path(at), false).expect("quick"), expected, "{at}");
        }
    }

    #[test]
    fn ignore_files_have_limits() {
        let mut rules = filtering(Filter::default().ignore_files(true));
        let mut at = RelPath::ROOT;
        let into = |at: &RelPath| at.join(&Name::new(*b"d").expect("a name")).expect("short");
        for _ in 0..LEVELS_MAX {
            rules.enter(&at, &[b"x".to_vec()]).expect("few");
            at = into(&at);
        }
        assert_eq!(rules.enter(&at, &[b"x".to_vec()]).expect_err("too many").kind, FaultKind::TooLarge);
        assert!(rules.enter(&at, &[b"# nothing".to_vec()]).is_ok());
        let mut rules = filtering(Filter::default().ignore_files(true));
        let mut at = RelPath::ROOT;
        let long = [b"# ".repeat(FILE_MAX as usize / 2 - 1), b"\nx".to_vec()].concat();
        for _ in 0..BYTES_MAX / FILE_MAX {
            rules.enter(&at, std::slice::from_ref(&long)).expect("not too much");
            at = into(&at);
        }
        assert_eq!(rules.enter(&at, &[b"x".to_vec()]).expect_err("too much").kind, FaultKind::TooLarge);
        rules.spent = TIME_MAX;
        assert_eq!(rules.excludes(&at, true).expect_err("too slow").kind, FaultKind::TooLarge);
    }

    #[test]
    fn what_is_excluded_covers_what_is_in_it() {
        let mut excluded = Excluded::default();
        for at in ["a/x", "b", "b/", "c/d/e"].iter().filter_map(|at| RelPath::new(at.as_bytes()).ok()) {
            excluded.push(at, 3).expect("few");
        }
        assert!(excluded.push(path("d"), 3).is_err());
        for (at, covered, holds) in [
            ("", false, true),
            ("a", false, true),
            ("a/x", true, false),
            ("a/x/y/z", true, false),
            ("a/y", false, false),
            ("b", true, false),
            ("b-", false, false),
            ("b/q", true, false),
            ("c", false, true),
            ("c/d", false, true),
            ("c/d/e", true, false),
            ("c/e", false, false),
            ("z", false, false),
        ] {
            assert_eq!((excluded.covers(&path(at)), excluded.are_in(&path(at))), (covered, holds), "{at}");
        }
    }
}
