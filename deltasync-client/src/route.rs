//! The way to one peer: its transfers, over as many links as it takes, one after the other.
//!
//! A link starts every transfer at once (a session makes those wait that are too many) and is let go when the last of them
//! has ended. What ends in a way that another try may mend is kept instead of being told: when the link is over, or after
//! a wait while it still carries others, it is started again under a new number. So a transfer is told `Ended` once, and
//! what has ended well is not asked again. A push whose server had published it, but whose last word was lost, is asked
//! again and ends as being there already.
//!
//! Whoever is told may answer with transfers to start: those of a tree's files become known on the way. They go on the
//! link that is there. Where none is left to start them on, they end at once as what they follow did.
//!
//! Where a peer is reached by several connections at once, each is a route. The first is as above; one beside it tries nothing
//! again: what it loses, and what is to start, it leaves to [`Lanes`](crate::lanes::Lanes), which shares it out.
//!
//! Tries are counted as [`Retries`](crate::Retries) says. Invariant: as long as the route is not over there is a link, or a
//! moment at which the next one is made.

use std::collections::BTreeMap;

use deltasync_io::Bandwidth;
use deltasync_proto::{Command, EventKind, Outcome, Progress, RefusalCode, Stats, TransferError, TransferId};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::link::{Link, LinkEvent, LinkPlan, Peer};
use crate::retries::{link_may_recover, may_have_been_heard, transfer_may_recover};
use crate::summary::chain;
use crate::{ClientError, Options, Retry, Update};

/// By how many bytes a transfer has to get further than ever before to count as progress.
const FURTHER: u64 = 64 << 10;

/// Which link of which route an event is of.
pub(crate) type LinkId = (usize, u32);

/// What all routes of a verb have in common.
#[derive(Debug)]
pub(crate) struct Routing<'a> {
    pub(crate) options: &'a Options,
    pub(crate) cancel: &'a CancellationToken,
    pub(crate) events: UnboundedSender<(LinkId, LinkEvent)>,
}

/// Transfers to start, and trees to be told that their members are there, each with the verb's own number for it.
pub(crate) type Start = Vec<(usize, Command)>;

/// Who is told what happens, and may answer what happened to a transfer with those to start beside it or next. A number is
/// free again once its transfer was told to have ended.
pub(crate) type Tell<'a> = dyn FnMut(Update) -> Start + 'a;

/// What a route is among those to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The only one.
    Only,
    /// The first of several: it tries again, and holds its link until it is told that all is done.
    First,
    /// One beside the first.
    Beside,
}

/// What a route leaves to be done.
#[derive(Debug, Default)]
pub(crate) struct Out {
    /// To be started on the first route: what a tree asks for itself, and what a route beside has lost.
    pub(crate) first: Vec<Job>,
    /// To be started on any.
    pub(crate) any: Vec<Job>,
    /// Trees that are to be told on the first route that their members are there.
    pub(crate) complete: Vec<usize>,
}

/// What is still to be done with one peer, and the link that does it.
#[derive(Debug)]
pub(crate) struct Route {
    index: usize,
    lane: Lane,
    out: Out,
    /// The part of the bandwidth that is its own, where that is not all of it.
    share: Option<Bandwidth>,
    plan: LinkPlan,
    link: Option<Link>,
    /// How many links were made. Events of an earlier one come too late.
    made: u32,
    connected: bool,
    /// What was started on this link and has not ended, by its transfer.
    running: BTreeMap<TransferId, Job>,
    /// How many transfers were started on this link.
    started: u32,
    /// What is to be started again, and how it ended.
    again: Vec<(Job, TransferError)>,
    next_try: Option<Instant>,
    /// Tries in a row, and whether anything got further since the last one.
    tries: u32,
    further: bool,
    /// How far each transfer ever got.
    reached: BTreeMap<usize, u64>,
    /// What this link has carried, and those before it.
    carried: Stats,
    before: Stats,
    /// How many tries were made in all.
    retried: u32,
    /// A transfer was told that it ended because the connection did.
    lost: bool,
    cancelled: bool,
}

/// A transfer with the verb's own number for it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) number: usize,
    pub(crate) command: Command,
}

