//! `tollgate usage`.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::run::{Ran, command, file, tollgate, with_input};

/// A line as the module writes it.
fn line(changes: &Value) -> String {
    let mut record = json!({
        "time": "2026-03-01T12:00:00.000Z", "outcome": "allowed", "code": null, "app_id": "a-1",
        "app_name": "batch", "deployment": "gpt-4o", "status": 200, "duration_ms": 100,
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "estimated_tokens": null,
    });
    for (name, value) in changes.as_object().unwrap() {
        record[name] = value.clone();
    }
    let time = record.as_object_mut().unwrap().remove("time").unwrap();
    // The module's records begin with their time.
    format!("{{\"time\":{time},{}\n", &record.to_string()[1..])
}

fn sample() -> String {
    let mut log = String::new();
    for millis in 1..=100 {
        log += &line(&json!({ "duration_ms": millis * 10 }));
    }
    let refused = json!({ "outcome": "limited", "code": "RateLimitExceeded", "status": 429, "duration_ms": 0,
        "prompt_tokens": null, "completion_tokens": null, "total_tokens": null });
    log += &line(&refused);
    log += "[2026-03-01 12:00:00.000][1][warning] something else {}\n";
    log += &line(
        &json!({ "app_name": "chat", "app_id": "a-2", "deployment": "gpt-4", "time": "2026-03-01T13:59:59.999Z", "total_tokens": 1000 }),
    );
    let prefix = "[2026-03-01 13:00:00.000][12][info][wasm] [x.cc:1] wasm log tollgate: ";
    log += prefix;
    log += &line(
        &json!({ "app_name": null, "app_id": null, "deployment": null, "outcome": "unauthenticated",
        "code": "TokenNotPresent", "status": 401, "time": "2026-03-01T13:00:00.000Z", "total_tokens": null, "prompt_tokens": null, "completion_tokens": null }),
    );
    log += &line(
        &json!({ "outcome": "would_forbidden", "code": "PermissionDenied", "status": 503, "duration_ms": 7 }),
    );
    log
}

fn tables(log: &str, more: &[&str]) -> Value {
    let ran = with_input(&[&["usage", "--format", "json", "-"], more].concat(), log);
    serde_json::from_str(&ran.well()).unwrap()
}

fn row<'a>(tables: &'a Value, by: &str, key: &str) -> &'a Value {
    let rows = tables[format!("by_{by}")].as_array().unwrap();
    rows.iter()
        .find(|row| row[by] == key)
        .unwrap_or_else(|| panic!("{by} {key}: {tables:#}"))
}

#[test]
fn calls_denials_tokens_and_percentiles() {
    let tables = tables(&sample(), &[]);
    let batch = row(&tables, "app", "batch");
    let expected = json!({
        "app": "batch", "calls": 102, "denied": 1, "would_deny": 1, "errors": 1, "prompt_tokens": 1010,
        "completion_tokens": 505, "total_tokens": 1515, "estimated_tokens": 0, "p50_ms": batch["p50_ms"], "p99_ms": batch["p99_ms"],
    });
    assert_eq!(*batch, expected);
    // To about a percent.
    assert!(
        (495..=505).contains(&batch["p50_ms"].as_u64().unwrap()),
        "{batch}"
    );
    assert!(
        (985..=1_001).contains(&batch["p99_ms"].as_u64().unwrap()),
        "{batch}"
    );
    assert_eq!(row(&tables, "app", "(none)")["denied"], 1);
    assert_eq!(row(&tables, "app", "(none)")["p50_ms"], Value::Null);
    assert_eq!(row(&tables, "deployment", "gpt-4")["total_tokens"], 1000);
    assert_eq!(row(&tables, "code", "RateLimitExceeded")["calls"], 1);
    assert_eq!(row(&tables, "code", "allowed")["calls"], 101);
    assert_eq!(row(&tables, "hour", "2026-03-01T13")["calls"], 2);
    assert_eq!(tables["all"]["calls"], 104);
    assert_eq!(
        (&tables["other_lines"], &tables["unreadable_lines"]),
        (&json!(1), &json!(0))
    );
    // The most tokens first; hours in their order.
    assert_eq!(tables["by_app"][0]["app"], "batch");
    assert_eq!(tables["by_hour"][0]["hour"], "2026-03-01T12");
}

