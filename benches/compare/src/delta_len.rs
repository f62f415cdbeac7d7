//! Counts the literal bytes of a delta in librsync's format, which fast_rsync writes too.
//!
//! Source: librsync, `prototab.c` and `command.c`: command bytes 1 to 64 are literals of that length, 65 to 68 literals
//! whose length follows in 1, 2, 4 or 8 bytes, 69 to 84 copies whose offset and length follow likewise, 0 the end.

/// How many literal bytes a delta holds.
///
/// # Panics
///
/// When it is no delta: what made it is broken.
pub(crate) fn literal_bytes(delta: &[u8]) -> u64 {
    let mut rest = delta.strip_prefix(b"rs\x026").expect("a delta begins so");
    let mut literal = 0;
    let number = |rest: &mut &[u8], width: u8| {
        let (bytes, after) = rest.split_at(1 << width);
        *rest = after;
        bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    loop {
        let (command, after) = rest.split_first().expect("a delta ends with its end command");
        rest = after;
        let len = match command {
            0 => break,
            1..=64 => u64::from(*command),
            65..=68 => number(&mut rest, command - 65),
            69..=84 => {
                number(&mut rest, (command - 69) / 4);
                number(&mut rest, (command - 69) % 4);
                continue;
            }
            _ => panic!("{command} is no command"),
        };
        literal += len;
        rest = &rest[len as usize..];
    }
    assert!(rest.is_empty(), "a delta goes on behind its end");
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_of_all_forms_are_counted_and_copies_are_not() {
        let delta = [b"rs\x026".as_slice(), &[2, 7, 7], &[65, 3, 1, 2, 3], &[69, 0, 9], &[74, 1, 0, 2, 0], &[0]];
        assert_eq!(literal_bytes(&delta.concat()), 5);
        assert_eq!(literal_bytes(b"rs\x026\0"), 0);
    }
}
