//! Where a file is: a path on this machine, or a path at a server.
//!
//! ```text
//! place  = remote / local
//! remote = "deltasync://" host [":" port] [ "/" path ]       port 7440 unless given
//! host   = name / IPv4 / "[" IPv6 "]"
//! path   = component *( "/" component ) [ "/" ]              each a percent-encoded name; "/" at the end: a directory
//! local  = anything else that does not begin with a scheme and "://"
//! ```
//!
//! Components are decoded one by one and each must be a [`Name`], so `..` cannot get in as `%2e%2e` nor a slash as `%2F`.
//! Bytes that need no encoding may be written as they are, but for `?` and `#`, which mean something else in a URL.
//!
//! Invariant: a [`RemotePlace`] prints as a place that parses to itself.

use std::ffi::OsStr;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use deltasync_core::{InvalidPath, Name, RelPath};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use crate::Shown;

/// Where a file or directory is, as it was written on a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a server.
    Remote(RemotePlace),
    /// On this machine.
    Local(PathBuf),
}

/// A path at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePlace {
    /// The server.
    pub server: Server,
    /// The path below the directory it serves.
    pub path: RelPath,
    /// It was written with a `/` at its end, or is the served directory itself.
    pub directory: bool,
}

/// The address of a server, not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// A name or an IP address, without brackets.
    host: String,
    /// A TCP port, from 1.
    port: u16,
}

/// Why text is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPlace {
    /// No text at all.
    #[error("a place cannot be empty")]
    Empty,
    /// A URL, but not one of ours.
    #[error("`{0}://` is not a scheme of deltasync; for a local path of that name write `./` before it")]
    Scheme(String),
    /// `deltasync:` without the slashes.
    #[error("write `deltasync://HOST/PATH`, with two slashes before the host")]
    NoSlashes,
    /// Nothing between the slashes.
    #[error("no host: write `deltasync://HOST/PATH`")]
    NoHost,
    /// A user name or password.
    #[error("a user name before the host is not supported")]
    User,
    /// Something that is neither a name nor an address.
    #[error("`{0}` is not a host name or IP address; IPv6 addresses stand in brackets")]
    Host(String),
    /// A port that is no number or out of range.
    #[error("`{0}` is not a port: expected 1 to 65535")]
    Port(String),
    /// `?` or `#`.
    #[error("write `{encoded}` for `{byte}` in the path")]
    Unencoded {
        /// What was written.
        byte: char,
        /// What to write.
        encoded: &'static str,
    },
    /// A percent sign that two hexadecimal digits do not follow.
    #[error("`%` in the path is not followed by two hexadecimal digits; write `%25` for `%` itself")]
    Percent,
    /// A path that may not be.
    #[error("{0}; paths stay below the directory the server serves")]
    Path(#[from] InvalidPath),
}

/// What stands in a path as it is; everything else is percent-encoded.
pub(crate) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

const SCHEME: &[u8] = b"deltasync:";

impl Place {
    /// Reads a place as it was written on a command line.
    ///
    /// # Errors
    ///
    /// [`InvalidPlace`] saying what is wrong and what to write instead.
    pub fn parse(text: &OsStr) -> Result<Self, InvalidPlace> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(InvalidPlace::Empty);
        }
        if let Some((scheme, rest)) = bytes.split_at_checked(SCHEME.len())
            && scheme.eq_ignore_ascii_case(SCHEME)
        {
            let rest = rest.strip_prefix(b"//").ok_or(InvalidPlace::NoSlashes)?;
            return RemotePlace::parse(rest).map(Self::Remote);
        }
        match foreign_scheme(bytes) {
            Some(scheme) => Err(InvalidPlace::Scheme(scheme)),
            None => Ok(Self::Local(Path::new(text).to_owned())),
        }
    }
}

/// The scheme of a URL that is not ours.
fn foreign_scheme(bytes: &[u8]) -> Option<String> {
    let end = bytes.windows(3).position(|three| three == b"://")?;
    let scheme = &bytes[..end];
    let valid = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(valid);
    is_scheme.then(|| String::from_utf8_lossy(scheme).into_owned())
}

