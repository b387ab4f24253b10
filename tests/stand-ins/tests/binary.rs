//! The binary: what it prints, and how it ends.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

struct StandIns {
    child: Child,
    lines: Vec<String>,
    directory: TempDir,
}

impl StandIns {
    fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_stand-ins"))
            .args([
                "--entra-http",
                "127.0.0.1:0",
                "--entra-https",
                "127.0.0.1:0",
            ])
            .args(["--openai", "127.0.0.1:0", "--tls-dir"])
            .arg(directory.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines: Vec<String> = Vec::new();
        for line in stdout.lines() {
            lines.push(line.unwrap());
            if lines.last().is_some_and(|line| line == "ready") {
                break;
            }
        }
        Self {
            child,
            lines,
            directory,
        }
    }

    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for StandIns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn listeners_are_announced_and_open() {
    let running = StandIns::start(&["--openai-https", "127.0.0.1:0"]);
    let names: Vec<&str> = running
        .lines
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "entra-http",
            "entra-https",
            "openai",
            "openai-https",
            "ready"
        ]
    );
    for line in &running.lines[..4] {
        let address = line.split(' ').nth(1).unwrap();
        assert!(TcpStream::connect(address).is_ok(), "{line}");
    }
    let ca = std::fs::read_to_string(running.directory.path().join("ca.pem")).unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"), "{ca}");
}

#[test]
fn signals_end_it() {
    for name in ["TERM", "INT"] {
        let mut running = StandIns::start(&[]);
        assert_eq!(running.lines.len(), 4);
        running.signal(name);
        assert!(running.ended().success(), "{name}");
    }
}

#[test]
fn the_end_of_stdin_ends_it_if_asked() {
    let mut running = StandIns::start(&["--exit-with-stdin"]);
    drop(running.child.stdin.take());
    assert!(running.ended().success());

    let mut running = StandIns::start(&[]);
    drop(running.child.stdin.take());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(running.child.try_wait().unwrap(), None);
}

#[test]
fn a_wrong_option_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_stand-ins"))
        .arg("--no-such")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--no-such"));
}

#[test]
fn load_says_what_came_back_of_each_kind() {
    let running = StandIns::start(&[]);
    let openai = running.lines[2].split(' ').nth(1).unwrap();
    let get = |headers: &str| format!("GET /openai/models HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    let requests = serde_json::json!([
        { "kind": "good", "text": get("") },
        { "kind": "bad", "text": get("x-stand-in-status: 500\r\n") },
        { "kind": "broken", "text": get("x-stand-in-reset: before-headers\r\n") },
        { "kind": "left", "text": get("x-stand-in-delay-ms: 1000\r\n"), "leave_ms": 1 },
    ]);
    let file = running.directory.path().join("requests.json");
    std::fs::write(&file, requests.to_string()).unwrap();
    let load = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
        command.args(["--to", openai, "--requests"]).arg(&file);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };

    let report = load(&["--count", "40", "--connections", "3"]);
    for (kind, answer) in [
        ("good", "200"),
        ("bad", "500 500"),
        ("broken", "broken"),
        ("left", "left"),
    ] {
        let expected = serde_json::json!({ answer: 10 });
        assert_eq!(report["kinds"][kind]["answers"], expected, "{kind}");
    }
    assert_eq!(report["statuses"]["500"], 10);

    let began = Instant::now();
    let paced = load(&["--seconds", "0.5", "--rate", "40"]);
    assert!(began.elapsed() >= Duration::from_millis(450));
    let statuses = paced["statuses"].as_object().unwrap();
    let sent: u64 = statuses
        .values()
        .filter_map(serde_json::Value::as_u64)
        .sum();
    assert_eq!(sent, 20);
}
