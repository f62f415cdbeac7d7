//! Several connections to one peer at once, for a link on which one alone is slow.
//!
//! The first route to a peer is the one that matters: it carries the trees' own transfers, and tries again what is lost. Others
//! are made beside it as soon as it has connected and something waits that is not on its way: another source, or a large file of
//! a tree. Each gets the next that waits whenever it carries fewer than [`WIDTH`]. What a route beside loses goes to the first,
//! and no other is made in its place: where a server takes no more connections of ours, fewer do all the work.
//!
//! All of them share one bandwidth, in equal parts, whatever their number. They are let go together, when all is done.

use std::collections::VecDeque;

use deltasync_io::Bandwidth;
use deltasync_proto::TransferError;

use crate::Options;
use crate::exchange::Batch;
use crate::link::{LinkPlan, Peer};
use crate::route::{Job, Lane, Route, Routing, Tell, jobs, no_connection};

/// How many transfers a connection carries before the next one waits: enough to be busy, few enough that another one
/// which is faster gets more.
const WIDTH: usize = 8;

/// The routes to one peer.
#[derive(Debug)]
pub(crate) struct Lanes {
    plan: LinkPlan,
    /// Which routes, the first one first.
    routes: Vec<usize>,
    /// How many there may be.
    most: usize,
    /// What has not been started.
    waiting: VecDeque<Job>,
}

impl Lanes {
    /// How many connections a batch may use.
    pub(crate) fn most(batch: &Batch, options: &Options) -> usize {
        // Within this process one is as fast as several; none may be so slow that it is taken for a dead one.
        let of_bandwidth = options.bandwidth.map_or(usize::MAX, Bandwidth::transfers);
        match batch.link.peer {
            Peer::Server(_) => options.connections.min(of_bandwidth).clamp(1, Options::CONNECTIONS_MAX),
            Peer::Directory(_) => 1,
        }
    }

    /// Starts what is to come first.
    pub(crate) fn start(batch: Batch, most: usize, routes: &mut Vec<Route>, cx: &Routing<'_>) -> Self {
        let (mut first, mut waiting): (Vec<Job>, VecDeque<Job>) = (Vec::new(), VecDeque::new());
        for job in jobs(batch.commands) {
            if job.is_of_a_tree() { first.push(job) } else { waiting.push_back(job) }
        }
        if first.is_empty() {
            first.extend(waiting.pop_front());
        }
        let index = routes.len();
        routes.push(Route::start_as(Lane::First, index, batch.link.clone(), first, None, cx));
        Self { plan: batch.link, routes: vec![index], most, waiting }
    }

    /// Takes in what the routes have left to be started, and starts what there is room for: to be called whenever something
    /// has happened.
    pub(crate) fn share_out(
        &mut self,
        routes: &mut Vec<Route>,
        cancelled: bool,
        cx: &Routing<'_>,
        tell: &mut Tell<'_>,
    ) {
        let first = self.routes[0];
        let (mut back, mut complete) = (Vec::new(), Vec::new());
        for index in self.routes.clone() {
            let out = routes[index].take_out();
            back.extend(out.first);
            self.waiting.extend(out.any);
            complete.extend(out.complete);
        }
        self.drop_lost(routes, cx);
        if cancelled || routes[first].has_lost() {
            let error = if cancelled { TransferError::Cancelled } else { no_connection() };
            let live = !cancelled && self.routes.iter().any(|index| routes[*index].load().is_some());
            let waiting = if live { Vec::new() } else { std::mem::take(&mut self.waiting).into() };
            for jobs in [back, waiting] {
                routes[first].end_unstarted(jobs, &error, tell);
            }
        } else {
            routes[first].complete(&complete);
            if !back.is_empty() {
                routes[first].take_over(back, cx);
            }
        }
        while let Some(job) = self.waiting.pop_front() {
            if let Some(job) = self.start_one(job, routes, cx) {
                self.waiting.push_front(job);
                break;
            }
        }
        if self.waiting.is_empty() && self.routes.iter().all(|index| routes[*index].is_idle()) {
            self.routes.iter().for_each(|index| routes[*index].finish());
        }
    }

    /// Starts a transfer where the least runs; it comes back where there is no room.
    fn start_one(&mut self, job: Job, routes: &mut Vec<Route>, cx: &Routing<'_>) -> Option<Job> {
        let first = self.routes[0];
        let load = |index: &usize| Some((routes[*index].load()?, *index));
        let least = self.routes.iter().filter_map(load).min();
        let may_open = self.routes.len() < self.most && routes[first].is_connected();
        match least {
            Some((load, index))
                if load == 0 || !may_open && load < WIDTH && (index != first || routes[first].is_connected()) =>
            {
                routes[index].begin(vec![job]);
                None
            }
            Some(_) if may_open => {
                let share = self.limit(self.routes.len() + 1, routes, cx);
                let index = routes.len();
                routes.push(Route::start_as(Lane::Beside, index, self.plan.clone(), vec![job], share, cx));
                self.routes.push(index);
                None
            }
            // Between two tries of the first.
            Some(_) => Some(job),
            None if routes[first].has_lost() || !routes[first].is_over() => Some(job),
            None => {
                routes[first].take_over(vec![job], cx);
                None
            }
        }
    }

    /// Routes beside the first that are over are not made again.
    fn drop_lost(&mut self, routes: &mut [Route], cx: &Routing<'_>) {
        let before = self.routes.len();
        let first = self.routes[0];
        self.routes.retain(|index| *index == first || !routes[*index].is_over());
        if self.routes.len() < before {
            self.most = self.routes.len();
            self.limit(self.most, routes, cx);
        }
    }

    /// Gives each of so many connections its part of the bandwidth.
    fn limit(&self, connections: usize, routes: &mut [Route], cx: &Routing<'_>) -> Option<Bandwidth> {
        let all = cx.options.bandwidth?;
        let share = Bandwidth::new(all.bytes() / connections as u64).ok()?;
        self.routes.iter().for_each(|index| routes[*index].limit(share));
        Some(share)
    }
}
