//! Text from strangers, made fit to show: a name may hold anything, what people read must not deceive them.
//!
//! Control characters, the marks that turn the direction of writing, and characters without width are written out as
//! `\u{202e}`; the rest stays as it is. What is longer than the bound is cut at a character and ends in `…`.
//!
//! Invariant: the result holds no character that [`is_hidden`] names, and at most the given number of bytes.

use std::fmt::Write;

/// The longest path that is shown, in bytes.
pub(crate) const PATH_MAX: usize = 1024;
/// The longest message that is shown, in bytes.
pub(crate) const MESSAGE_MAX: usize = 512;

const CUT: &str = "…";

/// `text` with everything hidden written out, in at most `most` bytes (at least 3).
pub(crate) fn visible(text: &str, most: usize) -> String {
    let mut out = String::new();
    // Where the text would end if it had to make room for the mark.
    let mut cut = 0;
    for c in text.chars() {
        match is_hidden(c) {
            true => write!(out, "{}", c.escape_unicode()).expect("a string takes all that is written to it"),
            false => out.push(c),
        }
        if out.len() > most {
            out.truncate(cut);
            out.push_str(CUT);
            return out;
        }
        if out.len() + CUT.len() <= most {
            cut = out.len();
        }
    }
    out
}

/// A character that cannot be seen or that changes how others are seen.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_visible(text: &str, most: usize) {
        let shown = visible(text, most);
        assert!(shown.len() <= most, "{} bytes over {most}", shown.len());
        assert!(!shown.chars().any(is_hidden), "{shown:?}");
        if shown == text {
            assert!(!text.chars().any(is_hidden));
        }
    }

    #[test]
    fn what_turns_or_hides_is_written_out() {
        assert_eq!(visible("a\u{202e}gpj.exe", 100), "a\\u{202e}gpj.exe");
        assert_eq!(visible("a\nb\u{0}\u{9b}", 100), "a\\u{a}b\\u{0}\\u{9b}");
        assert_eq!(visible("zero\u{200b}width", 100), "zero\\u{200b}width");
        assert_eq!(visible("Grüße, שלום, 日本 <b>&amp;", 100), "Grüße, שלום, 日本 <b>&amp;");
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_says_so() {
        assert_eq!(visible("abcdef", 6), "abcdef");
        assert_eq!(visible("abcdefg", 6), "abc…");
        assert_eq!(visible("ääää", 6), "ä…");
        assert_eq!(visible("\u{202e}\u{202e}", 10), "…");
        assert_eq!(visible(&"x".repeat(5000), PATH_MAX).len(), PATH_MAX);
    }

    proptest! {
        #[test]
        fn any_text_becomes_visible(text in any::<String>(), most in 3usize..60) {
            check_visible(&text, most);
        }

        #[test]
        fn any_bytes_become_visible(bytes in prop::collection::vec(any::<u8>(), 0..100), most in 3usize..60) {
            check_visible(&String::from_utf8_lossy(&bytes), most);
        }
    }
}
