//! The page in a real browser, over made-up transfers, and over a real push.
//!
//! Needs Chromium, node and `npm install` in `tests/browser/`. With `DELTASYNC_SCREENSHOTS` set to a directory, pictures of
//! the page are put there. Those in `docs/pictures/` are made by
//! `cargo test -p deltasync-server --test browser -- --ignored pictures_of_the_documentation` with
//! `DELTASYNC_PICTURES=1`, and get small by ImageMagick's `convert`.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deltasync_proto::{FaultKind, Phase, Stats, StorageFault, TransferError, Verb};
use deltasync_server::{
    DashboardConfig, FindingState, PassState, SharedBoard, Shutdown, bind_dashboard, run_dashboard,
};
use serde_json::{Value, json};
use support::client::{Client, noise};
use support::{Dashboard, HOSTILE, Server, connect, done, failed, get, placed, progress, repairing, started};

/// A browser that obeys.
struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Browser {
    fn start() -> Self {
        let library = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/node_modules/playwright-core");
        assert!(std::path::Path::new(library).exists(), "run `npm install --no-package-lock` in tests/browser first");
        let mut child = Command::new("node")
            .arg("look.mjs")
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let commands = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, commands, answers }
    }

    fn tell(&mut self, command: Value) -> Value {
        writeln!(self.commands, "{command}").expect("it listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{command}: {line:?}"));
        assert_eq!(answer.get("error"), None, "{command}");
        answer["ok"].clone()
    }

    fn open(&mut self, url: &str, dark: bool, width: u32, height: u32) {
        self.tell(json!({"open": url, "dark": dark, "width": width, "height": height}));
    }

    /// Waits until an element shows the text; milliseconds.
    fn wait(&mut self, selector: &str, text: &str) -> u64 {
        self.tell(json!({"wait": selector, "text": text, "ms": 5_000})).as_u64().expect("a time")
    }

    fn read(&mut self, selector: &str) -> Vec<String> {
        serde_json::from_value(self.tell(json!({"read": selector}))).expect("texts")
    }

    /// Types into a field, or chooses in a select.
    fn choose(&mut self, selector: &str, text: &str) {
        self.tell(json!({"type": selector, "text": text}));
    }

    /// The exact numbers of bytes of the cells of a table that stand under a label.
    fn exact(&mut self, table: &str, label: &str) -> Vec<u64> {
        let selector = format!("{table} td[data-label=\"{label}\"]");
        let texts: Vec<String> =
            serde_json::from_value(self.tell(json!({"attribute": selector, "name": "data-bytes"}))).expect("texts");
        texts.iter().map(|text| text.parse().expect("a number")).collect()
    }

    fn shot(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("DELTASYNC_SCREENSHOTS").map(PathBuf::from) else { return };
        self.tell(json!({"shot": directory.join(format!("{name}.png"))}));
    }

    fn assert_quiet(&mut self) {
        assert_eq!(self.tell(json!({"console": true})), json!([]), "nothing on the console, nothing left the page");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fills a board as a morning's work would, and keeps three transfers moving until told to stop.
struct Morning {
    stop: Arc<AtomicBool>,
}

const MB: u64 = 1_000_000;

impl Morning {
    fn begin(board: &Arc<SharedBoard>) -> Self {
        Self::begin_slowly(board, Duration::ZERO)
    }

    /// The same, but what has ended took so long each.
    fn begin_slowly(board: &Arc<SharedBoard>, each: Duration) -> Self {
        let (alice, bob) = (connect(board, 50_412), connect(board, 41_877));
        let files = [
            ("photos/2026/harbour at dusk.raw", 48 * MB, 1_200_000),
            ("mail/archive.mbox", 612 * MB, 2_400_000),
            ("src/release.tar", 91 * MB, 640_000),
            ("notes/plan.md", 14_200, 310),
            ("vm/build-machine.qcow2", 8_400 * MB, 21 * MB),
            ("ledger/2026-10.sqlite", 36 * MB, 88_000),
        ];
        let mut stats = Stats { wire_sent: 700_000, wire_received: 2 * MB, round_trips: 64 };
        for (n, (path, total, literal)) in files.into_iter().cycle().take(32).enumerate() {
            let (id, client) = (n as u32 + 1, if n % 3 == 0 { bob } else { alice });
            started(board, client, id, if n % 4 == 3 { Verb::Pull } else { Verb::Push }, path);
            for part in (1..8).filter(|_| !each.is_zero()) {
                let share = |bytes: u64| bytes * part / 8;
                let parts = [share(total - literal), share(literal), share(literal * 2 / 5)];
                progress(board, client, id, Phase::Moving, total, parts);
                stats.wire_received += literal / 20;
                board.with(|board, now| board.carried(now, alice, stats));
                std::thread::sleep(each * (1 + n as u32 % 3) / 16);
            }
            if n == 9 {
                let fault = StorageFault::new(FaultKind::Full, format!("{path}: no space left on the device"));
                failed(board, client, id, TransferError::Storage(fault));
            } else if n == 14 {
                failed(board, client, id, TransferError::CancelledByPeer);
            } else {
                done(board, client, id, total, literal, literal * 2 / 5);
            }
        }
        let gone = connect(board, 33_000);
        board.with(|board, now| board.disconnected(now, gone, Err("no hello from the peer within 10s")));
        let stop = Arc::new(AtomicBool::new(false));
        let (board, stopped) = (board.clone(), stop.clone());
        std::thread::spawn(move || {
            started(&board, alice, 101, Verb::Push, "vm/build-machine.qcow2");
            started(
                &board,
                bob,
                102,
                Verb::Pull,
                "photos/2026/a very long name of a picture of the harbour at dusk.raw",
            );
            started(&board, alice, 103, Verb::Push, "src/release.tar");
            repairing(&board, bob, 102);
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A pace that comes and goes, as real ones do.
                let swing = 1.0 + (f64::from(n) / 9.0).sin();
                let step = n as u64 % 400;
                progress(
                    &board,
                    alice,
                    101,
                    Phase::Moving,
                    8_400 * MB,
                    [2_100 * MB + step * 12 * MB, step * 90_000 + 9 * MB, step * 40_000],
                );
                progress(
                    &board,
                    bob,
                    102,
                    Phase::Waiting,
                    48 * MB,
                    [step * 60_000 + 12 * MB, step * 30_000 + 4 * MB, 100_000],
                );
                placed(&board, alice, 101, 8_400 * MB, &mixed(2_109 * MB + step * 12 * MB, [150 * MB, MB]));
                placed(&board, bob, 102, 48 * MB, &mixed(16 * MB + step * 90_000, [2 * MB, 900_000]));
                progress(&board, alice, 103, Phase::Describing, 0, [0, 0, 0]);
                stats.wire_received += (60_000.0 * swing) as u64;
                stats.wire_sent += (2_000.0 * swing) as u64;
                board.with(|board, now| board.carried(now, alice, stats));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { stop }
    }
}

/// The ranges of a target of which so much is done: so much copied and so much sent, again and again.
fn mixed(done: u64, [copied, sent]: [u64; 2]) -> Vec<(u64, bool)> {
    let whole = (0..done / (copied + sent)).flat_map(|_| [(copied, true), (sent, false)]);
    whole.chain([(done % (copied + sent), true)]).filter(|&(len, _)| len > 0).collect()
}

impl Drop for Morning {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn a_transfer_is_on_the_page_within_a_second_of_its_start() {
    let dashboard = Dashboard::start(&[]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", dashboard.address), false, 1280, 800);
    browser.wait("#link", "live");
    browser.wait("#now-empty", "deltasync push FILE deltasync://127.0.0.1:7440/");
    browser.shot("empty");
    let client = connect(&dashboard.board, 1);
    started(&dashboard.board, client, 1, Verb::Push, "docs/report.pdf");
    progress(&dashboard.board, client, 1, Phase::Moving, 1_000_000, [600_000, 50_000, 20_000]);
    let ms = browser.wait(".card h3", "report.pdf");
    assert!(ms < 1_000, "{ms} ms");
    browser.wait(".card .numbers", "600 KB");
    placed(&dashboard.board, client, 1, 1_000_000, &[(500_000, true), (50_000, false), (100_000, true)]);
    browser.wait(".card .strip", "");
    let told = browser.tell(json!({"attribute": ".card .strip", "name": "aria-label"}));
    assert_eq!(told[0], "Where in the file, in ranges: 2 reused, 1 sent, 1 to come");
    let titles = browser.tell(json!({"attribute": ".card .strip i", "name": "title"}));
    assert_eq!(titles[1], "sent: 50.0 KB from 500 KB on");
    assert_eq!(get(dashboard.address, "/api/state").json()["transfers"][0]["blocks"][1]["len"], 50_000);
    done(&dashboard.board, client, 1, 1_000_000, 50_000, 21_000);
    browser.wait("#history-rows", "report.pdf");
    assert_eq!(browser.tell(json!({"count": ".card"})), 0);
    assert_eq!(browser.read("#history-rows td[data-label=Reused]"), ["95.0 %"]);
    assert_eq!(browser.read("#reused"), ["95.0%"]);
    browser.assert_quiet();
}

#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn a_push_is_on_the_page_within_a_second_of_its_start_and_tells_what_the_server_does() {
    const LEN: usize = 6 << 20;
    let server = Server::start(&[]);
    let dashboard = server.dashboard.expect("it has one");
    let mut browser = Browser::start();
    browser.open(&format!("http://{dashboard}/"), false, 1280, 800);
    browser.wait("#link", "live");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let mut client = runtime.block_on(Client::connect(server.clients));
    // So slow that there is something to see.
    client.limit(2 << 20);
    client.push("image.raw", noise(LEN, 5));
    let ms = browser.wait(".card h3", "image.raw");
    assert!(ms < 1_000, "{ms} ms");
    browser.wait(".card .strip", "");
    let told = browser.tell(json!({"attribute": ".card .strip", "name": "aria-label"}))[0].to_string();
    assert!(told.contains("1 sent, 1 to come"), "{told}");
    let outcome = runtime.block_on(client.ended()).expect("pushed");
    assert_eq!(outcome.progress.literal.get(), LEN as u64);
    browser.wait("#history-rows", "image.raw");
    let state = get(dashboard, "/api/state").json();
    let [total, wire] = ["total", "wire"].map(|name| state["history"][0][name].as_u64().expect("a number"));
    assert!(total == LEN as u64 && (total..total + total / 100).contains(&wire), "{total} {wire}");
    let shown = ["Size", "Wire"].map(|label| browser.read(&format!("#history-rows td[data-label={label}]")));
    assert_eq!(shown, [["6.29 MB"], ["6.29 MB"]]);
    browser.assert_quiet();
}

#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn a_hostile_name_is_text_and_nothing_else() {
    let dashboard = Dashboard::start(&[]);
    let client = connect(&dashboard.board, 1);
    started(&dashboard.board, client, 1, Verb::Push, HOSTILE);
    started(&dashboard.board, client, 2, Verb::Pull, HOSTILE);
    failed(&dashboard.board, client, 2, TransferError::ConnectionLost(HOSTILE.to_owned()));
    started(&dashboard.board, client, 3, Verb::Pull, "long/".repeat(800).trim_end_matches('/'));
    started(&dashboard.board, client, 4, Verb::Pull, &"W".repeat(250));
    let mut browser = Browser::start();
    for (name, dark, width) in [("hostile", false, 1280), ("hostile-phone", true, 390)] {
        browser.open(&format!("http://{}/", dashboard.address), dark, width, 800);
        browser.wait("#link", "live");
        let shown = r#"x"'><img src=x onerror=alert(1)>\n\r\t\u{1b}[31m\u{202e}gpj.exe\u{2066}\u{200b}"#;
        for place in [".card h3", "#history-rows .path", "#errors-rows .path"] {
            browser.wait(place, shown);
        }
        assert_eq!(browser.tell(json!({"count": "img, main script"})), 0);
        assert_eq!(browser.tell(json!({"overflow": true})), 0, "{width} px");
        browser.shot(name);
        browser.assert_quiet();
    }
}

#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn a_busy_server_looks_well_at_every_width_and_in_the_dark() {
    let dashboard = Dashboard::start(&[]);
    let _morning = Morning::begin(&dashboard.board);
    let mut browser = Browser::start();
    // Long enough for a curve.
    std::thread::sleep(Duration::from_secs(if std::env::var_os("DELTASYNC_SCREENSHOTS").is_some() { 45 } else { 2 }));
    for (name, dark, width) in
        [("desktop", false, 1280), ("dark", true, 1280), ("phone", false, 390), ("tablet", true, 800)]
    {
        browser.open(&format!("http://{}/", dashboard.address), dark, width, 800);
        browser.wait("#link", "live");
        browser.wait(".card h3", "build-machine.qcow2");
        browser.wait("#errors-rows", "no space left on the device");
        assert_eq!(browser.tell(json!({"overflow": true})), 0, "{width} px");
        assert_eq!(browser.tell(json!({"count": "#history-rows tr"})), 10);
        browser.shot(name);
        browser.tell(json!({"click": "#history-button"}));
        browser.wait("#history-button", "Show the last 10");
        assert_eq!(browser.tell(json!({"count": "#history-rows tr"})), 32);
        browser.tell(json!({"hover": "#chart"}));
        browser.wait("#tip", "files");
        browser.assert_quiet();
    }
}

#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn what_a_check_of_the_files_has_found_is_on_the_page() {
    let dashboard = Dashboard::start(&[]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", dashboard.address), false, 1280, 800);
    browser.wait("#scrub-text .verdict.none", "Not checked yet");
    let found = |kind: &str, path: &str, message: &str| {
        let (kind, path, message) = (kind.to_owned(), path.to_owned(), message.to_owned());
        let time = 1_790_000_000_000;
        dashboard.board.with(|board, _| board.found(FindingState { number: 0, time, kind, path, message }));
    };
    dashboard.board.with(|board, _| {
        board.scrub().pass = PassState { files: 1_204, bytes: 48 * MB, ..PassState::default() };
        board.scrub().running = "background".to_owned();
        board.scrub().position = "photos/2026/harbour at dusk.raw".to_owned();
    });
    browser.wait("#scrub-text .verdict", "No damage found");
    browser.wait("#scrub-text", "checking now: 1,204 files, 48.0 MB so far");
    found("damaged", "vm/build-machine.qcow2", "it should be 1931a952 and is 61d9c3d9");
    found("gone", HOSTILE, "another program has removed it");
    dashboard.board.with(|board, _| {
        let scrub = board.scrub();
        (scrub.running, scrub.position) = (String::new(), String::new());
        (scrub.finished, scrub.pass.damaged) = (1_790_000_000_000, 1);
    });
    for (name, dark, width) in [("scrub", false, 1280), ("scrub-phone", true, 390)] {
        browser.open(&format!("http://{}/", dashboard.address), dark, width, 800);
        browser.wait("#scrub-text .verdict.bad", "1 file is damaged");
        browser.wait("#scrub-rows .what", "damaged: it should be 1931a952");
        browser.wait("#scrub-rows .mild", "onerror=alert(1)");
        assert_eq!(browser.tell(json!({"count": "img, main script"})), 0);
        assert_eq!(browser.tell(json!({"overflow": true})), 0, "{width} px");
        browser.shot(name);
        browser.assert_quiet();
    }
}

#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn a_lost_server_is_shown_as_lost_and_found_again() {
    let dashboard = Dashboard::start(&[]);
    let address = dashboard.address;
    let mut browser = Browser::start();
    browser.open(&format!("http://{address}/"), false, 1280, 800);
    browser.wait("#link", "live");
    drop(dashboard);
    browser.wait("#link", "reconnecting");
    browser.wait("#notice", "The connection is lost");
    browser.shot("lost");
    let again = Dashboard::start_at(address, &[]);
    let client = connect(&again.board, 7);
    started(&again.board, client, 1, Verb::Pull, "after/the-restart.bin");
    browser.wait("#link", "live");
    browser.wait(".card h3", "the-restart.bin");
    assert_eq!(browser.tell(json!({"count": "#history-rows tr"})), 0, "what the old one knew has gone");
}

#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn charts_and_their_tables_tell_the_same_as_the_state() {
    let dashboard = Dashboard::start(&[]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", dashboard.address), false, 1280, 800);
    browser.wait("#link", "live");
    let client = connect(&dashboard.board, 1);
    started(&dashboard.board, client, 1, Verb::Push, "a.bin");
    let mut stats = Stats::default();
    for n in 1..=40 {
        progress(&dashboard.board, client, 1, Phase::Moving, 400 * MB, [9 * n * MB, n * MB, n * MB / 2]);
        stats.wire_received += MB / 2;
        dashboard.board.with(|board, now| board.carried(now, client, stats));
        std::thread::sleep(Duration::from_millis(100));
    }
    // The rows are of ten seconds, whole ones.
    let sums = |browser: &mut Browser| {
        let [file, wire] = ["Files", "Wire"].map(|label| browser.exact("#chart-table-rows", label).iter().sum::<u64>());
        [file, wire, browser.exact("#reused-table-rows", "Reused").iter().sum()]
    };
    let mut shown = [0; 3];
    for _ in 0..60 {
        shown = sums(&mut browser);
        if shown[0] == 400 * MB {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let state = get(dashboard.address, "/api/state").json();
    let list = |name: &str| -> Vec<u64> {
        let list = state["throughput"][name].as_array().expect("a list");
        list.iter().map(|value| value.as_u64().expect("a number")).collect()
    };
    let told = ["file", "wire", "copied"].map(|name| list(name).iter().sum::<u64>());
    assert_eq!((shown, told), ([400 * MB, 20 * MB, 360 * MB], [400 * MB, 20 * MB, 360 * MB]));
    let most = list("file").into_iter().max().expect("samples") as f64 / 1e6;
    let label = browser.tell(json!({"attribute": "#chart", "name": "aria-label"}))[0].to_string();
    let digits = if most >= 99.95 { 0 } else { 1 };
    assert!(label.contains(&format!("files at most {most:.digits$} MB/s")), "{label}");
    assert_eq!(browser.read("#saving-rows tr:first-child td[data-label=Reused]"), ["90.0 %"]);
    assert_eq!(browser.read("#span-reused"), ["90.0 %"]);
    // To look at the pixels is worth a message on the console of its own.
    browser.assert_quiet();
    for canvas in ["#chart canvas", "#chart-reused canvas"] {
        let curve = browser.tell(json!({"painted": canvas, "colour": "--file"}));
        assert!(curve.as_u64().is_some_and(|pixels| pixels > 3), "{canvas}: {curve}");
    }
    let wire = browser.tell(json!({"painted": "#chart canvas", "colour": "--wire"}));
    assert!(wire.as_u64().is_some_and(|pixels| pixels > 5), "{wire}");
    browser.tell(json!({"click": "[data-span=day]"}));
    browser.wait("[aria-pressed=true]", "Day");
    // A quarter of an hour is a row once it is over, which may be just now.
    let over = |value: &Value| value.as_u64().filter(|&bytes| bytes > 0);
    let quarters = || -> Vec<u64> {
        let state = get(dashboard.address, "/api/state").json();
        state["day"]["file"].as_array().expect("a list").iter().rev().filter_map(over).collect()
    };
    let (before, shown, after) = (quarters(), browser.exact("#chart-table-rows", "Files"), quarters());
    let shown: Vec<u64> = shown.into_iter().filter(|&bytes| bytes > 0).collect();
    assert!(shown == before || shown == after, "{before:?} {shown:?} {after:?}");
}

#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn the_history_can_be_filtered() {
    let dashboard = Dashboard::start(&[]);
    let _morning = Morning::begin(&dashboard.board);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", dashboard.address), false, 1280, 800);
    browser.wait("#history-count", "the last 32");
    browser.choose("#filter-text", "ARCHIVE");
    browser.wait("#history-count", "6 of the last 32");
    assert_eq!(browser.tell(json!({"count": "#history-rows tr"})), 6);
    browser.choose("#filter-text", "");
    browser.choose("#filter-result", "failed");
    browser.wait("#history-count", "1 of the last 32");
    browser.wait("#history-rows", "no space left on the device");
    browser.choose("#filter-verb", "pull");
    browser.wait("#history-empty", "Nothing in the history is like that.");
    browser.choose("#filter-result", "");
    browser.wait("#history-count", "8 of the last 32");
    browser.assert_quiet();
}

#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn a_browser_that_knows_the_token_sees_the_page_live() {
    let dashboard = Dashboard::start_with_token("a-secret-of-some-length");
    let mut browser = Browser::start();
    let url = format!("http://{}/", dashboard.address);
    browser
        .tell(json!({"open": url, "dark": false, "width": 1280, "height": 800, "password": "a-secret-of-some-length"}));
    browser.wait("#link", "live");
    let client = connect(&dashboard.board, 1);
    started(&dashboard.board, client, 1, Verb::Push, "docs/report.pdf");
    browser.wait(".card h3", "report.pdf");
    assert_eq!(browser.tell(json!({"count": "canvas"})), 2);
}

/// The pictures in `docs/pictures/`, each of at most 150 KB, when they are asked for; else the same ones, made in a hurry and
/// thrown away.
#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn pictures_of_the_documentation() {
    let kept = std::env::var_os("DELTASYNC_PICTURES").is_some();
    let thrown_away = tempfile::tempdir().expect("a directory can be made");
    let documentation = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
    let folder = if kept { documentation.as_path() } else { thrown_away.path() };
    std::fs::create_dir_all(folder).expect("a directory can be made");
    let dashboard = Dashboard::start(&[]);
    dashboard.board.with(|board, _| {
        board.disk(412_000 * MB, 960_000 * MB);
        board.scrub().pass = PassState { files: 1_204, bytes: 48_000 * MB, ..PassState::default() };
    });
    let mut browser = Browser::start();
    let url = format!("http://{}/", dashboard.address);
    let mut picture = |name: &str, dark: bool, width: u32, of: Option<&str>, before: &mut dyn FnMut(&mut Browser)| {
        browser.open(&url, dark, width, 1000);
        browser.wait("#link", "live");
        before(&mut browser);
        std::thread::sleep(Duration::from_millis(500));
        let file = folder.join(format!("dashboard-{name}.png"));
        match of {
            Some(of) => browser.tell(json!({"shot": file, "of": of})),
            None => browser.tell(json!({"shot": file})),
        };
        browser.assert_quiet();
        let most = if kept { 150_000 } else { 600_000 };
        if kept {
            let mut small = Command::new("convert");
            small.arg(&file).args(["+dither", "-colors", "128"]).arg(format!("PNG8:{}", file.display()));
            assert!(small.status().expect("ImageMagick is there").success());
        }
        let len = std::fs::metadata(&file).expect("it is there").len();
        assert!((5_000..most).contains(&len), "{name}: {len} bytes");
    };
    picture("idle", false, 1280, None, &mut |_| {});
    let (each, then) = if kept { (2_500, 12_000) } else { (0, 500) };
    let _morning = Morning::begin_slowly(&dashboard.board, Duration::from_millis(each));
    std::thread::sleep(Duration::from_millis(then));
    picture("busy", false, 1280, None, &mut |browser| {
        browser.wait(".card h3", "build-machine.qcow2");
    });
    picture("dark", true, 1280, None, &mut |browser| {
        browser.wait(".card h3", "build-machine.qcow2");
    });
    picture("history", false, 1280, Some("section:has(#history-rows)"), &mut |browser| {
        browser.choose("#filter-text", "notes");
        browser.wait("#history-count", "of the last");
    });
    picture("phone", false, 390, None, &mut |browser| {
        browser.wait(".card h3", "build-machine.qcow2");
    });
}