#[test]
fn o6_what_was_estimated_is_summed_up_apart() {
    let cut_off = json!({ "prompt_tokens": null, "completion_tokens": null, "total_tokens": null, "estimated_tokens": 911 });
    let after = json!({ "total_tokens": 25, "estimated_tokens": 800 });
    let log = line(&cut_off) + &line(&after) + &line(&json!({}));
    let batch = &tables(&log, &[])["by_app"][0];
    let sums = (&batch["total_tokens"], &batch["estimated_tokens"]);
    assert_eq!(sums, (&json!(40), &json!(1711)));
    // As Envoy's access log has it, and a log of before.
    let access = json!({ "time": "2026-03-01T12:00:00.000Z", "outcome": "allowed", "estimated_tokens": "7" });
    let older =
        json!({ "time": "2026-03-01T12:00:00.000Z", "outcome": "allowed", "total_tokens": 3 });
    let sums = tables(&format!("{access}\n{older}\n"), &[]);
    assert_eq!(sums["all"]["estimated_tokens"], 7);
    let page = file("estimated.html", "");
    let log = file("estimated.log", &log);
    tollgate(&["usage", "--html", &page, &log]).well();
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<dt>Estimated tokens</dt><dd>1,711</dd>"));
}

#[test]
fn tables_for_people() {
    let log = line(&json!({})) + &line(&json!({ "app_name": "chat \u{1b}[2J", "total_tokens": 7 }));
    let path = file("usage.log", &log);
    let out = tollgate(&["usage", "--by", "app", &path]).well();
    let expected = "\
app             calls  denied  would_deny  errors  prompt_tokens  completion_tokens  total_tokens  estimated_tokens  p50_ms  p99_ms
batch               1       0           0       0             10                  5            15                 0     100     100
chat \\u{1b}[2J      1       0           0       0             10                  5             7                 0     100     100
all                 2       0           0       0             20                 10            22                 0     100     100
";
    assert_eq!(out, expected);
    let both = tollgate(&["usage", &path, &path]).well();
    assert_eq!(
        both.lines().filter(|line| line.starts_with("all ")).count(),
        4
    );
    let hour = both
        .lines()
        .find(|line| line.starts_with("2026-03-01T12"))
        .unwrap();
    assert_eq!(hour.split_whitespace().nth(1), Some("4"), "{both}");
}

#[test]
fn csv_for_programs_and_no_formulas_in_it() {
    let log = line(&json!({ "deployment": "=cmd()" })) + &line(&json!({ "app_name": "a, \"b\"" }));
    let path = file("usage-csv.log", &log);
    let out = tollgate(&["usage", "--format", "csv", &path]).well();
    let mut lines = out.lines();
    assert_eq!(
        lines.next().unwrap(),
        "by,key,calls,denied,would_deny,errors,prompt_tokens,completion_tokens,total_tokens,estimated_tokens,p50_ms,p99_ms"
    );
    assert!(
        out.contains("\napp,\"a, \"\"b\"\"\",1,0,0,0,10,5,15,0,100,100\n"),
        "{out}"
    );
    assert!(out.contains("\ndeployment,'=cmd(),1,"), "{out}");
    assert_eq!(out.lines().count(), 7);
}

#[test]
fn envoys_access_log_is_read_too_and_never_counted_twice() {
    let access = json!({ "app_name": "batch", "code": "-", "outcome": "allowed", "duration_ms": "42", "status": 200,
        "prompt_tokens": "3", "completion_tokens": "4", "total_tokens": "7", "time": "2026-03-01T12:00:00.000Z", "deployment": "-" });
    let access = format!("{access}\n");
    let alone = tables(&access, &[]);
    let expected = json!({ "calls": 1, "denied": 0, "would_deny": 0, "errors": 0, "prompt_tokens": 3,
        "completion_tokens": 4, "total_tokens": 7, "estimated_tokens": 0, "p50_ms": 42, "p99_ms": 42 });
    assert_eq!(alone["all"], expected);
    assert_eq!(row(&alone, "deployment", "(none)")["calls"], 1);
    let ran = with_input(&["usage", "-"], &(line(&json!({})) + &access));
    assert!(
        ran.err.contains("1 line passed over: the other log"),
        "{}",
        ran.err
    );
    let out = ran.well();
    let all = out.lines().last().unwrap();
    assert_eq!(
        all.split_whitespace().take(2).collect::<Vec<_>>(),
        ["all", "1"],
        "{out}"
    );
}

#[test]
fn u11_what_is_no_log_is_refused() {
    let service = r#"{"time":"2026-03-01T12:00:00Z","level":"info","outcome":"success"}"#;
    for (name, content) in [
        ("passwd", "root:x:0:0::/root:/bin/sh\n"),
        ("service.log", service),
    ] {
        let said = tollgate(&["usage", &file(name, content)]).ended(2);
        assert!(
            said.contains("not a log") && said.contains("in 1 lines"),
            "{said}"
        );
    }
}

#[test]
fn o1_a_log_is_read_in_what_collectors_make_of_it() {
    let record = line(&json!({}));
    let record = record.trim_end();
    let in_log = json!({ "log": format!("{record}\n"), "stream": "stderr" }).to_string();
    let in_message = json!({ "MESSAGE": record, "_COMM": "envoy" }).to_string();
    let istio = format!(
        "2026-03-01T12:00:00Z\tinfo\tenvoy wasm x.cc:1\twasm log tollgate: {record}\tthread=30"
    );
    let other = r#"{"time":"2026-03-01T12:00:00Z","outcome":"success","msg":"{}"}"#;
    let log = [record, &in_log, &in_message, &istio, other, ""].join("\n");
    let ran = with_input(&["usage", "--format", "json", "-"], &log);
    assert!(
        ran.err.contains("1 line passed over: no records"),
        "{}",
        ran.err
    );
    let tables: Value = serde_json::from_str(&ran.well()).unwrap();
    assert_eq!(tables["all"]["calls"], 4);
    assert_eq!(tables["all"]["total_tokens"], 60);
    assert_eq!(tables["other_lines"], 1);
}

#[test]
fn o1_of_a_request_in_both_logs_one_record_counts() {
    let module = |id: &str| line(&json!({ "request_id": id, "token_id": null }));
    let envoy = |id: &str| {
        let record = json!({ "flags": "-", "outcome": "allowed", "request_id": id, "status": 200,
            "time": "2026-03-01T12:00:00.000Z", "total_tokens": "15" });
        format!("{record}\n")
    };
    // The first line is Envoy's, of a request that the module's log lacks.
    let log = [
        envoy("a"),
        module("b"),
        envoy("b"),
        envoy("c"),
        module("c"),
        module("d"),
    ]
    .concat();
    let tables = tables(&log, &[]);
    assert_eq!(tables["all"]["calls"], 4);
    assert_eq!(tables["duplicate_records"], 2);
}

#[test]
fn o1_compressed_logs_are_read() {
    let log = line(&json!({}));
    let packed: Vec<u8> = [log.as_bytes(), log.as_bytes()]
        .iter()
        .flat_map(|member| {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(member).unwrap();
            writer.finish().unwrap()
        })
        .collect();
    // Rotated logs are appended to each other as they are.
    let path = file("usage-packed.log.gz", &packed);
    let tables: Value =
        serde_json::from_str(&tollgate(&["usage", "--format", "json", &path]).well()).unwrap();
    assert_eq!(tables["all"]["calls"], 2);
}

#[test]
fn o1_tables_by_day_and_by_several_things() {
    let log = sample();
    let tables = tables(&log, &["--by", "day", "--by", "app,deployment"]);
    assert_eq!(tables["by_day"].as_array().unwrap().len(), 1);
    assert_eq!(tables["by_day"][0]["day"], "2026-03-01");
    assert_eq!(tables["by_day"][0]["calls"], 104);
    let rows = tables["by_app_deployment"].as_array().unwrap();
    let chat = rows.iter().find(|row| row["app"] == "chat").unwrap();
    assert_eq!(
        (&chat["deployment"], &chat["calls"]),
        (&json!("gpt-4"), &json!(1))
    );
    assert!(tables.get("by_app").is_none());

    let path = file("usage-by.log", &log);
    let csv = tollgate(&[
        "usage",
        "--format",
        "csv",
        "--by",
        "day",
        "--by",
        "app,deployment",
        &path,
    ])
    .well();
    assert!(csv.starts_with("by,key,key_2,calls,"), "{csv}");
    assert!(csv.contains("\nday,2026-03-01,,104,"), "{csv}");
    assert!(csv.contains("\n\"app,deployment\",chat,gpt-4,1,"), "{csv}");
    let text = tollgate(&["usage", "--by", "app,deployment", &path]).well();
    assert!(text.starts_with("app     deployment  calls  "), "{text}");
    for (by, problem) in [
        ("apps", "none of app, deployment, code, day, hour"),
        ("app,app", "repeated"),
    ] {
        let said = tollgate(&["usage", "--by", by, &path]).ended(2);
        assert!(said.contains(problem), "{said}");
    }
}

#[test]
fn whatever_is_in_a_log_it_is_read_to_its_end() {
    let good = line(&json!({}));
    let cut = &good[..good.len() / 2];
    let mut log = Vec::new();
    for piece in [
        good.as_bytes(),
        b"\n\n\r\n",
        b"{\n{}\n[1]\n{\"time\":1}\n",
        cut.as_bytes(),
        b"\n{\"time\":\"2026-03-01T12:00:00Z\",\"outcome\":\"\xff\"}\n",
        b"{\"time\":\"yesterday\",\"outcome\":\"allowed\"}\n",
        b"\xff\xfe\x00\n",
        "x".repeat(3_000_000).as_bytes(),
        b"\n",
        format!("{{\"time\":\"{}\n", "9".repeat(3_000_000)).as_bytes(),
        good.trim_end().as_bytes(),
    ] {
        log.extend_from_slice(piece);
    }
    let path = file("usage-odd.log", &log);
    let ran = tollgate(&["usage", "--format", "json", &path]);
    assert!(
        ran.err
            .contains("4 lines of the request log could not be read"),
        "{}",
        ran.err
    );
    let tables: Value = serde_json::from_str(&ran.well()).unwrap();
    assert_eq!(tables["all"]["calls"], 2);
    let ran = tollgate(&["usage", &file("empty", "")]);
    assert!(ran.err.contains("the log is empty"), "{}", ran.err);
    assert_eq!(ran.code, 0);
    let said = tollgate(&["usage", &file("usage.log.gz", b"\x1f\x8b\x08\0")]).ended(2);
    assert!(said.contains("usage.log.gz"), "{said}");
    assert!(
        tollgate(&["usage", "no/such.log"])
            .ended(2)
            .contains("no/such.log: No such file")
    );
    assert!(
        tollgate(&["usage", env!("CARGO_MANIFEST_DIR")])
            .ended(2)
            .contains("directory")
    );
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let mut log = String::new();
    for app in 0..2_000 {
        log += &line(&json!({ "app_name": format!("app-{app}") }));
    }
    let path = file("usage-pipe.log", &log);
    for format in ["text", "csv", "json"] {
        let mut child = command(&["usage", "--format", format, &path])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{format}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{format}");
    }
}

/// 100 MB of lines, every one of another application, deployment and hour, under a bound of memory.
#[test]
fn memory_is_bounded_however_long_the_log_is() {
    let run = format!(
        "ulimit -v 400000; exec '{}' usage --format json -",
        env!("CARGO_BIN_EXE_tollgate")
    );
    let mut child = Command::new("sh")
        .args(["-c", &run])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
    let padding = "p".repeat(700);
    let lines = 120_000;
    let writer = std::thread::spawn(move || {
        for index in 0..lines {
            let (year, month, hour) = (1000 + index / 288, index / 24 % 12 + 1, index % 24);
            writeln!(
                input,
                "{{\"time\":\"{year:04}-{month:02}-01T{hour:02}\",\"outcome\":\"allowed\",\"app_name\":\"a{index}\",\"deployment\":\"d{index}\",\"code\":\"c{index}\",\"duration_ms\":{index},\"x\":\"{padding}\"}}"
            )
            .unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("summed up as (other)"), "{err}");
    let tables: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(tables["all"]["calls"].as_u64(), Some(lines));
    for by in ["app", "deployment", "code", "hour"] {
        let rows = tables[format!("by_{by}")].as_array().unwrap();
        let sum: u64 = rows.iter().map(|row| row["calls"].as_u64().unwrap()).sum();
        assert_eq!(sum, lines, "{by}");
        assert_eq!(rows.last().unwrap()[by], "(other)");
    }
}

fn page(log: &str, name: &str) -> (Ran, String) {
    let log = file(&format!("{name}.log"), log);
    let path = file(&format!("{name}.html"), "");
    let ran = tollgate(&["usage", "--html", &path, &log]);
    (ran, std::fs::read_to_string(path).unwrap())
}

#[test]
fn the_page_is_one_file_that_needs_nothing_and_runs_nothing() {
    let hostile = "</title><script>alert(1)</script>&\"'\u{202e}";
    let (ran, page) = page(
        &(sample() + &line(&json!({ "app_name": hostile }))),
        "usage",
    );
    assert_eq!(ran.well(), "");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for from_elsewhere in [
        "http:", "https:", "src=", "href=", "@import", "url(", "<script", "\u{202e}",
    ] {
        assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(page.contains("&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#39;"));
    // One rectangle for each count that is not 0, with what it stands for.
    assert!(
        page.contains("<title>2026-03-01 12:00, passed: 102</title>"),
        "{page}"
    );
    assert!(page.contains("<title>2026-03-01 12:00, denied: 1</title>"));
    assert!(page.contains("<title>chat, prompt tokens: 10</title>"));
    assert!(page.contains("<td data-name=\"total tokens\">1,515</td>"));
}

#[test]
fn a_page_of_nothing_and_a_page_of_years_are_pages() {
    let (_, nothing) = page("", "usage-nothing");
    assert!(nothing.contains("<dd>0</dd>") && !nothing.contains("<svg"));
    let mut log = String::new();
    for hour in 0..9_000 {
        let (day, hour) = (hour / 24, hour % 24);
        let time = format!(
            "{:04}-{:02}-{:02}T{hour:02}:00:00Z",
            2026 + day / 336,
            day / 28 % 12 + 1,
            day % 28 + 1
        );
        log += &line(&json!({ "time": time }));
    }
    let (_, years) = page(&log, "usage-years");
    let bars = years.matches(", passed: ").count();
    // A year and a month in weeks, one for the application, one for the code.
    assert!((56..=62).contains(&bars), "{bars}");
    assert!(years.contains("each bar covers 7 days"));
    assert!(years.contains("and 175 more: see the CSV"));
}

#[test]
fn u14_a_chart_has_the_steps_that_its_log_needs() {
    let at = |time: &str, changes: &Value| {
        let mut record = changes.clone();
        record["time"] = json!(time);
        line(&record)
    };
    let good = json!({});
    let failed = json!({ "status": 502, "total_tokens": null });
    // Less than an hour: minutes, those without a call included.
    let log = at("2026-03-01T12:00:30Z", &good) + &at("2026-03-01T12:40:30Z", &failed);
    let (_, hour) = page(&log, "usage-hour");
    assert!(hour.contains("each bar covers 1 minute") && hour.contains("viewBox=\"0 0 41 100\""));
    assert!(hour.contains("2026-03-01, UTC"), "{hour}");
    assert!(hour.contains("<title>2026-03-01 12:40, errors of the backend: 1</title>"));
    assert!(hour.contains(">12:07</span>"), "{hour}");
    let log = at("2026-03-01T12:00:30Z", &good) + &at("2026-03-03T09:40:30Z", &good);
    let (_, days) = page(&log, "usage-days");
    assert!(
        days.contains("each bar covers 1 hour") && days.contains("2026-03-01 to 2026-03-03, UTC")
    );
    assert!(days.contains(">03-02 "), "{days}");
    assert!(!days.contains("Errors over time"));
    // One colour for one meaning.
    for class in ["passed", "denied", "errors", "prompt", "completion"] {
        assert_eq!(days.matches(&format!("--{class}: #")).count(), 2, "{class}");
    }
    assert!(days.contains("<h2>By app and deployment</h2>"));
}
