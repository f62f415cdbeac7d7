//! The metrics, judged by the conventions and by Prometheus itself, and what Grafana and the alerts ask of them.

mod support;

use std::io::Write;

use support::{busy, get, until};

/// What the text exposition format 0.0.4 and the naming conventions ask for.
fn check_metrics(text: &str) {
    let mut declared: Vec<(&str, &str)> = Vec::new();
    let mut samples = std::collections::BTreeSet::new();
    assert!(text.ends_with('\n'));
    let mut helped = None;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split(' ').next();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert_eq!(Some(name), helped, "HELP stands before TYPE");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(!declared.iter().any(|(other, _)| *other == name), "twice: {line}");
            declared.push((name, kind));
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(value.parse::<f64>().expect("a number") >= 0.0, "{line}");
            assert!(samples.insert(series), "twice: {line}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let (last, kind) = declared.last().expect("TYPE stands before its samples");
            let parts = if *kind == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
            assert!(parts.iter().any(|part| name == format!("{last}{part}")), "samples stand below their TYPE: {line}");
            assert!(
                name.starts_with("deltasync_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{line}"
            );
            for label in labels.strip_suffix('}').expect("labels end").split(',').filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once('=').expect("a label and a value");
                assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
                assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
        }
    }
    assert!(!declared.is_empty());
}

#[test]
fn the_metrics_are_well_formed_and_tell_the_same_as_the_state() {
    let dashboard = busy();
    let text = get(dashboard.address, "/metrics").body;
    check_metrics(&text);
    for line in [
        "deltasync_clients 1",
        "deltasync_transfers_running 1",
        "deltasync_transfers_total{verb=\"push\",result=\"done\"} 1",
        "deltasync_transfers_total{verb=\"pull\",result=\"failed\"} 1",
        "deltasync_file_bytes_total{source=\"copied\"} 9600",
        "deltasync_wire_bytes_total{direction=\"received\"} 4000",
        "deltasync_transfer_failures_total{reason=\"lost\"} 1",
        "deltasync_transfer_file_bytes_bucket{verb=\"push\",le=\"1000\"} 0",
        "deltasync_transfer_file_bytes_bucket{verb=\"push\",le=\"10000\"} 1",
        "deltasync_transfer_file_bytes_bucket{verb=\"push\",le=\"+Inf\"} 1",
        "deltasync_transfer_wire_bytes_sum{verb=\"push\"} 512",
        "deltasync_transfer_duration_seconds_count{verb=\"pull\"} 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
    }
    assert!(!text.contains("onerror"), "a name of a peer is no label");
}

#[test]
#[ignore = "needs promtool of Debian's package prometheus: run .ci/run"]
fn the_judge_of_prometheus_is_content() {
    let dashboard = busy();
    dashboard.board.with(|board, _| board.disk(1, 2));
    let text = until(dashboard.address, "/metrics", |answer| answer.body.contains("deltasync_disk_free_bytes 1")).body;
    let promtool = |arguments: &[&str], said: &str| {
        let mut child = std::process::Command::new("promtool")
            .args(arguments)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/grafana"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("promtool starts");
        child.stdin.take().expect("it is piped").write_all(said.as_bytes()).expect("it reads");
        let out = child.wait_with_output().expect("it ends");
        let told = [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(out.status.success(), "{arguments:?}: {told:?}");
        told
    };
    assert_eq!(promtool(&["check", "metrics"], &text), ["", ""]);
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["test", "rules", "alerts-test.yml"], "");
}

/// The names of metrics of ours in a text.
fn metric_names(text: &str) -> std::collections::BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    text.match_indices("deltasync_").map(|(at, _)| text[at..].split(|c| !is_part(c)).next().expect("a first")).collect()
}

#[test]
fn whatever_grafana_and_the_alerts_ask_for_is_told() {
    let dashboard = busy();
    dashboard.board.with(|board, _| board.disk(1, 2));
    let text = until(dashboard.address, "/metrics", |answer| answer.body.contains("deltasync_disk_free_bytes")).body;
    let told = metric_names(&text);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    for name in ["dashboard.json", "alerts.yml", "alerts-test.yml"] {
        let asked = std::fs::read_to_string(folder.join(name)).expect("there");
        let asked = metric_names(&asked);
        assert!(asked.len() > 3, "{name}: {asked:?}");
        let unknown: Vec<_> = asked.difference(&told).filter(|name| **name != "deltasync_server_up").collect();
        assert!(unknown.is_empty(), "{name} asks for {unknown:?}");
    }
    let grafana = std::fs::read_to_string(folder.join("dashboard.json")).expect("there");
    let grafana: serde_json::Value = serde_json::from_str(&grafana).expect("JSON");
    assert!(grafana["panels"].as_array().is_some_and(|panels| panels.len() >= 6));
}
