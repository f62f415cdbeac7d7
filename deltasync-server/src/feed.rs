//! What viewers are given: a state cut into fields, so that after the first look each gets only what has changed.
//!
//! A state is one JSON object. Each of its fields is either a *value*, sent whole whenever it differs from the last one,
//! or a *log*, a bounded list of numbered entries, newest first, of which a viewer gets those that it has not seen, or a
//! *row*, a list of fixed length of which it gets those items that differ, as an object by their index. Every piece carries the revision at which it came, so one number says what a viewer has seen, and one that was cut off goes
//! on from there: nothing is kept for it. Pieces are rendered once, and the two events that nearly all viewers get, the
//! whole and the last step, once for all of them. The newest state stands in a watch channel, so a viewer that sleeps holds
//! no more than that one, and skips what came between.
//!
//! Law: the first event and all patches after it, put together, give the whole state.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use tokio::sync::watch;

use crate::State;
use crate::shared::unix_now;

/// After so many milliseconds a viewer that was cut off comes again.
const RETRY: u32 = 1_000;

/// One state, rendered.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Tells the publishers of one address apart.
    epoch: u64,
    /// Counts the states, from 1; 0 before the first.
    revision: u64,
    fields: Vec<Field>,
    metrics: Bytes,
    whole: OnceLock<Bytes>,
    snapshot: OnceLock<Bytes>,
    step: OnceLock<Option<Bytes>>,
}

#[derive(Clone, Debug)]
struct Field {
    name: &'static str,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Value(Piece),
    /// By number, newest first.
    Log(Vec<(u64, Piece)>),
    Row(Vec<Piece>),
}

/// JSON, and the revision at which it came.
#[derive(Clone, Debug)]
struct Piece {
    revision: u64,
    json: Bytes,
}

/// What a viewer has been given so far: the revision, 0 for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen(u64);

impl Published {
    /// The whole state as JSON.
    pub(crate) fn whole(&self) -> Bytes {
        self.whole.get_or_init(|| self.since(Seen(0)).unwrap_or_else(|| Bytes::from_static(b"{}"))).clone()
    }

    /// The metrics as text.
    pub(crate) fn metrics(&self) -> Bytes {
        self.metrics.clone()
    }

    /// What the viewer has seen who says that this was the id of its last event; nothing when it is none of ours.
    ///
    /// # Security
    ///
    /// Takes the header of a stranger's request.
    pub(crate) fn seen(&self, id: &str) -> Seen {
        let revision = id.split_once('-').and_then(|(epoch, revision)| {
            let (epoch, revision) = (epoch.parse::<u64>().ok()?, revision.parse::<u64>().ok()?);
            (epoch == self.epoch && revision <= self.revision).then_some(revision)
        });
        Seen(revision.unwrap_or(0))
    }

    /// The next event of a viewer, which it has then seen: `snapshot` is the whole state, `update` the fields that have
    /// changed and of logs the new entries. `None` when nothing has changed.
    pub(crate) fn event(&self, seen: &mut Seen) -> Option<Bytes> {
        let before = std::mem::replace(seen, Seen(self.revision));
        match before.0 {
            revision if revision == self.revision => None,
            0 => Some(self.snapshot.get_or_init(|| self.frame("snapshot", &self.whole())).clone()),
            revision if revision + 1 == self.revision => self.step.get_or_init(|| self.update(before)).clone(),
            _ => self.update(before),
        }
    }

    fn update(&self, seen: Seen) -> Option<Bytes> {
        self.since(seen).map(|json| self.frame("update", &json))
    }

