//! Runs the transfers of one command over its routes, to the end of each.
//!
//! There is one loop for all routes, of which there are several to one peer where that is wished for: it hands each event to its route, which tells the verb, and makes the next try of a
//! route when its moment has come. When the verb is cancelled, waits end at once and transfers are cancelled by the
//! protocol, so that both ends give up what they had staged; what has not ended [`PATIENCE`] later is dropped.

use std::time::Duration;

use deltasync_io::Walks;
use deltasync_proto::{Command, Stats};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::lanes::Lanes;
use crate::link::{LinkEvent, LinkPlan, Peer};
use crate::route::{Route, Routing, Start, sum};
use crate::{ClientError, Options, Update};

/// How long a cancelled transfer may take to end in order.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a verb hears of its connections, whether something has moved or not: it may have looked at something.
const TICK: Duration = Duration::from_millis(250);

/// Transfers with one peer, each with the verb's own number for it.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The link they share.
    pub(crate) link: LinkPlan,
    /// What to start, in order.
    pub(crate) commands: Start,
}

/// How it went, beyond what each transfer told.
#[derive(Debug, Default)]
pub(crate) struct Exchanged {
    /// What all links together have carried.
    pub(crate) carried: Stats,
    /// How many tries were made beyond the first, over all routes.
    pub(crate) retried: u32,
    /// Why routes failed; the transfers they had open were told `Ended` with
    /// [`TransferError::ConnectionLost`](deltasync_proto::TransferError::ConnectionLost).
    pub(crate) failures: Vec<ClientError>,
}

/// Runs all batches at the same time. A verb may answer what happened to a transfer with others to start on the same
/// route, under numbers that no transfer has which has not ended.
pub(crate) async fn exchange(
    batches: Vec<Batch>,
    options: &Options,
    cancel: &CancellationToken,
    mut on: impl FnMut(Update) -> Start,
) -> Exchanged {
    let (events, mut happened) = unbounded_channel();
    let cx = Routing { options, cancel, events };
    let mut routes: Vec<Route> = Vec::with_capacity(batches.len());
    let mut lanes = Vec::new();
    for batch in batches {
        match Lanes::most(&batch, options) {
            1 => routes.push(Route::start(routes.len(), batch.link, batch.commands, &cx)),
            most => lanes.push(Lanes::start(batch, most, &mut routes, &cx)),
        }
    }
    let mut exchanged = Exchanged::default();
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut give_up: Option<Instant> = None;
    while routes.iter().any(|route| !route.is_over()) {
        let wait = give_up.unwrap_or_else(Instant::now);
        let next_try = routes.iter().filter_map(Route::next_try).min();
        tokio::select! {
            event = happened.recv() => {
                let ((i, link), event) = event.expect("this function holds a sender");
                let carried = matches!(event, LinkEvent::Carried(_));
                exchanged.failures.extend(routes[i].on_event(link, event, &cx, &mut on));
                if carried {
                    on(Update::Carried(total(&routes)));
                }
            }
            _ = ticks.tick() => drop(on(Update::Carried(total(&routes)))),
            () = sleep_until(next_try.unwrap_or(wait)), if next_try.is_some() => {
                let now = Instant::now();
                let due = |route: &&mut Route| route.next_try().is_some_and(|moment| moment <= now);
                routes.iter_mut().filter(due).for_each(|route| route.try_again(&cx));
            }
            () = cancel.cancelled(), if give_up.is_none() => {
                give_up = Some(Instant::now() + PATIENCE);
                routes.iter_mut().for_each(|route| route.cancel(&mut on));
            }
            () = sleep_until(wait), if give_up.is_some() => {
                routes.iter_mut().filter(|route| !route.is_over()).for_each(|route| route.abandon(&mut on));
            }
        }
        lanes.iter_mut().for_each(|lanes| lanes.share_out(&mut routes, give_up.is_some(), &cx, &mut on));
    }
    exchanged.carried = total(&routes);
    exchanged.retried = routes.iter().map(Route::retried).sum();
    if give_up.is_some() && !exchanged.failures.iter().any(|error| matches!(error, ClientError::Interrupted)) {
        exchanged.failures.push(ClientError::Interrupted);
    }
    exchanged
}

/// Runs one question on a link of its own.
pub(crate) async fn ask(
    peer: Peer,
    command: Command,
    options: &Options,
    cancel: &CancellationToken,
    on: impl FnMut(Update) -> Start,
) -> Result<(), ClientError> {
    let link = LinkPlan { peer, roots: Vec::new(), known: None, walks: Walks::default() };
    let exchanged = exchange(vec![Batch { link, commands: vec![(0, command)] }], options, cancel, on).await;
    exchanged.failures.into_iter().next().map_or(Ok(()), Err)
}

fn total(routes: &[Route]) -> Stats {
    routes.iter().map(Route::carried).fold(Stats::default(), sum)
}