impl Route {
    /// Starts the transfers with one peer.
    pub(crate) fn start(index: usize, plan: LinkPlan, commands: Start, cx: &Routing<'_>) -> Self {
        Self::start_as(Lane::Only, index, plan, jobs(commands), None, cx)
    }

    /// As one of several, with a share of the bandwidth.
    pub(crate) fn start_as(
        lane: Lane,
        index: usize,
        plan: LinkPlan,
        jobs: Vec<Job>,
        share: Option<Bandwidth>,
        cx: &Routing<'_>,
    ) -> Self {
        let mut route = Self {
            index,
            lane,
            out: Out::default(),
            share,
            plan,
            link: None,
            made: 0,
            connected: false,
            running: BTreeMap::new(),
            started: 0,
            again: Vec::new(),
            next_try: None,
            tries: 0,
            further: false,
            reached: BTreeMap::new(),
            carried: Stats::default(),
            before: Stats::default(),
            retried: 0,
            lost: false,
            cancelled: false,
        };
        route.open(jobs, cx);
        route
    }

    /// What it leaves to others to start.
    pub(crate) fn take_out(&mut self) -> Out {
        std::mem::take(&mut self.out)
    }

    /// How many transfers run on its link, without trees' own, which may wait for others; `None` where there is no link.
    pub(crate) fn load(&self) -> Option<usize> {
        self.link.as_ref().map(|_| self.running.values().filter(|job| !job.is_of_a_tree()).count())
    }