    /// The fields that have changed since `seen`, as a JSON object; of logs only the new entries.
    fn since(&self, seen: Seen) -> Option<Bytes> {
        let mut out = Vec::new();
        for Field { name, content } in &self.fields {
            let start = out.len();
            out.push(if start == 0 { b'{' } else { b',' });
            out.extend_from_slice(format!("\"{name}\":").as_bytes());
            let changed = match content {
                Content::Value(piece) => {
                    out.extend_from_slice(&piece.json);
                    piece.revision > seen.0
                }
                Content::Log(entries) => {
                    let new = entries.iter().filter(|(_, piece)| piece.revision > seen.0);
                    let new: Vec<&[u8]> = new.map(|(_, piece)| &piece.json[..]).collect();
                    out.push(b'[');
                    out.extend_from_slice(&new.join(&b','));
                    out.push(b']');
                    !new.is_empty()
                }
                Content::Row(items) if seen.0 == 0 => {
                    let all: Vec<&[u8]> = items.iter().map(|piece| &piece.json[..]).collect();
                    out.push(b'[');
                    out.extend_from_slice(&all.join(&b','));
                    out.push(b']');
                    true
                }
                Content::Row(items) => {
                    let new = items.iter().enumerate().filter(|(_, piece)| piece.revision > seen.0);
                    let new: Vec<Vec<u8>> =
                        new.map(|(at, piece)| [format!("\"{at}\":").as_bytes(), &piece.json].concat()).collect();
                    out.push(b'{');
                    out.extend_from_slice(&new.join(&b','));
                    out.push(b'}');
                    !new.is_empty()
                }
            };
            if !changed && seen.0 > 0 {
                out.truncate(start);
            }
        }
        if out.is_empty() {
            return None;
        }
        out.push(b'}');
        Some(out.into())
    }

    /// A server-sent event. JSON of ours has no line breaks, so one `data` line holds it.
    fn frame(&self, name: &str, json: &[u8]) -> Bytes {
        let head = format!("retry: {RETRY}\nid: {}-{}\nevent: {name}\ndata: ", self.epoch, self.revision);
        let mut frame = BytesMut::with_capacity(head.len() + json.len() + 2);
        frame.put_slice(head.as_bytes());
        frame.put_slice(json);
        frame.put_slice(b"\n\n");
        frame.freeze()
    }
}

/// Renders states and hands them to all viewers.
#[derive(Debug)]
pub(crate) struct Publisher {
    sender: watch::Sender<Arc<Published>>,
    epoch: u64,
    revision: u64,
}

/// A field to be published.
pub(crate) enum Draft {
    Value(Bytes),
    /// Numbered entries, newest first; a number always stands for the same entry.
    Log(Vec<(u64, Box<dyn Fn() -> Bytes>)>),
    /// A list whose length never changes.
    Row(Vec<Bytes>),
}

impl Publisher {
    /// A publisher whose viewers see `{}` until the first state.
    pub(crate) fn new() -> Self {
        let epoch = unix_now();
        let none = Published { epoch, ..Published::default() };
        Self { sender: watch::channel(Arc::new(none)).0, epoch, revision: 0 }
    }

    /// What viewers hold.
    pub(crate) fn feed(&self) -> watch::Receiver<Arc<Published>> {
        self.sender.subscribe()
    }

    /// Publishes the state of a server.
    pub(crate) fn publish_state(&mut self, state: State) {
        let metrics = crate::metrics::of_server(&state);
        let log = |number, entry| -> (u64, Box<dyn Fn() -> Bytes>) { (number, entry) };
        let history = state.history.into_iter();
        let history = history.map(|ended| log(ended.number, Box::new(move || render(&ended)))).collect();
        let errors = state.errors.into_iter();
        let errors = errors.map(|error| log(error.number, Box::new(move || render(&error)))).collect();
        self.publish(
            vec![
                ("format", Draft::Value(render(&state.format))),
                ("server", Draft::Value(render(&state.server))),
                ("totals", Draft::Value(render(&state.totals))),
                ("clients", Draft::Value(render(&state.clients))),
                ("transfers", Draft::Value(render(&state.transfers))),
                ("history", Draft::Log(history)),
                ("errors", Draft::Log(errors)),
                ("throughput", Draft::Value(render(&state.throughput))),
                ("hour", Draft::Value(render(&state.hour))),
                ("day", Draft::Value(render(&state.day))),
                ("savings", Draft::Value(render(&state.savings))),
                ("spread", Draft::Value(render(&state.spread))),
                ("scrub", Draft::Value(render(&state.scrub))),
            ],
            metrics,
        );
    }

