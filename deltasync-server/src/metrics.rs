//! The state as metrics, in the text exposition format 0.0.4 that Prometheus reads.
//!
//! Names begin with `deltasync_`, units are seconds and bytes, counters end in `_total`. The only labels are words of ours
//! and, for the dashboard of several servers, the addresses that it was started with: peers cannot add any.

use std::fmt::{Display, Write};

use crate::{Ended, Failures, Fleet, Histogram, PassState, Spread, State};

/// The media type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of one server.
pub(crate) fn of_server(state: &State) -> String {
    let State { server, totals, scrub, spread, .. } = state;
    let mut text = Text::default();
    text.family("deltasync_build_info", "gauge", "The version that runs; always 1.");
    text.sample("deltasync_build_info", &[("version", &server.version)], 1);
    text.family("deltasync_start_time_seconds", "gauge", "When the server started, in seconds since 1970.");
    text.sample("deltasync_start_time_seconds", &[], server.started as f64 / 1000.0);
    text.single("deltasync_clients", "gauge", "Clients that are connected.", server.clients);
    text.single("deltasync_transfers_running", "gauge", "Transfers that run.", server.running);
    text.family("deltasync_sessions_total", "counter", "Connections that were taken or turned away.");
    text.sample("deltasync_sessions_total", &[("result", "taken")], totals.sessions);
    text.sample("deltasync_sessions_total", &[("result", "refused")], totals.sessions_refused);
    let help = "Connections that ended because the peer was too slow, silent or idle.";
    text.single("deltasync_sessions_timed_out_total", "counter", help, totals.sessions_timed_out);
    let help = "Transfers that were refused because too many ran, or held too much.";
    text.single("deltasync_transfers_refused_total", "counter", help, totals.transfers_refused);
    let help = "Connections that ended by an error.";
    text.single("deltasync_sessions_failed_total", "counter", help, totals.sessions_failed);
    text.family("deltasync_transfers_total", "counter", "Transfers that ended, by kind and by how.");
    let verbs = [
        ("push", &totals.push),
        ("pull", &totals.pull),
        ("list", &totals.list),
        ("root", &totals.root),
        ("alter", &totals.alter),
    ];
    for (verb, Ended { done, failed, cancelled }) in verbs {
        for (result, count) in [("done", done), ("failed", failed), ("cancelled", cancelled)] {
            text.sample("deltasync_transfers_total", &[("verb", verb), ("result", result)], count);
        }
    }
    text.family("deltasync_transfer_failures_total", "counter", "Transfers that failed, by why.");
    let Failures { conflict, integrity, changed, storage, stalled, lost, refused } = totals.failures;
    let reasons = [
        ("conflict", conflict),
        ("integrity", integrity),
        ("changed", changed),
        ("storage", storage),
        ("stalled", stalled),
        ("lost", lost),
        ("refused", refused),
    ];
    for (reason, count) in reasons {
        text.sample("deltasync_transfer_failures_total", &[("reason", reason)], count);
    }
    let verbs = [("push", &spread.push), ("pull", &spread.pull)];
    let of_all = |pick: fn(&Spread) -> &Histogram| verbs.map(|(verb, spread)| (verb, pick(spread)));
    let help = "How long transfers took that ended well.";
    text.histograms("deltasync_transfer_duration_seconds", help, of_all(|spread| &spread.seconds));
    let help = "How long the files were of transfers that ended well.";
    text.histograms("deltasync_transfer_file_bytes", help, of_all(|spread| &spread.file_bytes));
    let help = "What transfers cost on the wire that ended well.";
    text.histograms("deltasync_transfer_wire_bytes", help, of_all(|spread| &spread.wire_bytes));
    if server.disk_total > 0 {
        let help = "Bytes that may still be written to the disk of the served directory.";
        text.single("deltasync_disk_free_bytes", "gauge", help, server.disk_free);
        text.single("deltasync_disk_size_bytes", "gauge", "Bytes of that disk in all.", server.disk_total);
    }
    let help = "Results that were not right at once and were sent again.";
    text.single("deltasync_repairs_total", "counter", help, totals.repairs);
    let help = "Bytes of the files of ended transfers, by whether they were there already or were sent.";
    text.family("deltasync_file_bytes_total", "counter", help);
    text.sample("deltasync_file_bytes_total", &[("source", "copied")], totals.copied);
    text.sample("deltasync_file_bytes_total", &[("source", "literal")], totals.literal);
    text.family("deltasync_wire_bytes_total", "counter", "Bytes on the wire, everything above TCP counted.");
    text.sample("deltasync_wire_bytes_total", &[("direction", "sent")], totals.wire_sent);
    text.sample("deltasync_wire_bytes_total", &[("direction", "received")], totals.wire_received);
    let help = "Round trips that the server waited for.";
    text.single("deltasync_round_trips_total", "counter", help, totals.round_trips);
    let help = "1 while stored files are being checked against what was published, else 0.";
    text.single("deltasync_scrub_running", "gauge", help, u64::from(!scrub.running.is_empty()));
    text.single("deltasync_scrub_files_total", "counter", "Stored files that were checked.", scrub.total.files);
    text.single("deltasync_scrub_bytes_total", "counter", "Bytes that were read to check files.", scrub.total.bytes);
    let help = "What checking found: damaged and unreadable are for someone to see to.";
    text.family("deltasync_scrub_findings_total", "counter", help);
    let PassState { damaged, unreadable, changed, gone, old_versions, .. } = scrub.total;
    let kinds = [
        ("damaged", damaged),
        ("unreadable", unreadable),
        ("changed", changed),
        ("gone", gone),
        ("old-version", old_versions),
    ];
    for (kind, count) in kinds {
        text.sample("deltasync_scrub_findings_total", &[("kind", kind)], count);
    }
    let help = "When the last check of everything ended, in seconds since 1970; 0 when none is known.";
    text.family("deltasync_scrub_finished_time_seconds", "gauge", help);
    text.sample("deltasync_scrub_finished_time_seconds", &[], scrub.finished as f64 / 1000.0);
    text.0
}

