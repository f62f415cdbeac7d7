//! Runs the transfers of one command over its links, to the end of each.
//!
//! There is one loop for all links: it starts every transfer at once (a session makes those wait that are too many),
//! hands each event to the verb, and lets a link finish when its last transfer has ended. When the verb is cancelled,
//! transfers are cancelled by the protocol, so that both ends give up what they had staged; what has not ended
//! [`PATIENCE`] later is dropped.

use std::time::Duration;

use deltasync_proto::{Command, EventKind, Stats, TransferError, TransferId};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::link::{Link, LinkEvent, LinkPlan};
use crate::{ClientError, Options};

/// How long a cancelled transfer may take to end in order.
const PATIENCE: Duration = Duration::from_secs(2);

/// Transfers of one link, each with the verb's own number for it.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The link they share.
    pub(crate) link: LinkPlan,
    /// What to start, in order.
    pub(crate) commands: Vec<(usize, Command)>,
}

/// What the verb hears while its transfers run.
#[derive(Debug)]
pub(crate) enum Happening {
    /// Something happened to the transfer with this number. `Ended` comes once for each.
    Transfer(usize, EventKind),
    /// What all links together have carried so far.
    Carried(Stats),
}

/// How it went, beyond what each transfer told.
#[derive(Debug, Default)]
pub(crate) struct Exchanged {
    /// What all links together have carried.
    pub(crate) carried: Stats,
    /// Why links failed; the transfers they had open were told `Ended` with [`TransferError::ConnectionLost`].
    pub(crate) failures: Vec<ClientError>,
}

/// A link and what runs on it.
struct Running {
    link: Link,
    /// The verb's number of each transfer ever started, `None` once it has ended. Transfer 1 comes first.
    transfers: Vec<Option<usize>>,
    carried: Stats,
    closed: bool,
    /// A transfer has ended because the connection did.
    lost: bool,
}

/// Runs all batches at the same time. A verb may answer the end of a transfer with a command to start under the same
/// number.
pub(crate) async fn exchange(
    batches: Vec<Batch>,
    options: &Options,
    cancel: &CancellationToken,
    mut on: impl FnMut(Happening) -> Option<Command>,
) -> Exchanged {
    let (events, mut happened) = unbounded_channel();
    let mut running: Vec<Running> = Vec::with_capacity(batches.len());
    for (i, batch) in batches.into_iter().enumerate() {
        let link = Link::open(i, batch.link, options.clone(), cancel.clone(), events.clone());
        let mut run = Running { link, transfers: Vec::new(), carried: Stats::default(), closed: false, lost: false };
        batch.commands.into_iter().for_each(|(number, command)| run.start(number, command));
        run.finish_when_idle();
        running.push(run);
    }
    let mut exchanged = Exchanged::default();
    let mut give_up: Option<Instant> = None;
    while running.iter().any(|run| !run.closed) {
        let wait = give_up.unwrap_or_else(Instant::now);
        tokio::select! {
            event = happened.recv() => {
                let (i, event) = event.expect("this function holds a sender");
                let run = &mut running[i];
                match event {
                    LinkEvent::Transfer(event) => run.on_event(event.transfer, event.kind, give_up.is_some(), &mut on),
                    LinkEvent::Carried(stats) => {
                        run.carried = stats;
                        exchanged.carried = total(&running);
                        on(Happening::Carried(exchanged.carried));
                    }
                    LinkEvent::Closed(result) => {
                        run.close(&mut on);
                        // A connection that ended badly when all was done has failed nobody.
                        exchanged.failures.extend(result.err().filter(|_| run.lost));
                    }
                }
            }
            () = cancel.cancelled(), if give_up.is_none() => {
                give_up = Some(Instant::now() + PATIENCE);
                running.iter_mut().for_each(Running::cancel);
            }
            () = sleep_until(wait), if give_up.is_some() => {
                running.iter_mut().filter(|run| !run.closed).for_each(|run| run.close(&mut on));
            }
        }
    }
    if give_up.is_some() && !exchanged.failures.iter().any(|error| matches!(error, ClientError::Interrupted)) {
        exchanged.failures.push(ClientError::Interrupted);
    }
    exchanged
}

fn total(running: &[Running]) -> Stats {
    running.iter().fold(Stats::default(), |sum, run| Stats {
        wire_sent: sum.wire_sent + run.carried.wire_sent,
        wire_received: sum.wire_received + run.carried.wire_received,
        round_trips: sum.round_trips + run.carried.round_trips,
    })
}

impl Running {
    fn start(&mut self, number: usize, command: Command) {
        self.transfers.push(Some(number));
        self.link.command(self.last(), command);
    }

    fn last(&self) -> TransferId {
        TransferId::new(u32::try_from(self.transfers.len()).expect("fewer transfers than 2^32 in one command"))
    }

    fn on_event(
        &mut self,
        transfer: TransferId,
        kind: EventKind,
        cancelled: bool,
        on: &mut impl FnMut(Happening) -> Option<Command>,
    ) {
        let index = (transfer.get() as usize).wrapping_sub(1);
        let Some(Some(number)) = self.transfers.get(index).copied() else { return };
        let ended = matches!(kind, EventKind::Ended(_));
        self.lost |= matches!(kind, EventKind::Ended(Err(TransferError::ConnectionLost(_))));
        let next = on(Happening::Transfer(number, kind));
        if ended {
            self.transfers[index] = None;
            if let Some(command) = next
                && !cancelled
            {
                self.start(number, command);
            }
            self.finish_when_idle();
        }
    }

    fn finish_when_idle(&mut self) {
        if self.transfers.iter().all(Option::is_none) {
            self.link.finish();
        }
    }

    fn cancel(&mut self) {
        for (i, transfer) in self.transfers.iter().enumerate() {
            if transfer.is_some() {
                let transfer = TransferId::new(u32::try_from(i + 1).expect("as many as were started"));
                self.link.command(transfer, Command::Cancel);
            }
        }
        self.link.finish();
    }

    /// Marks the link as over and tells the end of transfers that could not tell it themselves.
    fn close(&mut self, on: &mut impl FnMut(Happening) -> Option<Command>) {
        self.closed = true;
        for transfer in &mut self.transfers {
            if let Some(number) = transfer.take() {
                self.lost = true;
                let lost = TransferError::ConnectionLost("there is no connection".into());
                on(Happening::Transfer(number, EventKind::Ended(Err(lost))));
            }
        }
    }
}
