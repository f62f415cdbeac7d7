//! What a terminal gets, by one of a given width: nothing wraps, nothing is coloured that must not be.

mod common;

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Ran, Scratch, Server, command, noise};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

/// A terminal, and what was written to it.
struct Terminal {
    ours: OwnedFd,
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Starts a program on one of so many columns.
    fn start(columns: u16, command: &mut Command, is_stdout: bool) -> (Self, Child) {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("ours");
        let name = ptsname(&ours, Vec::new()).expect("it has a name").into_string().expect("text");
        let terminal = || File::options().read(true).write(true).open(&name).expect("unlocked");
        resize(&ours, columns);
        let theirs = terminal();
        assert_eq!(tcgetwinsize(&theirs).expect("a terminal").ws_col, columns);
        let mut reading = File::from(ours.try_clone().expect("a descriptor"));
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let out = Arc::clone(&bytes);
        // It ends with an error when the last program has closed its end.
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(got @ 1..) = reading.read(&mut piece) {
                out.lock().expect("no panic").extend(&piece[..got]);
            }
        });
        command.env("TERM", command_term(command)).stderr(theirs);
        command.stdout(if is_stdout { Stdio::from(terminal()) } else { Stdio::piped() });
        let child = command.spawn().expect("the program starts");
        // The end that the program has been given must not stay open here.
        command.stderr(Stdio::null()).stdout(Stdio::null());
        (Self { ours, bytes, reader }, child)
    }

    fn so_far(&self) -> usize {
        self.bytes.lock().expect("no panic").len()
    }

    /// All that was written, once the program has ended.
    fn read(self) -> Vec<u8> {
        self.reader.join().expect("no panic");
        std::mem::take(&mut *self.bytes.lock().expect("no panic"))
    }
}

fn command_term(command: &Command) -> String {
    let given = command.get_envs().find(|(name, _)| *name == "TERM").and_then(|(_, value)| value);
    given.map_or("xterm-256color".into(), |value| value.to_string_lossy().into_owned())
}

fn resize(terminal: &OwnedFd, columns: u16) {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a terminal");
}

/// How many columns the longest line takes, and how many sequences set a colour or a style.
fn look(bytes: &[u8]) -> (usize, usize) {
    let text = String::from_utf8_lossy(bytes);
    let (mut column, mut widest, mut styles) = (0_usize, 0, 0);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' | '\n' => column = 0,
            '\x1b' => {
                assert_eq!(chars.next(), Some('['), "{text:?}");
                let end = chars.by_ref().find(|c| ('@'..='~').contains(c));
                styles += usize::from(end == Some('m'));
                assert!(matches!(end, Some('m' | 'K' | 'A' | 'B' | 'C' | 'D' | 'h' | 'l' | 'J' | 'G')), "{text:?}");
            }
            _ => column += 1,
        }
        widest = widest.max(column);
    }
    (widest, styles)
}

/// A push that takes a second or two.
fn push(dir: &Scratch, server: &Server) -> Command {
    dir.write("file", &noise(1, 400_000));
    let mut command = command(dir.path());
    command.args(["push", "file", &server.url("file"), "--bwlimit=256K"]);
    command
}

#[test]
fn a_narrow_terminal_has_progress_in_one_line() {
    for columns in [7, 20, 35, 80] {
        let (server, dir) = (Server::start(), Scratch::new());
        let (terminal, child) = Terminal::start(columns, &mut push(&dir, &server), false);
        let ran = Ran::new(child.wait_with_output().expect("it ends"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let bytes = terminal.read();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (widest, styles) = look(&bytes);
        assert!(widest <= columns.into(), "{columns}: {widest}: {text:?}");
        assert_eq!(styles, 0, "{text:?}");
        assert!(columns < 20 || text.contains(" % "), "{columns}: {text:?}");
        assert!(columns < 80 || (text.contains("[=") && text.contains("/s")), "{columns}: {text:?}");
    }
}

#[test]
fn progress_follows_a_window_that_is_resized() {
    let (server, dir) = (Server::start(), Scratch::new());
    let (terminal, mut child) = Terminal::start(100, &mut push(&dir, &server), false);
    let begun = Instant::now();
    while terminal.so_far() < 500 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", terminal.so_far());
        std::thread::sleep(Duration::from_millis(5));
    }
    resize(&terminal.ours, 20);
    // What was being drawn meanwhile.
    std::thread::sleep(Duration::from_millis(300));
    let mark = terminal.so_far();
    let still_runs = child.try_wait().expect("ours").is_none();
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let bytes = terminal.read();
    let after = bytes[mark..].iter().position(|byte| *byte == b'\r').map_or(&[][..], |at| &bytes[mark + at..]);
    let (widest, _) = look(after);
    assert!(still_runs && after.len() > 100, "{mark}: {:?}", String::from_utf8_lossy(after));
    assert!(widest > 5 && widest <= 20, "{widest}: {:?}", String::from_utf8_lossy(after));
}

#[test]
fn what_is_no_terminal_or_a_dumb_one_gets_no_control_sequences() {
    let (server, dir) = (Server::start(), Scratch::new());
    let is_control = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\n' | b'\r');
    let piped = push(&dir, &server).output().expect("the program starts");
    assert_eq!((piped.status.code(), piped.stderr.iter().chain(&piped.stdout).any(is_control)), (Some(0), false));
    let mut help = command(dir.path());
    let help = help.args(["push", "--help"]).output().expect("the program starts").stdout;
    assert!(!help.is_empty() && !help.iter().any(is_control));
    let (terminal, mut child) = Terminal::start(80, push(&dir, &server).env("TERM", "dumb"), true);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let bytes = terminal.read();
    assert!(!bytes.is_empty() && !bytes.iter().any(is_control), "{:?}", String::from_utf8_lossy(&bytes));
}

#[test]
fn no_color_and_clicolor_force_are_heeded() {
    let dir = Scratch::new();
    let styles = |variables: &[(&str, &str)], verb: &[&str]| {
        let mut command = command(dir.path());
        command.args(verb).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").envs(variables.iter().copied());
        let (terminal, mut child) = Terminal::start(80, &mut command, true);
        child.wait().expect("it ends");
        look(&terminal.read()).1
    };
    let help = ["push", "--help"];
    assert!(styles(&[], &help) > 0);
    assert_eq!(styles(&[("NO_COLOR", "1")], &help), 0);
    let mut piped = command(dir.path());
    let piped =
        piped.args(help).env_remove("NO_COLOR").env("CLICOLOR_FORCE", "1").output().expect("the program starts");
    assert!(look(&piped.stdout).1 > 0);
}

#[test]
fn the_strip_of_a_file_is_as_wide_as_the_terminal() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.write("file", &noise(1, 100_000));
    for (columns, variables, coloured) in [(20, &[][..], true), (70, &[("NO_COLOR", "1")], false)] {
        let mut command = command(dir.path());
        command.args(["explain", "file", &server.url("file")]).env_remove("NO_COLOR").envs(variables.iter().copied());
        let (terminal, mut child) = Terminal::start(columns, &mut command, true);
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        let text = String::from_utf8(terminal.read()).expect("text");
        let strip = text.lines().find(|line| line.contains("####")).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(strip.matches('#').count(), usize::from(columns) - 4, "{text}");
        assert!(look(strip.as_bytes()).0 <= columns.into(), "{text}");
        assert_eq!(text.contains("\x1b["), coloured, "{text}");
    }
}