/// The metrics of a dashboard over several servers: which of them answer. Their own are scraped from them.
pub(crate) fn of_fleet(fleet: &Fleet) -> String {
    let mut text = Text::default();
    text.family("deltasync_server_up", "gauge", "1 when the server answered the last time it was asked, else 0.");
    for server in &fleet.servers {
        text.sample("deltasync_server_up", &[("server", &server.address)], u8::from(server.reachable));
    }
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A histogram of each verb, as Prometheus counts: a bucket holds those below it too.
    fn histograms(&mut self, name: &str, help: &str, verbs: [(&str, &Histogram); 2]) {
        self.family(name, "histogram", help);
        for (verb, histogram) in verbs {
            let mut count = 0;
            for (bound, more) in histogram.bounds.iter().zip(&histogram.counts) {
                count += more;
                self.sample(&format!("{name}_bucket"), &[("verb", verb), ("le", &bound.to_string())], count);
            }
            let count = histogram.count();
            self.sample(&format!("{name}_bucket"), &[("verb", verb), ("le", "+Inf")], count);
            self.sample(&format!("{name}_sum"), &[("verb", verb)], histogram.sum);
            self.sample(&format!("{name}_count"), &[("verb", verb)], count);
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("a string takes all that is written to it");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FleetServer, ScrubState, Totals};

    #[test]
    fn counts_appear_under_their_labels() {
        let pull = Ended { done: 3, failed: 1, cancelled: 0 };
        let total = PassState { damaged: 2, ..PassState::default() };
        let scrub = ScrubState { finished: 1_500, total, ..ScrubState::default() };
        let totals = Totals { pull, copied: 7, ..Totals::default() };
        let text = of_server(&State { totals, scrub, ..State::default() });
        for line in [
            "deltasync_transfers_total{verb=\"pull\",result=\"done\"} 3",
            "deltasync_transfers_total{verb=\"pull\",result=\"failed\"} 1",
            "deltasync_file_bytes_total{source=\"copied\"} 7",
            "# TYPE deltasync_wire_bytes_total counter",
            "deltasync_scrub_findings_total{kind=\"damaged\"} 2",
            "deltasync_scrub_finished_time_seconds 1.5",
            "deltasync_scrub_running 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let address = "a\"} 1\nx{b=\"\\".to_owned();
        let server = FleetServer { address, reachable: true, ..FleetServer::default() };
        let text = of_fleet(&Fleet { servers: vec![server], ..Fleet::default() });
        assert_eq!(text.lines().count(), 3);
        assert_eq!(text.lines().last(), Some("deltasync_server_up{server=\"a\\\"} 1\\nx{b=\\\"\\\\\"} 1"));
    }
}
