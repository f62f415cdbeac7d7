//! Which `Host` a request may name: a page elsewhere must not reach a dashboard on loopback by pointing its own name there.
//!
//! A browser that was lured by such a rebinding sends the lure's name. Only the address that the dashboard listens on,
//! the names of loopback with its port, and the names that the operator gave are accepted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port that a URL of ours has when it names none.
const DEFAULT_PORT: u16 = 80;

/// The names under which a dashboard may be reached.
#[derive(Clone, Debug)]
pub struct Hosts {
    port: u16,
    /// Lower case, without a port: `127.0.0.1`, `[::1]`, `localhost`.
    loopback: Vec<String>,
    /// Lower case, as the operator gave them.
    given: Vec<String>,
}

impl Hosts {
    /// The names of a dashboard on `listen`; a name in `given` holds for its own port, or for any when it has none.
    pub fn new(listen: SocketAddr, given: &[String]) -> Self {
        let name = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let mut loopback =
            vec!["localhost".to_owned(), name(Ipv4Addr::LOCALHOST.into()), name(Ipv6Addr::LOCALHOST.into())];
        // The unspecified address is nobody's name.
        if !listen.ip().is_unspecified() {
            loopback.push(name(listen.ip()));
        }
        let given = given.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { port: listen.port(), loopback, given }
    }

    /// May a request name this host?
    ///
    /// # Security
    ///
    /// Takes the header of a stranger's request.
    pub fn accept(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let (name, port) = split_port(&host);
        let own_port = match port {
            Some(port) => port.parse() == Ok(self.port),
            None => self.port == DEFAULT_PORT,
        };
        (own_port && self.loopback.iter().any(|own| own == name))
            || self.given.iter().any(|own| *own == host || own == name)
    }
}

/// `[::1]:80` is `[::1]` and `80`; an address in brackets is not split inside them.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, given: &[&str]) -> Hosts {
        let given: Vec<String> = given.iter().map(|&name| name.to_owned()).collect();
        Hosts::new(listen.parse().expect("an address"), &given)
    }

    #[test]
    fn loopback_names_pass_with_our_port_only() {
        let hosts = hosts("127.0.0.1:7441", &[]);
        for host in ["127.0.0.1:7441", "localhost:7441", "LocalHost:7441", "[::1]:7441"] {
            assert!(hosts.accept(host), "{host}");
        }
        for host in [
            "evil.example:7441",
            "localhost",
            "localhost:80",
            "127.0.0.1:74410",
            "",
            ":7441",
            "::1:7441",
            "localhost:7441.evil.example",
            "0.0.0.0:7441",
            "[::1",
            "localhost:+7441:",
        ] {
            assert!(!hosts.accept(host), "{host}");
        }
    }

    #[test]
    fn the_listen_address_and_given_names_pass() {
        let hosts = hosts("192.0.2.7:80", &["Board.Example", "other.example:8443"]);
        for host in ["192.0.2.7", "192.0.2.7:80", "board.example", "board.example:9", "other.example:8443", "localhost"]
        {
            assert!(hosts.accept(host), "{host}");
        }
        assert!(!hosts.accept("other.example"));
        assert!(!hosts.accept("other.example:80"));
    }
}