    /// Publishes fields, always the same ones in the same order, and metrics.
    pub(crate) fn publish(&mut self, drafts: Vec<(&'static str, Draft)>, metrics: String) {
        let before = self.sender.borrow().clone();
        self.revision += 1;
        let fields = drafts.into_iter().enumerate().map(|(at, (name, draft))| {
            let old = before.fields.get(at).map(|field| &field.content);
            Field { name, content: self.content(draft, old) }
        });
        let published = Published {
            epoch: self.epoch,
            revision: self.revision,
            fields: fields.collect(),
            metrics: metrics.into(),
            ..Published::default()
        };
        self.sender.send_replace(Arc::new(published));
    }

    /// Takes over from the old content what has not changed.
    fn content(&self, draft: Draft, old: Option<&Content>) -> Content {
        let new = |json| Piece { revision: self.revision, json };
        let same_or_new = |json, old: Option<&Piece>| match old {
            Some(piece) if json == piece.json => piece.clone(),
            _ => new(json),
        };
        match (draft, old) {
            (Draft::Value(json), Some(Content::Value(piece))) => Content::Value(same_or_new(json, Some(piece))),
            (Draft::Value(json), _) => Content::Value(new(json)),
            (Draft::Row(items), old) => {
                let old = if let Some(Content::Row(items)) = old { &items[..] } else { &[] };
                let items = items.into_iter().enumerate();
                Content::Row(items.map(|(at, json)| same_or_new(json, old.get(at))).collect())
            }
            (Draft::Log(drafts), old) => {
                let old = if let Some(Content::Log(entries)) = old { &entries[..] } else { &[] };
                let entry = |(number, render): (u64, Box<dyn Fn() -> Bytes>)| {
                    // Both are sorted, the newest first.
                    let known = old.binary_search_by(|(other, _)| number.cmp(other));
                    (number, known.map_or_else(|_| new(render()), |at| old[at].1.clone()))
                };
                Content::Log(drafts.into_iter().map(entry).collect())
            }
        }
    }
}
pub(crate) fn render(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("plain data with text keys always becomes JSON").into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{EndedState, ServerState};

    fn state(now: u64, ended: std::ops::RangeInclusive<u64>) -> State {
        let history = ended.rev().map(|number| EndedState { number, ..EndedState::default() }).collect();
        State { server: ServerState { now, ..ServerState::default() }, history, ..State::default() }
    }

    /// What the page does with an update.
    fn patch(state: &mut Value, update: Value) {
        let Value::Object(update) = update else { panic!("not an object: {update}") };
        for (name, value) in update {
            match (&mut state[&name], value) {
                (Value::Array(old), Value::Array(mut new)) if name == "history" => {
                    new.append(old);
                    new.truncate(crate::state::HISTORY_MAX);
                    *old = new;
                }
                (old, value) => *old = value,
            }
        }
    }

    fn data(event: &Bytes) -> (String, String, Value) {
        let text = std::str::from_utf8(event).expect("text");
        let lines: Vec<&str> = text.strip_suffix("\n\n").expect("an event ends").lines().collect();
        let [_, id, name, data] = lines[..] else { panic!("{text}") };
        let part = |line: &str, start| line.strip_prefix(start).expect("its place").to_owned();
        let json = serde_json::from_str(&part(data, "data: ")).expect("valid");
        (part(id, "id: "), part(name, "event: "), json)
    }

    #[test]
    fn a_viewer_that_skips_states_or_was_cut_off_ends_with_the_whole_one() {
        let states: Vec<State> = (0..40u64).map(|n| state(n / 3, (n * 7).saturating_sub(199).max(1)..=n * 7)).collect();
        for (every, cut) in [(1, false), (2, false), (5, false), (1, true), (3, true)] {
            let mut publisher = Publisher::new();
            let feed = publisher.feed();
            let (mut seen, mut shown, mut last) = (Seen::default(), Value::Null, String::new());
            for (at, state) in states.iter().enumerate() {
                publisher.publish_state(state.clone());
                if at % every != 0 {
                    continue;
                }
                let published = feed.borrow().clone();
                if cut && at > 0 {
                    seen = published.seen(&last);
                }
                if let Some(event) = published.event(&mut seen) {
                    let (id, name, update) = data(&event);
                    assert_eq!(name, if at == 0 { "snapshot" } else { "update" });
                    last = id;
                    if at == 0 { shown = update } else { patch(&mut shown, update) }
                }
                let whole: Value = serde_json::from_slice(&published.whole()).expect("valid");
                assert_eq!(shown, whole, "every {every} at {at}");
                assert_eq!(whole, serde_json::to_value(state).expect("plain data"));
            }
        }
    }

    #[test]
    fn of_a_row_the_items_come_that_differ() {
        let mut publisher = Publisher::new();
        let feed = publisher.feed();
        let mut seen = Seen::default();
        let mut next = |items: &[&'static str]| {
            let row = items.iter().map(|&item| Bytes::from_static(item.as_bytes())).collect();
            publisher.publish(vec![("servers", Draft::Row(row))], String::new());
            feed.borrow().event(&mut seen).map(|event| data(&event).2.to_string())
        };
        assert_eq!(next(&["1", "2", "3"]).as_deref(), Some(r#"{"servers":[1,2,3]}"#));
        assert_eq!(next(&["1", "5", "4"]).as_deref(), Some(r#"{"servers":{"1":5,"2":4}}"#));
        assert_eq!(next(&["1", "5", "4"]), None);
        assert_eq!(&feed.borrow().whole()[..], br#"{"servers":[1,5,4]}"#);
    }

    #[test]
    fn what_has_not_changed_is_not_sent_again() {
        let mut publisher = Publisher::new();
        let feed = publisher.feed();
        let mut seen = Seen::default();
        publisher.publish_state(state(1, 1..=2));
        assert!(feed.borrow().event(&mut seen).is_some());
        assert_eq!(feed.borrow().event(&mut seen), None);
        publisher.publish_state(state(1, 1..=2));
        assert_eq!(feed.borrow().event(&mut seen), None);
        publisher.publish_state(state(1, 1..=3));
        let event = feed.borrow().event(&mut seen).expect("one more has ended");
        let (_, _, update) = data(&event);
        assert_eq!(update.as_object().map(|fields| fields.len()), Some(1));
        assert_eq!(update["history"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn the_id_of_another_server_is_none() {
        let mut publisher = Publisher::new();
        publisher.publish_state(state(1, 1..=2));
        publisher.publish_state(state(2, 1..=2));
        let published = publisher.feed().borrow().clone();
        assert_eq!(published.seen(&format!("{}-1", publisher.epoch)), Seen(1));
        let other = format!("{}-1", publisher.epoch + 1);
        let later = format!("{}-3", publisher.epoch);
        for id in [&other[..], &later, "", "-", "1", "\u{e9}-1", "99999999999999999999-1"] {
            assert_eq!(published.seen(id), Seen(0), "{id}");
        }
    }

    #[test]
    fn viewers_that_keep_up_share_one_event() {
        let mut publisher = Publisher::new();
        publisher.publish_state(state(1, 1..=2));
        publisher.publish_state(state(2, 1..=3));
        let published = publisher.feed().borrow().clone();
        let [one, other] = [(); 2].map(|()| published.event(&mut Seen(1)).expect("news"));
        assert_eq!(one.as_ptr(), other.as_ptr());
        let [one, other] = [(); 2].map(|()| published.event(&mut Seen(0)).expect("all"));
        assert_eq!(one.as_ptr(), other.as_ptr());
    }
}