    /// True when its link has been there, and is.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected && self.link.is_some()
    }

    /// True when nothing runs, and nothing waits to be tried again.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.again.is_empty() && self.next_try.is_none()
    }

    /// True when transfers were given up since there was no connection for them.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost
    }

    /// Starts transfers, on the link that is there, or the next one.
    pub(crate) fn take_over(&mut self, jobs: Vec<Job>, cx: &Routing<'_>) {
        if self.link.is_some() {
            return self.begin(jobs);
        }
        match self.next_try {
            Some(_) => self.again.extend(jobs.into_iter().map(|job| (job, no_connection()))),
            None => self.open(jobs, cx),
        }
    }

    /// Tells transfers that were never started their end.
    pub(crate) fn end_unstarted(&mut self, jobs: Vec<Job>, error: &TransferError, tell: &mut Tell<'_>) {
        let mut left: Vec<usize> = jobs.into_iter().map(|job| job.number).collect();
        while let Some(number) = left.pop() {
            let out = Out::of(tell(Update::File { index: number, kind: EventKind::Ended(Err(error.clone())) }));
            left.extend(out.first.iter().chain(&out.any).map(|job| job.number));
        }
    }

    /// Tells trees that their members are there, but for those that have ended meanwhile or wait to be started again: they will
    /// ask anew.
    pub(crate) fn complete(&self, trees: &[usize]) {
        let Some(link) = &self.link else { return };
        for (transfer, _) in self.running.iter().filter(|(_, job)| trees.contains(&job.number)) {
            link.command(*transfer, Command::Complete);
        }
    }

    /// Lets its link end once all its transfers have.
    pub(crate) fn finish(&mut self) {
        self.link.iter_mut().for_each(Link::finish);
    }

    /// Bounds what its link moves from now on.
    pub(crate) fn limit(&mut self, share: Bandwidth) {
        if self.share.replace(share) != Some(share)
            && let Some(link) = &self.link
        {
            link.limit(share);
        }
    }

    /// True when all transfers have been told their end, and no link is left.
    pub(crate) fn is_over(&self) -> bool {
        self.link.is_none() && self.next_try.is_none()
    }

    /// When [`Route::try_again`] is due.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        self.next_try
    }

    /// What all its links have carried.
    pub(crate) fn carried(&self) -> Stats {
        sum(self.before, self.carried)
    }

    /// How many tries were made beyond the first.
    pub(crate) fn retried(&self) -> u32 {
        self.retried
    }

    /// Takes in what happened on a link; the error is why the route failed.
    pub(crate) fn on_event(
        &mut self,
        link: u32,
        event: LinkEvent,
        cx: &Routing<'_>,
        tell: &mut Tell<'_>,
    ) -> Option<ClientError> {
        if link != self.made || self.link.is_none() {
            return None;
        }
        match event {
            LinkEvent::Connecting | LinkEvent::Connected if self.lane == Lane::Beside => self.connected = true,
            LinkEvent::Connecting => {
                tell(Update::Connecting { peer: self.peer() });
            }
            LinkEvent::Connected => {
                self.connected = true;
                tell(Update::Connected { peer: self.peer() });
            }
            LinkEvent::Carried(stats) => self.carried = stats,
            LinkEvent::Transfer(event) => self.on_transfer(event.transfer, event.kind, cx, tell),
            LinkEvent::Closed(result) => return self.on_closed(result, cx, tell),
        }
        None
    }

    /// Starts again what waits for it: on the link where others still run, else on a new one.
    pub(crate) fn try_again(&mut self, cx: &Routing<'_>) {
        self.next_try = None;
        self.retried += 1;
        let jobs = std::mem::take(&mut self.again).into_iter().map(|(job, _)| job).collect();
        if self.link.is_some() && !self.running.is_empty() {
            self.begin(jobs);
        } else {
            self.open(jobs, cx);
        }
    }

    /// Cancels what runs by the protocol, and what waits at once.
    pub(crate) fn cancel(&mut self, tell: &mut Tell<'_>) {
        self.cancelled = true;
        self.next_try = None;
        for (job, _) in std::mem::take(&mut self.again) {
            self.end(job.number, Err(TransferError::Cancelled), tell);
        }
        let Some(link) = &mut self.link else { return };
        self.running.keys().for_each(|transfer| link.command(*transfer, Command::Cancel));
        link.finish();
    }

    /// Drops the link and tells the end of what has none.
    pub(crate) fn abandon(&mut self, tell: &mut Tell<'_>) {
        self.link = None;
        self.gather();
        self.give_up(tell);
    }

    fn peer(&self) -> String {
        match &self.plan.peer {
            Peer::Server(server) => server.to_string(),
            Peer::Directory(directory) => crate::Shown::path(directory).to_string(),
        }
    }

    fn open(&mut self, jobs: Vec<Job>, cx: &Routing<'_>) {
        self.made += 1;
        self.before = self.carried();
        self.carried = Stats::default();
        (self.running, self.started) = (BTreeMap::new(), 0);
        let id = (self.index, self.made);
        let mut options = cx.options.clone();
        options.bandwidth = self.share.or(options.bandwidth);
        let link = Link::open(id, self.plan.clone(), options, cx.cancel.clone(), cx.events.clone());
        self.link = Some(link);
        self.begin(jobs);
        self.finish_when_idle();
    }

    pub(crate) fn begin(&mut self, jobs: Vec<Job>) {
        let Some(link) = &self.link else { return };
        for job in jobs {
            self.started = self.started.checked_add(1).expect("fewer transfers than 2^32 on one link");
            let transfer = TransferId::new(self.started);
            link.command(transfer, job.command.clone());
            self.running.insert(transfer, job);
        }
    }

    fn on_transfer(&mut self, transfer: TransferId, kind: EventKind, cx: &Routing<'_>, tell: &mut Tell<'_>) {
        let Some(number) = self.running.get(&transfer).map(|job| job.number) else { return };
        let EventKind::Ended(result) = kind else {
            if let EventKind::Progress(progress) = &kind {
                self.note(number, progress);
            }
            let start = tell(Update::File { index: number, kind });
            self.follow(start, &Err(TransferError::Cancelled), tell);
            return;
        };
        let job = self.running.remove(&transfer).expect("it has a number");
        match result {
            Err(error) if self.lane == Lane::Beside && !self.cancelled && transfer_may_recover(&error) => {
                self.out.first.push(job);
            }
            Err(error) if self.may_try() && job.may_recover(&error) => {
                // A lost connection is the end of all of them: what is to be done is decided when it has told why.
                let lost = matches!(error, TransferError::ConnectionLost(_));
                let why = chain(&error.clone().into());
                self.again.push((job, error));
                let others = !self.running.is_empty();
                if !lost && others && self.next_try.is_none() && !self.plan_try(why, cx, tell) {
                    self.give_up(tell);
                }
            }
            result => {
                self.further |= result.is_ok();
                self.lost |= matches!(result, Err(TransferError::ConnectionLost(_)));
                self.end(number, result, tell);
            }
        }
        self.finish_when_idle();
    }

    /// Tells the end of a transfer, and starts what is to follow it.
    fn end(&mut self, number: usize, result: Result<Outcome, TransferError>, tell: &mut Tell<'_>) {
        let ended = result.as_ref().map(|_| ()).map_err(Clone::clone);
        let start = tell(Update::File { index: number, kind: EventKind::Ended(result) });
        self.follow(start, &ended, tell);
    }

    /// Does what is to follow; transfers that cannot be started end as what they follow.
    fn follow(&mut self, start: Start, ended: &Result<(), TransferError>, tell: &mut Tell<'_>) {
        let Out { mut first, any, complete } = Out::of(start);
        match self.lane {
            Lane::First | Lane::Beside if !self.cancelled => {
                self.out.first.extend(first);
                self.out.any.extend(any);
                self.out.complete.extend(complete);
                return;
            }
            _ => first.extend(any),
        }
        if self.link.is_some() && !self.cancelled {
            self.complete(&complete);
            return self.begin(first);
        }
        self.end_unstarted(first, &ended.clone().err().unwrap_or(TransferError::Cancelled), tell);
    }

    fn note(&mut self, number: usize, progress: &Progress) {
        let made = progress.made().get();
        let reached = self.reached.entry(number).or_default();
        if made >= *reached + FURTHER || made > *reached && progress.made() == progress.total {
            *reached = made;
            self.further = true;
        }
    }

    fn on_closed(
        &mut self,
        result: Result<(), ClientError>,
        cx: &Routing<'_>,
        tell: &mut Tell<'_>,
    ) -> Option<ClientError> {
        self.link = None;
        self.gather();
        if self.lane == Lane::Beside && !self.cancelled {
            self.out.first.extend(std::mem::take(&mut self.again).into_iter().map(|(job, _)| job));
            return None;
        }
        let heard = result.as_ref().err().is_none_or(may_have_been_heard);
        let unanswered = |(job, error): &mut (Job, TransferError)| {
            heard && job.is_asked_once() && matches!(error, TransferError::ConnectionLost(_))
        };
        for (job, error) in self.again.extract_if(.., unanswered).collect::<Vec<_>>() {
            self.lost = true;
            self.end(job.number, Err(error), tell);
        }
        if let Some((_, error)) = self.again.first() {
            let may =
                self.may_try() && result.as_ref().err().is_none_or(|error| link_may_recover(error, self.connected));
            let why = match &result {
                Err(error) => chain(error),
                Ok(()) => chain(&error.clone().into()),
            };
            if may && (self.next_try.is_some() || self.plan_try(why, cx, tell)) {
                return None;
            }
        }
        self.give_up(tell);
        // A connection that ended badly when all was done has failed nobody.
        result.err().filter(|_| self.lost)
    }

    /// Only a server may do better the next time: what happens in this process happens again.
    fn may_try(&self) -> bool {
        !self.cancelled && self.lane != Lane::Beside && matches!(self.plan.peer, Peer::Server(_))
    }

    /// Sets the moment of the next try; false when there were enough.
    fn plan_try(&mut self, why: String, cx: &Routing<'_>, tell: &mut Tell<'_>) -> bool {
        let retries = &cx.options.retries;
        if std::mem::take(&mut self.further) {
            self.tries = 0;
        }
        if self.tries >= retries.most {
            return false;
        }
        self.tries += 1;
        let after = retries.wait_at_random(self.tries);
        self.next_try = Some(Instant::now() + after);
        tell(Update::Retrying(Retry { peer: self.peer(), why, after, number: self.tries, of: retries.most }));
        true
    }

    /// What runs on a link that is over could not tell its end.
    fn gather(&mut self) {
        self.again.extend(std::mem::take(&mut self.running).into_values().map(|job| (job, no_connection())));
    }

    fn give_up(&mut self, tell: &mut Tell<'_>) {
        self.next_try = None;
        for (job, error) in std::mem::take(&mut self.again) {
            self.lost |= matches!(error, TransferError::ConnectionLost(_));
            self.end(job.number, Err(error), tell);
        }
    }

    fn finish_when_idle(&mut self) {
        if let Some(link) = &mut self.link
            && self.lane == Lane::Only
            && self.running.is_empty()
        {
            link.finish();
        }
    }
}

