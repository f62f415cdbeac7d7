//! What the terminal can do that something is drawn on, and how wide it is.

use std::env;
use std::io::IsTerminal;
use std::os::fd::AsFd;

/// The columns of the terminal behind a stream, asked anew each time since a window may be resized; `None` where there is
/// no terminal, or one that does not know.
pub(crate) fn columns(stream: impl AsFd) -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(size.ws_col).filter(|columns| *columns > 0)
}

/// True where progress can be drawn on the standard error: on a terminal that knows how to go back in a line.
pub(crate) fn can_draw() -> bool {
    std::io::stderr().is_terminal() && env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}