impl RemotePlace {
    /// Reads what follows the scheme and `//`.
    fn parse(rest: &[u8]) -> Result<Self, InvalidPlace> {
        if let Some(byte) = rest.iter().find(|b| b"?#".contains(b)) {
            let encoded = if *byte == b'?' { "%3F" } else { "%23" };
            return Err(InvalidPlace::Unencoded { byte: char::from(*byte), encoded });
        }
        let slash = rest.iter().position(|&b| b == b'/');
        let (authority, path) = rest.split_at(slash.unwrap_or(rest.len()));
        let server = Server::parse(authority)?;
        // What follows the slash that ends the authority; nothing at all is the served directory.
        let path = path.strip_prefix(b"/").unwrap_or_default();
        let (path, directory) = match path.strip_suffix(b"/") {
            Some(b"") => return Err(InvalidPath::Absolute.into()),
            Some(path) => (path, true),
            None => (path, path.is_empty()),
        };
        Ok(Self { server, path: decode(path)?, directory })
    }

    /// The name of the file or directory, `None` for the served directory itself.
    pub fn name(&self) -> Option<Name> {
        self.path.split_last().map(|(_, name)| name)
    }

    /// The place of `name` in the directory that this place is.
    ///
    /// # Errors
    ///
    /// [`InvalidPath`] when the path becomes too long.
    pub fn join(&self, name: &Name) -> Result<Self, InvalidPath> {
        Ok(Self { server: self.server.clone(), path: self.path.join(name)?, directory: false })
    }
}

fn decode(path: &[u8]) -> Result<RelPath, InvalidPlace> {
    if path.is_empty() {
        return Ok(RelPath::ROOT);
    }
    if path[0] == b'/' {
        return Err(InvalidPath::Absolute.into());
    }
    let joined = path.split(|&b| b == b'/').try_fold(RelPath::ROOT, |path, component| {
        check_percents(component)?;
        let name = Name::new(percent_decode(component).collect::<Vec<u8>>())?;
        Ok::<_, InvalidPlace>(path.join(&name)?)
    })?;
    Ok(joined)
}

/// The crate lets a stray percent sign pass as itself, which would hide a mistake.
fn check_percents(component: &[u8]) -> Result<(), InvalidPlace> {
    let mut parts = component.split(|&b| b == b'%');
    parts.next();
    let encoded = |part: &[u8]| part.len() >= 2 && part[..2].iter().all(u8::is_ascii_hexdigit);
    if parts.all(encoded) { Ok(()) } else { Err(InvalidPlace::Percent) }
}

impl Server {
    /// The port of a server unless another one is given.
    pub const DEFAULT_PORT: u16 = 7440;

