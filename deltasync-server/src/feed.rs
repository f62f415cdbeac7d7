//! What viewers are given: a state cut into fields, so that after the first look each gets only what has changed.
//!
//! A state is one JSON object. Each of its fields is either a *value*, sent whole whenever it differs from the last one,
//! or a *log*, a bounded list of numbered entries, newest first, of which a viewer gets those that it has not seen. Every
//! piece is rendered once and shared by all viewers. The newest state stands in a watch channel, so a viewer that sleeps
//! holds no more than that one, and skips what came between.
//!
//! Law: the first event and all patches after it, put together, give the whole state.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::State;

/// One state, rendered.
#[derive(Debug, Default)]
pub(crate) struct Published {
    fields: Vec<Field>,
    metrics: Bytes,
}

#[derive(Clone, Debug)]
struct Field {
    name: &'static str,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Value { revision: u64, json: Bytes },
    Log { entries: Vec<(u64, Bytes)> },
}

/// What a viewer has been given so far: for each field the revision, or the number of the newest entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Vec<u64>);

impl Published {
    /// The whole state as JSON.
    pub(crate) fn whole(&self) -> Bytes {
        self.since(&mut Seen::default()).unwrap_or_else(|| Bytes::from_static(b"{}"))
    }

    /// The metrics as text.
    pub(crate) fn metrics(&self) -> Bytes {
        self.metrics.clone()
    }

    /// The fields that have changed since `seen`, as a JSON object; of logs only the new entries. Brings `seen` up to
    /// date; `None` when nothing has changed.
    pub(crate) fn since(&self, seen: &mut Seen) -> Option<Bytes> {
        let first = seen.0.is_empty();
        seen.0.resize(self.fields.len(), 0);
        let mut out = Vec::new();
        for (field, seen) in self.fields.iter().zip(&mut seen.0) {
            let start = out.len();
            out.push(if start == 0 { b'{' } else { b',' });
            out.extend_from_slice(format!("\"{}\":", field.name).as_bytes());
            let changed = match &field.content {
                Content::Value { revision, json } => {
                    out.extend_from_slice(json);
                    std::mem::replace(seen, *revision) != *revision
                }
                Content::Log { entries } => {
                    let new = entries.iter().take_while(|(number, _)| number > seen);
                    let new: Vec<&[u8]> = new.map(|(_, json)| &json[..]).collect();
                    out.push(b'[');
                    out.extend_from_slice(&new.join(&b','));
                    out.push(b']');
                    *seen = entries.first().map_or(*seen, |&(number, _)| number);
                    !new.is_empty()
                }
            };
            if !changed && !first {
                out.truncate(start);
            }
        }
        if out.is_empty() {
            return None;
        }
        out.push(b'}');
        Some(out.into())
    }
}

/// Renders states and hands them to all viewers.
#[derive(Debug)]
pub(crate) struct Publisher {
    sender: watch::Sender<Arc<Published>>,
    revision: u64,
}

/// A field to be published.
pub(crate) enum Draft {
    Value(Bytes),
    /// Numbered entries, newest first; a number always stands for the same entry.
    Log(Vec<(u64, Box<dyn Fn() -> Bytes>)>),
}

impl Publisher {
    /// A publisher whose viewers see `{}` until the first state.
    pub(crate) fn new() -> Self {
        Self { sender: watch::channel(Arc::default()).0, revision: 0 }
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
                ("scrub", Draft::Value(render(&state.scrub))),
            ],
            metrics,
        );
    }

    /// Publishes fields, always the same ones in the same order.
    pub(crate) fn publish(&mut self, drafts: Vec<(&'static str, Draft)>, metrics: String) {
        let before = self.sender.borrow().clone();
        self.revision += 1;
        let fields = drafts.into_iter().enumerate().map(|(at, (name, draft))| {
            let old = before.fields.get(at).map(|field| &field.content);
            Field { name, content: self.content(draft, old) }
        });
        let fields = fields.collect();
        self.sender.send_replace(Arc::new(Published { fields, metrics: metrics.into() }));
    }

    /// Takes over from the old content what has not changed.
    fn content(&self, draft: Draft, old: Option<&Content>) -> Content {
        match (draft, old) {
            (Draft::Value(json), Some(Content::Value { revision, json: same })) if json == *same => {
                Content::Value { revision: *revision, json: same.clone() }
            }
            (Draft::Value(json), _) => Content::Value { revision: self.revision, json },
            (Draft::Log(drafts), old) => {
                let old = if let Some(Content::Log { entries }) = old { &entries[..] } else { &[] };
                let entry = |(number, render): (u64, Box<dyn Fn() -> Bytes>)| {
                    // Both are sorted, the newest first.
                    let known = old.binary_search_by(|(other, _)| number.cmp(other));
                    (number, known.map_or_else(|_| render(), |at| old[at].1.clone()))
                };
                Content::Log { entries: drafts.into_iter().map(entry).collect() }
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

    #[test]
    fn a_viewer_that_skips_states_ends_with_the_whole_one() {
        let states: Vec<State> = (0..40u64).map(|n| state(n / 3, (n * 7).saturating_sub(199).max(1)..=n * 7)).collect();
        for every in 1..6 {
            let mut publisher = Publisher::new();
            let feed = publisher.feed();
            let (mut seen, mut shown) = (Seen::default(), Value::Null);
            for (at, state) in states.iter().enumerate() {
                publisher.publish_state(state.clone());
                if at % every != 0 {
                    continue;
                }
                let published = feed.borrow().clone();
                if let Some(update) = published.since(&mut seen) {
                    let update = serde_json::from_slice(&update).expect("valid");
                    if at == 0 { shown = update } else { patch(&mut shown, update) }
                }
                let whole: Value = serde_json::from_slice(&published.whole()).expect("valid");
                assert_eq!(shown, whole, "every {every} at {at}");
                assert_eq!(whole, serde_json::to_value(state).expect("plain data"));
            }
        }
    }

    #[test]
    fn what_has_not_changed_is_not_sent_again() {
        let mut publisher = Publisher::new();
        let feed = publisher.feed();
        let mut seen = Seen::default();
        publisher.publish_state(state(1, 1..=2));
        assert!(feed.borrow().since(&mut seen).is_some());
        publisher.publish_state(state(1, 1..=2));
        assert_eq!(feed.borrow().since(&mut seen), None);
        publisher.publish_state(state(1, 1..=3));
        let update = feed.borrow().since(&mut seen).expect("one more has ended");
        let update: Value = serde_json::from_slice(&update).expect("valid");
        assert_eq!(update.as_object().map(|fields| fields.len()), Some(1));
        assert_eq!(update["history"].as_array().map(Vec::len), Some(1));
    }
}