/// As what a transfer ends whose link could not tell its end.
pub(crate) fn no_connection() -> TransferError {
    TransferError::ConnectionLost("there is no connection".into())
}

impl Job {
    /// True for what must not be done twice: it is not asked again once a server may have heard it.
    fn is_asked_once(&self) -> bool {
        matches!(self.command, Command::MakeDirectory { .. } | Command::Rename { .. } | Command::Remove { .. })
    }

    /// Whether it may do better when it is asked again, after it ended so. Of a connection that was lost it is decided when
    /// that has told why.
    fn may_recover(&self, error: &TransferError) -> bool {
        let stalled = match error {
            TransferError::Stalled { .. } => true,
            TransferError::Refused(refusal) => refusal.code == RefusalCode::Stalled,
            _ => false,
        };
        transfer_may_recover(error) && !(stalled && self.is_asked_once())
    }

    /// True for a tree's own transfer.
    pub(crate) fn is_of_a_tree(&self) -> bool {
        matches!(self.command, Command::PushTree { .. } | Command::PullTree { .. })
    }
}

impl Out {
    /// What is to be done where.
    fn of(start: Start) -> Self {
        let mut out = Self::default();
        for job in jobs(start) {
            match job.command {
                Command::Complete => out.complete.push(job.number),
                _ if job.is_of_a_tree() => out.first.push(job),
                _ => out.any.push(job),
            }
        }
        out
    }
}