    /// A name or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port, from 1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `HOST:PORT`, the port always written.
    pub(crate) fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    fn parse(authority: &[u8]) -> Result<Self, InvalidPlace> {
        let shown = || Shown(authority).to_string();
        let text = str::from_utf8(authority).map_err(|_| InvalidPlace::Host(shown()))?;
        if text.contains('@') {
            return Err(InvalidPlace::User);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or_else(|| InvalidPlace::Host(shown()))?;
            let address: Ipv6Addr =
                address.parse().map_err(|_| InvalidPlace::Host(Shown(address.as_bytes()).to_string()))?;
            let port = match port.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if port.is_empty() => Self::DEFAULT_PORT,
                None => return Err(InvalidPlace::Host(shown())),
            };
            return Ok(Self { host: address.to_string(), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(InvalidPlace::Host(shown())),
            Some((host, port)) => (host, parse_port(port)?),
            None => (text, Self::DEFAULT_PORT),
        };
        if host.is_empty() {
            return Err(InvalidPlace::NoHost);
        }
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
            return Err(InvalidPlace::Host(Shown(host.as_bytes()).to_string()));
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

fn parse_port(digits: &str) -> Result<u16, InvalidPlace> {
    let port = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    port.filter(|&port| port > 0).ok_or_else(|| InvalidPlace::Port(Shown(digits.as_bytes()).to_string()))
}

/// As in a place: IPv6 in brackets, the port only when it is another than the default.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if self.port == Self::DEFAULT_PORT { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl fmt::Display for RemotePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deltasync://{}/", self.server)?;
        for (i, name) in self.path.components().enumerate() {
            let slash = if i > 0 { "/" } else { "" };
            write!(f, "{slash}{}", percent_encode(name.as_bytes(), ENCODED))?;
        }
        if self.directory && !self.path.is_root() { f.write_str("/") } else { Ok(()) }
    }
}

/// For people: a remote place as it is written, a local path with its control characters escaped.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(remote) => remote.fmt(f),
            Self::Local(path) => Shown::path(path).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_address_of_a_server_has_one_form() {
        for (text, address) in [
            ("deltasync://Backup.Example/x", "backup.example:7440"),
            ("deltasync://backup.example:7440", "backup.example:7440"),
            ("deltasync://10.0.0.1:9/x", "10.0.0.1:9"),
            ("deltasync://[0:0::1]/x", "[::1]:7440"),
        ] {
            let Ok(Place::Remote(place)) = Place::parse(text.as_ref()) else { panic!("{text}") };
            assert_eq!(place.server.address(), address, "{text}");
        }
    }

    fn parse(text: &[u8]) -> Result<Place, InvalidPlace> {
        Place::parse(OsStr::from_bytes(text))
    }

