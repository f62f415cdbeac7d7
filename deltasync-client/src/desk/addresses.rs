//! The address book of the desktop client: the servers it has been connected to, the last used first.
//!
//! It is kept as JSON lines, one server each. A line that does not read is left out, so a file that was damaged or edited
//! costs what is damaged in it and no more.

use serde::{Deserialize, Serialize};

use super::words::Trouble;
use crate::{Place, RemotePlace};

/// The servers that were used, the last used first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressBook {
    places: Vec<RemotePlace>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    server: String,
}

impl AddressBook {
    /// The most servers it keeps; those that were not used for longest go first.
    pub const MAX: usize = 50;

    /// Reads what [`AddressBook::to_text`] made.
    pub fn parse(text: &str) -> Self {
        let mut book = Self::default();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            if let Ok(place) = address(&line.server)
                && book.places.len() < Self::MAX
                && !book.places.contains(&place)
            {
                book.places.push(place);
            }
        }
        book
    }

    /// One line for each server.
    pub fn to_text(&self) -> String {
        let line = |place: &RemotePlace| {
            serde_json::to_string(&Line { server: place.to_string() }).expect("text serializes") + "\n"
        };
        self.places.iter().map(line).collect()
    }

    /// The servers, the last used first.
    pub fn places(&self) -> &[RemotePlace] {
        &self.places
    }

    /// This server was used now.
    pub fn used(&mut self, place: &RemotePlace) {
        self.places.retain(|other| other.server != place.server);
        self.places.insert(0, place.clone());
        self.places.truncate(Self::MAX);
    }

    /// Forgets this server.
    pub fn forget(&mut self, place: &RemotePlace) {
        self.places.retain(|other| other != place);
    }
}

/// Reads an address as people write it: `HOST`, `HOST:PORT`, or a whole `deltasync://` place, always as a directory.
///
/// # Errors
///
/// What is wrong with it, and how to write it.
pub fn address(text: &str) -> Result<RemotePlace, Trouble> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Trouble::new("no address", "Write the name of a server, such as backup.example"));
    }
    let whole = if text.contains("://") { text.to_owned() } else { format!("deltasync://{text}") };
    match Place::parse(whole.as_ref()).map_err(|error| Trouble::from(&error))? {
        Place::Remote(place) => Ok(RemotePlace { directory: true, ..place }),
        Place::Local(_) => Err(Trouble::new(format!("{text} is no server"), "Write it as HOST or HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(text: &str) -> RemotePlace {
        address(text).unwrap_or_else(|trouble| panic!("{text}: {trouble:?}"))
    }

    #[test]
    fn an_address_is_a_host_or_a_whole_place() {
        for (text, whole) in [
            ("backup.example", "deltasync://backup.example/"),
            (" h:7001 ", "deltasync://h:7001/"),
            ("[::1]:9", "deltasync://[::1]:9/"),
            ("deltasync://h/photos", "deltasync://h/photos/"),
            ("h/photos/", "deltasync://h/photos/"),
        ] {
            assert_eq!(place(text).to_string(), whole);
        }
        for text in ["", "  ", "http://h/", "h:0", "a b", "h/../x"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_used_is_first_and_each_server_is_there_once() {
        let mut book = AddressBook::default();
        for text in ["a", "b", "a/photos"] {
            book.used(&place(text));
        }
        assert_eq!(book.places(), [place("a/photos"), place("b")]);
        book.forget(&place("b"));
        assert_eq!(AddressBook::parse(&book.to_text()).places(), [place("a/photos")]);
    }

    #[test]
    fn it_keeps_so_many_and_no_more() {
        let mut book = AddressBook::default();
        for i in 0..AddressBook::MAX + 7 {
            book.used(&place(&format!("h{i}")));
        }
        assert_eq!(book.places().len(), AddressBook::MAX);
        let twice = book.to_text() + &book.to_text() + "{\"server\":\"other\"}\n";
        assert_eq!(AddressBook::parse(&twice), book);
    }

    #[test]
    fn a_damaged_line_costs_itself() {
        let text = "{\"server\":\"a\"}\nrubbish\n{\"server\":\"http://x\"}\n{}\n{\"server\":\"b\"}";
        assert_eq!(AddressBook::parse(text).places(), [place("a"), place("b")]);
    }

    proptest! {
        #[test]
        fn any_text_reads_to_a_book_that_reads_again(text in ".{0,200}") {
            let book = AddressBook::parse(&text);
            prop_assert_eq!(AddressBook::parse(&book.to_text()), book);
        }
    }
}