pub(crate) fn jobs(start: Start) -> Vec<Job> {
    start.into_iter().map(|(number, command)| Job { number, command }).collect()
}

pub(crate) fn sum(a: Stats, b: Stats) -> Stats {
    Stats {
        wire_sent: a.wire_sent + b.wire_sent,
        wire_received: a.wire_received + b.wire_received,
        round_trips: a.round_trips + b.round_trips,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use deltasync_core::{ByteLen, RelPath};
    use deltasync_io::{DriveError, Walks};
    use deltasync_proto::{CloseCode, Event, Refusal, RefusalCode, SessionError};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::{Place, Retries};

    /// A route to somebody who never says a word: what happens on its link is told by the test.
    struct Stage {
        route: Route,
        options: Options,
        cancel: CancellationToken,
        events: UnboundedSender<(LinkId, LinkEvent)>,
        _happened: UnboundedReceiver<(LinkId, LinkEvent)>,
        _listener: TcpListener,
        told: Vec<Update>,
        /// What is answered to the next end of a transfer.
        next: Start,
    }

    impl Stage {
        async fn new(transfers: usize, most: u32) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let url = format!("deltasync://{}/", listener.local_addr().expect("bound"));
            let Ok(Place::Remote(place)) = Place::parse(url.as_ref()) else { panic!("{url}") };
            let plan =
                LinkPlan { peer: Peer::Server(place.server), roots: Vec::new(), known: None, walks: Walks::default() };
            let wait = Duration::from_secs(1);
            let options = Options::default().retries(Retries { most, first: wait, longest: wait });
            let (events, happened) = unbounded_channel();
            let cancel = CancellationToken::new();
            let commands = (0..transfers).map(|number| (number, Command::Root { path: RelPath::ROOT })).collect();
            let cx = Routing { options: &options, cancel: &cancel, events: events.clone() };
            let route = Route::start(0, plan, commands, &cx);
            Self {
                route,
                options,
                cancel,
                events,
                _happened: happened,
                _listener: listener,
                told: Vec::new(),
                next: Vec::new(),
            }
        }

        fn happen(&mut self, link: u32, event: LinkEvent) -> Option<ClientError> {
            let Self { route, options, cancel, events, told, next, .. } = self;
            let cx = Routing { options, cancel, events: events.clone() };
            let mut tell = |update| {
                let start = match &update {
                    Update::File { kind: EventKind::Ended(_), .. } => std::mem::take(next),
                    _ => Vec::new(),
                };
                told.push(update);
                start
            };
            route.on_event(link, event, &cx, &mut tell)
        }

        fn event(&mut self, link: u32, transfer: u32, kind: EventKind) {
            let transfer = TransferId::new(transfer);
            assert!(self.happen(link, LinkEvent::Transfer(Event { transfer, kind })).is_none());
        }

        fn end(&mut self, link: u32, transfer: u32, result: Result<Outcome, TransferError>) {
            self.event(link, transfer, EventKind::Ended(result));
        }

        fn close(&mut self, link: u32, error: Option<SessionError>) -> Option<ClientError> {
            let failed = |error| ClientError::Connection { peer: "h".into(), source: DriveError::Session(error) };
            self.happen(link, LinkEvent::Closed(error.map(failed).map_or(Ok(()), Err)))
        }

        /// All transfers of a link are lost, and the link with them.
        fn cut(&mut self, link: u32, transfers: u32) -> Option<ClientError> {
            (1..=transfers).for_each(|transfer| self.end(link, transfer, Err(lost())));
            self.close(link, Some(SessionError::ConnectionLost { open: transfers as usize }))
        }

        fn try_again(&mut self) {
            assert!(self.route.next_try().is_some());
            let Self { route, options, cancel, events, .. } = self;
            route.try_again(&Routing { options, cancel, events: events.clone() });
        }

        fn progress(&mut self, link: u32, made: u64) {
            let len = ByteLen::new;
            let progress = Progress { total: len(1 << 20), copied: len(made), ..Progress::default() };
            self.event(link, 1, EventKind::Progress(progress));
        }

        /// What was told since the last look: the numbers of tries, and of transfers that have ended.
        fn told(&mut self) -> (Vec<u32>, Vec<usize>) {
            let (mut tries, mut ended) = (Vec::new(), Vec::new());
            for update in self.told.drain(..) {
                match update {
                    Update::Retrying(retry) => tries.push(retry.number),
                    Update::File { index, kind: EventKind::Ended(_) } => ended.push(index),
                    _ => {}
                }
            }
            (tries, ended)
        }
    }

    fn lost() -> TransferError {
        TransferError::ConnectionLost("cut".into())
    }

    fn stalled() -> TransferError {
        TransferError::Stalled { after: Duration::from_secs(30) }
    }

    #[tokio::test]
    async fn what_had_ended_is_not_asked_again_and_the_rest_is_told_once() {
        let mut stage = Stage::new(3, 2).await;
        stage.end(1, 2, Ok(Outcome::default()));
        assert_eq!(stage.told(), (vec![], vec![1]));
        assert!(stage.happen(1, LinkEvent::Closed(Ok(()))).is_none(), "another try may mend it");
        assert_eq!(stage.told(), (vec![1], vec![]));
        stage.try_again();
        assert_eq!(stage.route.running.len(), 2);
        // The first link is history.
        stage.end(1, 1, Ok(Outcome::default()));
        assert_eq!(stage.told(), (vec![], vec![]));
        assert!(stage.cut(2, 2).is_none());
        assert_eq!(stage.told(), (vec![2], vec![]));
        stage.try_again();
        let failure = stage.cut(3, 2);
        assert!(matches!(failure, Some(ClientError::Connection { .. })), "{failure:?}");
        assert_eq!(stage.told(), (vec![], vec![0, 2]));
        assert!(stage.route.is_over());
        assert_eq!(stage.route.retried(), 2);
    }

    #[tokio::test]
    async fn without_retries_the_first_failure_is_told() {
        let mut stage = Stage::new(2, 0).await;
        assert!(stage.cut(1, 2).is_some());
        assert_eq!(stage.told(), (vec![], vec![0, 1]));
        assert!(stage.route.is_over());
    }

    #[tokio::test]
    async fn a_peer_that_decided_against_us_is_not_asked_again() {
        let mut stage = Stage::new(2, 5).await;
        let refusal = Refusal { code: RefusalCode::Denied, message: "no".into(), current: None };
        stage.end(1, 1, Err(TransferError::Refused(refusal)));
        assert_eq!(stage.told(), (vec![], vec![0]));
        stage.end(1, 2, Err(lost()));
        let close = SessionError::ClosedByPeer { code: CloseCode::Invalid, message: "no".into() };
        assert!(stage.close(1, Some(close)).is_some());
        assert_eq!(stage.told(), (vec![], vec![1]));
        assert!(stage.route.is_over());
    }

    #[tokio::test]
    async fn a_stalled_transfer_is_started_again_beside_those_that_run() {
        let mut stage = Stage::new(2, 1).await;
        stage.end(1, 1, Err(stalled()));
        assert_eq!(stage.told(), (vec![1], vec![]));
        stage.try_again();
        assert_eq!(stage.route.made, 1, "the link is as it was");
        stage.end(1, 3, Err(stalled()));
        assert_eq!(stage.told(), (vec![], vec![0]), "there was one try");
        stage.end(1, 2, Ok(Outcome::default()));
        assert!(stage.close(1, None).is_none());
        assert_eq!((stage.told(), stage.route.is_over()), ((vec![], vec![1]), true));
    }

    #[tokio::test]
    async fn when_all_stall_a_new_link_is_made() {
        let mut stage = Stage::new(2, 1).await;
        stage.end(1, 1, Err(stalled()));
        stage.end(1, 2, Err(stalled()));
        assert!(stage.close(1, None).is_none());
        assert_eq!(stage.told(), (vec![1], vec![]), "one try for both");
        stage.try_again();
        assert_eq!((stage.route.made, stage.route.running.len()), (2, 2));
    }

    #[tokio::test]
    async fn tries_are_counted_anew_when_a_transfer_gets_further_than_ever() {
        let mut stage = Stage::new(1, 2).await;
        let mut link = 0;
        // As far as before, 64 KiB further, one byte less than that, and 64 KiB again.
        for (made, number) in [(100_000, 1), (100_000, 2), (165_536, 1), (231_071, 2), (231_072, 1)] {
            link += 1;
            stage.progress(link, made);
            assert!(stage.cut(link, 1).is_none(), "{made}");
            assert_eq!(stage.told(), (vec![number], vec![]), "{made}");
            stage.try_again();
        }
    }

    fn root() -> Command {
        Command::Root { path: RelPath::ROOT }
    }

    #[tokio::test]
    async fn what_follows_a_transfer_runs_on_the_same_link_and_is_tried_again_as_any_other() {
        let mut stage = Stage::new(1, 1).await;
        stage.next = vec![(3, root()), (4, root())];
        stage.end(1, 1, Ok(Outcome::default()));
        assert_eq!((stage.told(), stage.route.running.len()), ((vec![], vec![0]), 2));
        stage.next = vec![(0, root())];
        stage.end(1, 3, Ok(Outcome::default()));
        assert_eq!((stage.told(), stage.route.running.len()), ((vec![], vec![4]), 2));
        assert!((1..=4).map(|transfer| stage.end(1, transfer, Err(lost()))).count() == 4);
        assert!(stage.close(1, Some(SessionError::ConnectionLost { open: 2 })).is_none());
        assert_eq!(stage.told(), (vec![1], vec![]));
        stage.try_again();
        assert_eq!(stage.route.running.len(), 2);
        stage.end(2, 1, Ok(Outcome::default()));
        stage.end(2, 2, Ok(Outcome::default()));
        assert!(stage.close(2, None).is_none());
        assert_eq!((stage.told(), stage.route.is_over()), ((vec![], vec![3, 0]), true));
    }

    #[tokio::test]
    async fn what_would_follow_ends_too_where_no_link_is_left() {
        let mut stage = Stage::new(1, 0).await;
        stage.next = vec![(3, root()), (4, root())];
        assert!(stage.cut(1, 1).is_some());
        let (_, mut ended) = stage.told();
        ended.sort_unstable();
        assert_eq!((ended, stage.route.is_over()), (vec![0, 3, 4], true));
    }

    #[tokio::test]
    async fn cancelling_ends_a_wait_at_once() {
        let mut stage = Stage::new(2, 5).await;
        stage.end(1, 2, Ok(Outcome::default()));
        stage.end(1, 1, Err(lost()));
        assert!(stage.close(1, Some(SessionError::ConnectionLost { open: 1 })).is_none());
        assert!(!stage.route.is_over());
        stage.told();
        let told = &mut stage.told;
        stage.route.cancel(&mut |update| {
            told.push(update);
            Vec::new()
        });
        let ended = Update::File { index: 0, kind: EventKind::Ended(Err(TransferError::Cancelled)) };
        assert_eq!((&stage.told[..], stage.route.is_over()), (&[ended][..], true));
    }
}
