//! Who may see a dashboard: on loopback whoever can reach it, elsewhere whoever knows its token.
//!
//! A token is a secret text in a file that the operator made. Programs send it as `Authorization: Bearer TOKEN`; a browser
//! asks its user once and sends it as the password of HTTP's basic scheme, under any user name, also for the stream of
//! events. Nothing is stored, and there is no cookie that a page elsewhere could ride on.
//!
//! # Security
//!
//! Tokens are compared by their digests, so the time that it takes tells nothing of them. The dashboard speaks plain HTTP:
//! where others can listen to the network, a token belongs behind a proxy that speaks TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use deltasync_core::{Algorithm, Digest};
use hyper::header::{self, HeaderMap, HeaderValue};

use crate::Hosts;

/// Whom a dashboard lets in.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Guard {
    /// Everybody on this machine; it is not to be reached from others.
    #[default]
    Loopback,
    /// Who knows the token, from anywhere.
    Token(Token),
    /// Everybody who can reach it.
    Open,
}

impl Guard {
    /// The guard that an operator has chosen: a token from a file, or openness, or neither.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is no token; the message names it.
    pub fn chosen(token_file: Option<&Path>, open: bool) -> io::Result<Self> {
        match token_file {
            Some(file) => Ok(Self::Token(Token::read(file)?)),
            None if open => Ok(Self::Open),
            None => Ok(Self::Loopback),
        }
    }