    fn remote(text: &str) -> RemotePlace {
        match parse(text.as_bytes()) {
            Ok(Place::Remote(remote)) => remote,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn remote_places_name_server_path_and_wish() {
        for (text, host, port, path, directory) in [
            ("deltasync://h/a/b.tar", "h", 7440, &b"a/b.tar"[..], false),
            ("deltasync://h:1/a/", "h", 1, b"a", true),
            ("deltasync://h", "h", 7440, b"", true),
            ("deltasync://h/", "h", 7440, b"", true),
            ("DeltaSync://Host.Example:65535/x", "host.example", 65535, b"x", false),
            ("deltasync://127.0.0.1:7441/x", "127.0.0.1", 7441, b"x", false),
            ("deltasync://[::1]/x", "::1", 7440, b"x", false),
            ("deltasync://[2001:DB8::0:1]:80/x", "2001:db8::1", 80, b"x", false),
            ("deltasync://h/a%20b%2b%ff%0a", "h", 7440, b"a b+\xff\n", false),
            ("deltasync://h/a b+c", "h", 7440, b"a b+c", false),
            ("deltasync://h/...", "h", 7440, b"...", false),
            ("deltasync://h/x@y:z", "h", 7440, b"x@y:z", false),
        ] {
            let place = remote(text);
            assert_eq!((place.server.host(), place.server.port()), (host, port), "{text}");
            assert_eq!((place.path.as_bytes(), place.directory), (path, directory), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_by_name() {
        let path = |error| Err(InvalidPlace::Path(error));
        let host = |text: &str| Err(InvalidPlace::Host(text.into()));
        let port = |text: &str| Err(InvalidPlace::Port(text.into()));
        for (text, error) in [
            (&b""[..], Err(InvalidPlace::Empty)),
            (b"http://h/x", Err(InvalidPlace::Scheme("http".into()))),
            (b"s3+x.y-z://h/x", Err(InvalidPlace::Scheme("s3+x.y-z".into()))),
            (b"deltasync:h/x", Err(InvalidPlace::NoSlashes)),
            (b"deltasync:/x", Err(InvalidPlace::NoSlashes)),
            (b"deltasync://", Err(InvalidPlace::NoHost)),
            (b"deltasync:///x", Err(InvalidPlace::NoHost)),
            (b"deltasync://:7440/x", Err(InvalidPlace::NoHost)),
            (b"deltasync://me@h/x", Err(InvalidPlace::User)),
            (b"deltasync://::1/x", host("::1")),
            (b"deltasync://[::1/x", host("[::1")),
            (b"deltasync://[h]/x", host("h")),
            (b"deltasync://[::1]7/x", host("[::1]7")),
            (b"deltasync://a b/x", host("a b")),
            (b"deltasync://h\n/x", host("h\\n")),
            (b"deltasync://%68/x", host("%68")),
            (b"deltasync://h:/x", port("")),
            (b"deltasync://h:0/x", port("0")),
            (b"deltasync://h:+1/x", port("+1")),
            (b"deltasync://h:65536/x", port("65536")),
            (b"deltasync://h/x?y", Err(InvalidPlace::Unencoded { byte: '?', encoded: "%3F" })),
            (b"deltasync://h/x#y", Err(InvalidPlace::Unencoded { byte: '#', encoded: "%23" })),
            (b"deltasync://h/100%", Err(InvalidPlace::Percent)),
            (b"deltasync://h/%4", Err(InvalidPlace::Percent)),
            (b"deltasync://h/%%41", Err(InvalidPlace::Percent)),
            (b"deltasync://h/%+1", Err(InvalidPlace::Percent)),
            (b"deltasync://h/../x", path(InvalidPath::Dots)),
            (b"deltasync://h/a/..", path(InvalidPath::Dots)),
            (b"deltasync://h/%2e%2e/x", path(InvalidPath::Dots)),
            (b"deltasync://h/.%2E", path(InvalidPath::Dots)),
            (b"deltasync://h/./x", path(InvalidPath::Dots)),
            (b"deltasync://h//etc/passwd", path(InvalidPath::Absolute)),
            (b"deltasync://h//", path(InvalidPath::Absolute)),
            (b"deltasync://h/%2fetc", path(InvalidPath::ForbiddenByte)),
            (b"deltasync://h/a%2Fb", path(InvalidPath::ForbiddenByte)),
            (b"deltasync://h/a%00b", path(InvalidPath::ForbiddenByte)),
            (b"deltasync://h/a//b", path(InvalidPath::EmptyComponent)),
            (b"deltasync://h/a//", path(InvalidPath::EmptyComponent)),
        ] {
            assert_eq!(parse(text), error, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn anything_else_is_a_local_path() {
        for text in [&b"a"[..], b"/a/b/", b"./http://x", b"a:b", b"1://x", b"a/b://c", b"\xff", b"-"] {
            assert_eq!(parse(text), Ok(Place::Local(OsStr::from_bytes(text).into())));
        }
    }

    #[test]
    fn places_print_as_they_are_written() {
        for text in ["deltasync://h/", "deltasync://h:1/a%20b/", "deltasync://[::1]:9/a/%FF", "deltasync://[::1]/x"] {
            assert_eq!(remote(text).to_string(), text);
        }
        assert_eq!(parse(b"a\x1b[2Jb").map(|place| place.to_string()), Ok("a\\u{1b}[2Jb".into()));
    }

    fn any_host() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z0-9][a-z0-9.-]{0,20}", any::<[u16; 8]>().prop_map(|s| Ipv6Addr::from(s).to_string())]
    }

    proptest! {
        #[test]
        fn a_place_prints_as_text_that_parses_to_itself(
            host in any_host(),
            port in 1u16..,
            components in vec(vec(any::<u8>(), 1..20), 0..4),
            slash: bool,
        ) {
            let path = components.join(&b'/');
            prop_assume!(RelPath::new(path.clone()).is_ok());
            let path = RelPath::new(path).expect("just checked");
            let directory = slash || path.is_root();
            let place = RemotePlace { server: Server { host, port }, path, directory };
            prop_assert_eq!(parse(place.to_string().as_bytes()), Ok(Place::Remote(place)));
        }

        #[test]
        fn any_bytes_parse_or_fail(rest in vec(any::<u8>(), 0..60)) {
            let text = [b"deltasync://".as_slice(), &rest].concat();
            if let Ok(Place::Remote(place)) = parse(&text) {
                prop_assert_eq!(parse(place.to_string().as_bytes()), Ok(Place::Remote(place)));
            }
        }
    }
}
