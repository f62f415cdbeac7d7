//! The dashboard's HTTP over a real socket, fed by made-up events.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use deltasync_proto::{TransferError, Verb};
use deltasync_server::State;
use proptest::prelude::*;
use support::{Dashboard, ask, busy, connect, done, failed, get, send, started, until};

#[test]
fn the_page_comes_with_a_policy_that_lets_nothing_in() {
    let dashboard = busy();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/dashboard.css", "text/css; charset=utf-8"),
        ("/dashboard.js", "text/javascript; charset=utf-8"),
        ("/charts.js", "text/javascript; charset=utf-8"),
        ("/vendor/uplot.js", "text/javascript; charset=utf-8"),
        ("/vendor/uplot.css", "text/css; charset=utf-8"),
        ("/api/state", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
    ] {
        let answer = get(dashboard.address, path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        assert_eq!(
            answer.header("content-security-policy"),
            Some(
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert!(!answer.body.is_empty());
        let head = ask(dashboard.address, "HEAD", path);
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
}

/// Every file of the page that is ours, with its name.
fn page_files() -> Vec<(String, String)> {
    let web = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    let entries = std::fs::read_dir(web).expect("a directory").map(|entry| entry.expect("an entry").path());
    let text = |path: std::path::PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).expect("text"));
    entries.filter(|path| path.is_file()).map(text).collect()
}

#[test]
fn the_page_asks_for_nothing_elsewhere_and_has_no_inline_code() {
    let files = page_files();
    assert!(files.len() > 6, "{files:?}");
    for (name, file) in &files {
        let text = file.replace("http://www.w3.org/2000/svg", "").replace("deltasync://", "");
        for bad in [
            "http:",
            "https:",
            "src=\"//",
            "innerHTML",
            "insertAdjacentHTML",
            "eval(",
            " style=",
            "<style",
            " onclick=",
        ] {
            assert!(!text.contains(bad), "{bad} in {name}");
        }
    }
}

#[test]
fn what_comes_from_elsewhere_is_what_its_notice_says() {
    let vendor = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web/vendor");
    let read = |name: &str| std::fs::read_to_string(vendor.join(name)).expect("there");
    let (notice, script) = (read("README.md"), read("uPlot.iife.min.js"));
    assert!(read("LICENSE-uPlot").starts_with("The MIT License"));
    let version = notice.lines().next().and_then(|line| line.rsplit(' ').next()).expect("a version");
    assert!(script.starts_with(&format!("/*! https://github.com/leeoniya/uPlot (v{version}) */")));
    assert!(script.len() < 60_000, "{} bytes", script.len());
    for name in ["uPlot.iife.min.js", "uPlot.min.css"] {
        let sum = std::process::Command::new("sha256sum").arg(vendor.join(name)).output().expect("coreutils are there");
        let sum = String::from_utf8(sum.stdout).expect("text");
        let sum = sum.split(' ').next().expect("a sum");
        assert!(notice.contains(&format!("| `{name}` | `{sum}` |")), "{name} is {sum}");
    }
}

#[test]
fn what_is_not_there_or_not_allowed_is_refused_by_its_code() {
    let dashboard = Dashboard::start(&["board.example"]);
    let at = dashboard.address;
    for path in ["/nothing", "/api", "/api/state/", "/../etc/passwd", "//", "/.deltasync/"] {
        assert_eq!(get(at, path).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
        let answer = ask(at, method, "/api/state");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(send(at, "not http at all\r\n\r\n").status, 400);
    let long = format!("GET / HTTP/1.1\r\nhost: {at}\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    assert_eq!(send_lossy(at, &long), Some(431));
}

/// The status, for a request that may be cut off before it is read to its end.
fn send_lossy(at: std::net::SocketAddr, request: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(at).expect("it listens");
    let _ = stream.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).split(' ').nth(1)?.parse().ok()
}

#[test]
fn another_name_is_another_site() {
    let dashboard = Dashboard::start(&["board.example"]);
    let at = dashboard.address;
    let status = |lines: &str| send(at, &format!("GET /api/state HTTP/1.1\r\n{lines}connection: close\r\n\r\n")).status;
    let port = at.port();
    assert_eq!(status(&format!("host: localhost:{port}\r\n")), 200);
    assert_eq!(status(&format!("host: [::1]:{port}\r\n")), 200);
    assert_eq!(status("host: board.example\r\n"), 200);
    assert_eq!(status(&format!("host: rebound.example:{port}\r\n")), 421);
    assert_eq!(status("host: localhost:1\r\n"), 421);
    assert_eq!(status("host: \r\n"), 421);
    assert_eq!(status(""), 421);
    assert_eq!(status(&format!("host: localhost:{port}\r\nhost: rebound.example\r\n")), 421);
    let absolute = format!("GET http://rebound.example/ HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
    assert_eq!(send(at, &absolute).status, 421);
    let unnamed = send(at, "GET /metrics HTTP/1.0\r\n\r\n");
    assert!(unnamed.status == 421 && !unnamed.body.contains("deltasync_"), "{unnamed:?}");
}

#[test]
fn a_token_is_wanted_for_everything_but_the_health() {
    let dashboard = Dashboard::start_with_token("a-secret-of-some-length");
    let at = dashboard.address;
    let ask = |method: &str, path: &str, more: &str| {
        send(at, &format!("{method} {path} HTTP/1.1\r\nhost: {at}\r\n{more}connection: close\r\n\r\n"))
    };
    for path in ["/", "/dashboard.js", "/vendor/uplot.js", "/api/state", "/api/events", "/metrics", "/nothing"] {
        for said in ["", "authorization: Bearer another-secret-there\r\n", "authorization: Basic eDp5\r\n"] {
            let answer = ask("GET", path, said);
            assert_eq!(answer.status, 401, "{path} {said}");
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Basic realm=\"deltasync dashboard\", charset=\"UTF-8\"")
            );
            assert!(answer.header("content-security-policy").is_some() && !answer.body.contains("deltasync_"));
        }
    }
    assert_eq!(ask("POST", "/api/state", "").status, 401);
    assert_eq!(ask("GET", "/healthz", "").body, "ok\n");
    let bearer = "authorization: Bearer a-secret-of-some-length\r\n";
    assert_eq!(ask("GET", "/api/state", bearer).json()["format"], 1);
    assert!(ask("GET", "/metrics", bearer).body.contains("deltasync_build_info"));
    assert_eq!(Viewer::from(&dashboard, bearer).expect("there is a place").next_event().0, "snapshot");
    // Another name is another site, whatever it knows.
    let rebound = format!("GET /api/state HTTP/1.1\r\nhost: rebound.example\r\n{bearer}connection: close\r\n\r\n");
    assert_eq!(send(at, &rebound).status, 421);
}

#[test]
fn the_state_is_valid_json_whatever_names_are_in_it() {
    let dashboard = busy();
    let answer = get(dashboard.address, "/api/state");
    assert!(!answer.body.chars().any(|c| c.is_control() || ('\u{200b}'..='\u{2069}').contains(&c)), "{}", answer.body);
    let state: State = serde_json::from_str(&answer.body).expect("a state");
    assert_eq!((state.format, state.server.clients, state.server.running), (1, 1, 1));
    assert_eq!((state.totals.push.done, state.totals.pull.failed), (1, 1));
    assert_eq!((state.totals.file_bytes, state.totals.copied, state.totals.literal), (10_000, 9_600, 400));
    assert_eq!((state.totals.wire_sent, state.totals.wire_received), (300, 4_000));
    assert_eq!((state.transfers[0].path.as_str(), state.transfers[0].phase.as_str()), ("docs/now.bin", "moving"));
    let names: Vec<&str> = state.history.iter().map(|ended| ended.path.as_str()).collect();
    let hostile = r#"x"'><img src=x onerror=alert(1)>\n\r\t\u{1b}[31m\u{202e}gpj.exe\u{2066}\u{200b}"#;
    assert_eq!(names, [hostile, "docs/report.pdf"]);
    assert_eq!(state.errors[0].path.as_deref(), Some(hostile));
}

/// An open stream of events.
struct Viewer(BufReader<TcpStream>);

impl Viewer {
    fn new(dashboard: &Dashboard) -> Self {
        Self::try_new(dashboard).expect("there is a place")
    }

    /// `None` when all places are taken.
    fn try_new(dashboard: &Dashboard) -> Option<Self> {
        Self::from(dashboard, "")
    }

    /// One that says more in its request.
    fn from(dashboard: &Dashboard, more: &str) -> Option<Self> {
        let mut stream = TcpStream::connect(dashboard.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        write!(stream, "GET /api/events HTTP/1.1\r\nhost: {}\r\n{more}\r\n", dashboard.address).expect("it reads");
        let mut viewer = Self(BufReader::new(stream));
        let head = viewer.lines_until_empty();
        if head[0].contains("503") {
            return None;
        }
        assert!(head[0].contains("200") && head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
        Some(viewer)
    }

    fn lines_until_empty(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("it goes on");
            match line.trim_end() {
                "" => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// The name and the data of the next event; chunk sizes and comments are passed over.
    fn next_event(&mut self) -> (String, serde_json::Value) {
        let (_, name, data) = self.next_with_id();
        (name, data)
    }

    fn next_with_id(&mut self) -> (String, String, serde_json::Value) {
        loop {
            let lines = self.lines_until_empty();
            let id = lines.iter().find_map(|line| line.strip_prefix("id: ")).unwrap_or_default();
            let name = lines.iter().find_map(|line| line.strip_prefix("event: "));
            let data = lines.iter().find_map(|line| line.strip_prefix("data: "));
            if let (Some(name), Some(data)) = (name, data) {
                return (id.to_owned(), name.to_owned(), serde_json::from_str(data).expect("JSON"));
            }
        }
    }
}

#[test]
fn a_viewer_gets_the_whole_state_and_then_what_changes_five_times_a_second() {
    let dashboard = busy();
    let mut viewer = Viewer::new(&dashboard);
    let (name, whole) = viewer.next_event();
    assert_eq!((name.as_str(), whole["transfers"][0]["path"].as_str()), ("snapshot", Some("docs/now.bin")));
    assert_eq!(whole["history"].as_array().map(Vec::len), Some(2));

    let board = dashboard.board.clone();
    let feeding = std::thread::spawn(move || {
        let client = connect(&board, 50_002);
        for n in 1..=300u32 {
            started(&board, client, n, Verb::Push, "many/small");
            done(&board, client, n, 100, 10, 20);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let (begin, mut events, mut newest) = (Instant::now(), 0u32, 2);
    while newest < 302 {
        let (name, update) = viewer.next_event();
        assert_eq!(name, "update");
        events += 1;
        let numbers: Vec<u64> =
            update["history"].as_array().into_iter().flatten().filter_map(|h| h["number"].as_u64()).collect();
        assert!(
            numbers.iter().rev().all(|&number| std::mem::replace(&mut newest, number) + 1 == number),
            "{numbers:?}"
        );
    }
    feeding.join().expect("it feeds");
    let seconds = begin.elapsed().as_secs_f64();
    assert!(f64::from(events) <= 5.0 * seconds + 1.0, "{events} events in {seconds} s");
}

#[test]
fn a_viewer_that_sleeps_holds_nobody_up() {
    let dashboard = busy();
    let _asleep: Vec<Viewer> = (0..20).map(|_| Viewer::new(&dashboard)).collect();
    let client = connect(&dashboard.board, 50_003);
    for n in 1..=2_000 {
        started(&dashboard.board, client, n, Verb::Push, "long/".repeat(200).trim_end_matches('/'));
        done(&dashboard.board, client, n, 100, 10, 20);
    }
    until(dashboard.address, "/api/state", |answer| answer.json()["totals"]["push"]["done"] == 2_001);
    let mut fresh = Viewer::new(&dashboard);
    assert_eq!(fresh.next_event().1["totals"]["push"]["done"], 2_001);
}

/// The seconds until the server has closed a connection on which `said` was said, one byte a second more after it.
fn closed_after(dashboard: &Dashboard, said: &str) -> f32 {
    let mut stream = TcpStream::connect(dashboard.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
    let begin = Instant::now();
    let _ = stream.write_all(said.as_bytes());
    let mut buffer = [0; 4096];
    while begin.elapsed() < Duration::from_secs(60) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind()) => {
                let _ = stream.write_all(b"x");
            }
            Err(_) => break,
        }
    }
    begin.elapsed().as_secs_f32()
}

#[test]
#[ignore = "waits for deadlines of 20 s: run .ci/run"]
fn a_peer_that_trickles_a_request_or_a_body_is_cut_off_in_time() {
    let dashboard = busy();
    let at = dashboard.address;
    let host = format!("host: {at}\r\n");
    let cases = [
        (String::new(), 19.0..26.0),
        ("GET / HTTP/1.1\r\n".to_owned(), 19.0..26.0),
        (format!("GET / HTTP/1.1\r\n{host}x: "), 19.0..26.0),
        // A body is refused with its request, and not read.
        (format!("POST / HTTP/1.1\r\n{host}content-length: 99999999999\r\n\r\n"), 0.0..26.0),
        (format!("GET / HTTP/1.1\r\n{host}transfer-encoding: chunked\r\n\r\n5\r\n"), 0.0..26.0),
        (format!("GET /healthz HTTP/1.1\r\n{host}\r\n"), 19.0..26.0),
    ];
    std::thread::scope(|scope| {
        for (said, range) in &cases {
            let dashboard = &dashboard;
            scope.spawn(move || {
                let after = closed_after(dashboard, said);
                assert!(range.contains(&after), "{said:?}: {after} s");
            });
        }
    });
    assert_eq!(get(at, "/healthz").status, 200);
}

#[test]
#[ignore = "waits for deadlines of 20 s: run .ci/run"]
fn a_peer_that_reads_no_answers_loses_its_place() {
    let dashboard = busy();
    let at = dashboard.address;
    // Answers of a megabyte in all, again and again, more than any buffer of the system takes.
    let client = connect(&dashboard.board, 50_004);
    for n in 1..=400 {
        started(&dashboard.board, client, n, Verb::Push, "long/".repeat(200).trim_end_matches('/'));
        failed(&dashboard.board, client, n, TransferError::ConnectionLost("x".repeat(500)));
    }
    until(at, "/api/state", |answer| answer.json()["totals"]["push"]["failed"] == 400);
    let request = format!("GET /api/state HTTP/1.1\r\nhost: {at}\r\n\r\n").repeat(300);
    let sleepers: Vec<TcpStream> = (0..256)
        .map(|_| {
            let mut stream = TcpStream::connect(at).expect("it listens");
            stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
            let _ = stream.write_all(request.as_bytes());
            stream
        })
        .collect();
    assert_eq!(get(at, "/healthz").status, 503, "they have all places");
    std::thread::sleep(Duration::from_secs(26));
    assert_eq!(get(at, "/healthz").status, 200, "and have lost them");
    drop(sleepers);
}

#[test]
fn every_committed_input_of_the_fuzz_target_passes() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/http");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).expect("a corpus") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        deltasync_server::fuzz_http(&std::fs::read(path).expect("a readable input"));
        inputs += 1;
    }
    assert!(inputs > 10, "{inputs}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_within_a_request_are_answered_or_closed(
        piece: u8, path in prop::sample::select(vec!["/", "/api/state", "/api/events", "/metrics", "/none"]),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..12)), 0..4),
    ) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost:7441\r\ncontent-length: 3\r\n\r\nabc");
        let mut bytes = [&[piece], request.as_bytes(), request.as_bytes()].concat();
        for (at, with) in cuts {
            let at = at.index(bytes.len());
            let end = (at + with.len()).min(bytes.len());
            bytes.splice(at..end, with);
        }
        deltasync_server::fuzz_http(&bytes);
    }
}

#[test]
fn a_viewer_that_was_cut_off_goes_on_from_its_last_event() {
    let dashboard = busy();
    let mut viewer = Viewer::new(&dashboard);
    let (id, name, whole) = viewer.next_with_id();
    assert_eq!(name, "snapshot");
    drop(viewer);
    let client = connect(&dashboard.board, 50_009);
    for n in 1..=3 {
        started(&dashboard.board, client, n, Verb::Push, "while/away");
        done(&dashboard.board, client, n, 100, 10, 20);
    }
    until(dashboard.address, "/api/state", |answer| answer.json()["totals"]["push"]["done"] == 4);
    let mut again = Viewer::from(&dashboard, &format!("last-event-id: {id}\r\n")).expect("there is a place");
    let (next, name, update) = again.next_with_id();
    assert_eq!((name.as_str(), update["history"].as_array().map(Vec::len)), ("update", Some(3)));
    assert!(next != id && update.get("scrub").is_none(), "only what has changed: {update}");
    assert_eq!(whole["history"].as_array().map(Vec::len), Some(2));
    // An id of another server, or none of ours: all of it.
    for id in ["1-1", "x", "-"] {
        let mut other = Viewer::from(&dashboard, &format!("last-event-id: {id}\r\n")).expect("there is a place");
        assert_eq!(other.next_event().0, "snapshot");
    }
}

#[test]
fn two_hundred_viewers_see_the_same_within_a_second_or_two() {
    let dashboard = busy();
    let mut viewers: Vec<Viewer> = (0..200).map(|_| Viewer::new(&dashboard)).collect();
    for viewer in &mut viewers {
        assert_eq!(viewer.next_event().0, "snapshot");
    }
    let client = connect(&dashboard.board, 50_005);
    let begin = Instant::now();
    started(&dashboard.board, client, 1, Verb::Push, "for/everybody");
    for viewer in &mut viewers {
        while !viewer.next_event().1["transfers"].to_string().contains("for/everybody") {}
    }
    let took = begin.elapsed();
    println!("200 viewers: {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(get(dashboard.address, "/healthz").status, 200, "and there is room for who asks for the metrics");
}

#[test]
fn more_connections_than_there_are_places_are_turned_away() {
    let dashboard = busy();
    let viewers: Vec<Viewer> = (0..270).map_while(|_| Viewer::try_new(&dashboard)).collect();
    assert!((250..=256).contains(&viewers.len()), "{}", viewers.len());
    assert_eq!(get(dashboard.address, "/healthz").status, 503);
    drop(viewers);
    until(dashboard.address, "/healthz", |answer| answer.status == 200 && answer.body == "ok\n");
}