    /// May a dashboard with this guard listen there?
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::PermissionDenied`] when other machines could see it and nobody has said that they may.
    pub fn allows(&self, address: SocketAddr) -> io::Result<()> {
        if matches!(self, Self::Loopback) && !address.ip().is_loopback() {
            let message = format!(
                "other machines could see the dashboard on {address}: give it a token (--dashboard-token-file FILE), or \
                 say that everybody may see it (--dashboard-open)"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(())
    }

    /// Says in the log that everybody may see what is on `address`, if it is so.
    pub(crate) fn warn(&self, address: SocketAddr) {
        if matches!(self, Self::Open) && !address.ip().is_loopback() {
            tracing::warn!(%address, "everybody who can reach this address can see the dashboard");
        }
    }
}

/// The secret that lets somebody see a dashboard: 16 to 256 printable ASCII characters without spaces.
#[derive(Clone)]
pub struct Token {
    text: String,
    digest: Digest,
}

impl Token {
    /// The token in a file, which may end in a line break.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or holds no token; the message names it.
    pub fn read(file: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        #[expect(clippy::disallowed_methods, reason = "the path that the operator named")]
        let text = std::fs::read_to_string(file).map_err(named)?;
        let bad = || named(io::Error::other("a token has 16 to 256 printable ASCII characters and no spaces"));
        Self::new(text.trim_end_matches(['\r', '\n'])).ok_or_else(bad)
    }

    /// This text as a token; `None` when it cannot be one.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (16..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self { text: text.to_owned(), digest: digest(text.as_bytes()) })
    }

    /// The header that shows it to a server.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.text)).expect("printable ASCII");
        value.set_sensitive(true);
        value
    }

    fn is(&self, said: &[u8]) -> bool {
        digest(said) == self.digest
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

fn digest(text: &[u8]) -> Digest {
    Algorithm::Blake3.digest(text)
}

/// How a dashboard may be reached: under which names, and by whom.
#[derive(Clone, Debug)]
pub struct Access {
    pub(crate) hosts: Hosts,
    token: Option<Token>,
}

impl Access {
    /// That of a dashboard on `listen`, which goes by the names in `given` too.
    ///
    /// # Errors
    ///
    /// As [`Guard::allows`].
    pub fn new(listen: SocketAddr, given: &[String], guard: &Guard) -> io::Result<Self> {
        guard.allows(listen)?;
        let token = if let Guard::Token(token) = guard { Some(token.clone()) } else { None };
        Ok(Self { hosts: Hosts::new(listen, given), token })
    }

    /// May a request with these headers see the dashboard?
    ///
    /// # Security
    ///
    /// Takes the headers of a stranger's request.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let Some(said) = headers.get(header::AUTHORIZATION) else { return false };
        let Some(space) = said.as_bytes().iter().position(|&byte| byte == b' ') else { return false };
        let (scheme, said) = (&said.as_bytes()[..space], said.as_bytes()[space..].trim_ascii());
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return token.is(said);
        }
        let password = scheme.eq_ignore_ascii_case(b"basic").then(|| password(said)).flatten();
        password.is_some_and(|password| token.is(&password))
    }
}

/// What stands behind the first colon of a user name and password in base 64.
fn password(said: &[u8]) -> Option<Vec<u8>> {
    let said = said.strip_suffix(b"==").or_else(|| said.strip_suffix(b"=")).unwrap_or(said);
    let (mut bits, mut have, mut plain) = (0u32, 0, Vec::new());
    for byte in said {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, have) = (bits << 6 | u32::from(six), have + 6);
        if have >= 8 {
            have -= 8;
            plain.push((bits >> have) as u8);
        }
    }
    let colon = plain.iter().position(|&byte| byte == b':')?;
    Some(plain.split_off(colon + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "0123456789abcdef-secret";

    fn admits(guard: &Guard, said: Option<&str>) -> bool {
        let access = Access::new(SocketAddr::from(([127, 0, 0, 1], 80)), &[], guard).expect("loopback is always fine");
        let mut headers = HeaderMap::new();
        if let Some(said) = said {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(said).expect("a header"));
        }
        access.admits(&headers)
    }

    #[test]
    fn who_knows_the_token_is_let_in_by_either_scheme() {
        let guard = Guard::Token(Token::new(SECRET).expect("a token"));
        // `admin:` and `:` before the token, as browsers and `curl -u` send them.
        let basic = "Basic YWRtaW46MDEyMzQ1Njc4OWFiY2RlZi1zZWNyZXQ=";
        let nameless = "basic OjAxMjM0NTY3ODlhYmNkZWYtc2VjcmV0";
        for said in [&format!("Bearer {SECRET}")[..], &format!("bearer  {SECRET}"), basic, nameless] {
            assert!(admits(&guard, Some(said)), "{said}");
        }
        let longer = format!("Bearer {SECRET}x");
        let wrong = [
            "",
            "Bearer",
            "Bearer ",
            SECRET,
            "Basic",
            "Basic !!!!",
            "Basic YWRtaW46",
            "Bearer 0123456789abcdef",
            &longer,
        ];
        for said in wrong {
            assert!(!admits(&guard, Some(said)), "{said}");
        }
        assert!(!admits(&guard, None));
        assert!(admits(&Guard::Open, None) && admits(&Guard::Loopback, None));
    }

    proptest! {
        #[test]
        fn whatever_a_stranger_says_is_no_token(scheme in "(?i)basic |bearer |", said in prop::collection::vec(any::<u8>(), 0..60)) {
            let guard = Guard::Token(Token::new(SECRET).expect("a token"));
            let access = Access::new(SocketAddr::from(([127, 0, 0, 1], 80)), &[], &guard).expect("loopback is always fine");
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&[scheme.as_bytes(), &said].concat()) {
                headers.insert(header::AUTHORIZATION, value);
            }
            prop_assert!(!access.admits(&headers));
        }
    }

    #[test]
    fn a_dashboard_for_other_machines_needs_a_decision() {
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 7441));
        let error = Guard::Loopback.allows(everywhere).expect_err("nobody said so");
        assert!(error.to_string().contains("--dashboard-token-file"), "{error}");
        assert!(Guard::Open.allows(everywhere).is_ok());
        assert!(Guard::Token(Token::new(SECRET).expect("a token")).allows(everywhere).is_ok());
        assert!(Guard::Loopback.allows(SocketAddr::from(([127, 0, 0, 9], 1))).is_ok());
    }

    #[test]
    fn a_token_is_long_enough_and_stays_secret() {
        for bad in ["", "short", "with a space in its middle", "0123456789abcde\u{e9}", &"x".repeat(257)] {
            assert!(Token::new(bad).is_none(), "{bad}");
        }
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let file = directory.path().join("token");
        std::fs::write(&file, format!("{SECRET}\n")).expect("room");
        let guard = Guard::chosen(Some(&file), false).expect("a token");
        assert!(admits(&guard, Some(&format!("Bearer {SECRET}"))));
        assert!(!format!("{guard:?}").contains(SECRET));
        std::fs::write(&file, "tiny\n").expect("room");
        let error = Guard::chosen(Some(&file), false).expect_err("no token");
        assert!(error.to_string().contains("16 to 256") && !error.to_string().contains("tiny"), "{error}");
        assert!(Guard::chosen(Some(&directory.path().join("none")), true).is_err());
    }
}