#[test]
#[ignore = "needs chromium and node: run .ci/run"]
fn several_servers_share_one_page() {
    let (one, other) = (Dashboard::start(&[]), Dashboard::start(&[]));
    let _morning = Morning::begin(&one.board);
    let client = connect(&other.board, 9);
    started(&other.board, client, 1, Verb::Pull, "other/file.iso");
    progress(&other.board, client, 1, Phase::Verifying, 700 * MB, [600 * MB, 100 * MB, 40 * MB]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("it starts");
    let listener = runtime.block_on(bind_dashboard("127.0.0.1:0")).expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a port");
    let servers = [one.address, other.address, gone].iter().map(ToString::to_string).collect();
    let (_stopper, shutdown) = Shutdown::channel();
    runtime.spawn(run_dashboard(listener, DashboardConfig::new(servers), shutdown));
    let mut browser = Browser::start();
    for (name, width) in [("fleet", 1280), ("fleet-phone", 390)] {
        browser.open(&format!("http://{address}/"), false, width, 800);
        browser.wait("#servers-rows", "unreachable");
        browser.wait(".card h3", "file.iso");
        browser.wait(".card .from", &other.address.to_string());
        browser.wait("#history-rows", &one.address.to_string());
        assert_eq!(browser.tell(json!({"overflow": true})), 0, "{width} px");
        browser.shot(name);
        browser.assert_quiet();
    }
    started(&other.board, client, 2, Verb::Pull, "later/new.bin");
    browser.wait(".card h3", "new.bin");
    drop(other);
    browser.wait("#about", "2 unreachable");
    browser.assert_quiet();
}
