//! The page in a real browser, over made-up transfers.
//!
//! Needs Chromium, node and `npm install` in `tests/browser/`. With `DELTASYNC_SCREENSHOTS` set to a directory, pictures of
//! the page are put there.

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
use support::{Dashboard, HOSTILE, connect, done, failed, progress, repairing, started};

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
        let (alice, bob) = (connect(board, 50_412), connect(board, 41_877));
        let files = [
            ("photos/2026/harbour at dusk.raw", 48 * MB, 1_200_000),
            ("mail/archive.mbox", 612 * MB, 2_400_000),
            ("src/release.tar", 91 * MB, 640_000),
            ("notes/plan.md", 14_200, 310),
            ("vm/build-machine.qcow2", 8_400 * MB, 21 * MB),
            ("ledger/2026-10.sqlite", 36 * MB, 88_000),
        ];
        for (n, (path, total, literal)) in files.into_iter().cycle().take(32).enumerate() {
            let (id, client) = (n as u32 + 1, if n % 3 == 0 { bob } else { alice });
            started(board, client, id, if n % 4 == 3 { Verb::Pull } else { Verb::Push }, path);
            if n == 9 {
                let fault = StorageFault::new(FaultKind::Full, "src/release.tar: no space left on the device");
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
            let mut stats = Stats { wire_sent: 700_000, wire_received: 70 * MB, round_trips: 64 };
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
    done(&dashboard.board, client, 1, 1_000_000, 50_000, 21_000);
    browser.wait("#history-rows", "report.pdf");
    assert_eq!(browser.tell(json!({"count": ".card"})), 0);
    assert_eq!(browser.read("#history-rows td[data-label=Reused]"), ["95.0 %"]);
    assert_eq!(browser.read("#reused"), ["95.0%"]);
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
    started(&dashboard.board, client, 3, Verb::Pull, "long/".repeat(200).trim_end_matches('/'));
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
    let _again = Dashboard::start_at(address, &[]);
    browser.wait("#link", "live");
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
}
