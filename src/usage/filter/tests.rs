use super::*;

const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}";
const CHOICE: &str = "data: {\"choices\":[{\"delta\":{}}],\"usage\":null}";

fn filter(parts: &[&[u8]]) -> Vec<u8> {
    let mut filter = EventFilter::new();
    let mut output = Vec::new();
    for part in parts {
        match filter.push(part) {
            None => output.extend_from_slice(part),
            Some(instead) => output.extend_from_slice(instead),
        }
        assert!(filter.held.len() <= MAX_HELD);
    }
    output.extend(filter.finish());
    output
}

/// The output for a text, whatever its cut.
#[track_caller]
fn check(input: &str, expected: &str) {
    let input = input.as_bytes();
    let shown = |output: Vec<u8>| String::from_utf8_lossy(&output).into_owned();
    assert_eq!(shown(filter(&[input])), expected, "whole");
    for cut in 0..=input.len() {
        let (first, second) = input.split_at(cut);
        assert_eq!(shown(filter(&[first, second])), expected, "cut at {cut}");
    }
    let single: Vec<_> = input.chunks(1).collect();
    assert_eq!(shown(filter(&single)), expected, "byte by byte");
}

#[test]
fn leaves_out_the_extra_event_only() {
    for end in ["\n", "\r\n", "\r"] {
        let blank = format!("{end}{end}");
        let before = format!("\u{feff}: ping{blank}{CHOICE}{blank}{CHOICE}{blank}");
        let after = format!("data: [DONE]{blank}");
        check(
            &format!("{before}{USAGE}{blank}{after}"),
            &format!("{before}{after}"),
        );
        check(&format!("{USAGE}{blank}{USAGE}{blank}{after}"), &after);
        check(&format!("{before}{USAGE}{blank}"), &before);
        // Not even its blank line.
        check(&format!("{USAGE}{end}"), "");
        check(USAGE, "");
    }
}

#[test]
fn leaves_out_all_lines_of_it() {
    check(
        &format!(": before\nevent: message\n: within\n{USAGE}\nid: 7\n\n\n: after\n\n"),
        ": before\n\n: after\n\n",
    );
    check(
        "data: {\"choices\":[],\ndata: \"usage\":{\"total_tokens\":3}}\n\nx\n\n",
        "x\n\n",
    );
}

#[test]
fn everything_else_passes_unchanged() {
    for text in [
        "",
        "\n",
        "\r\n\r\n",
        ": comment\n\n",
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
        "data: {\"choices\":[],\"usage\":null}\n\n",
        "data: {\"choices\":[{}],\"usage\":{\"total_tokens\":3}}\n\n",
        "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}\n\n",
        "data: {\"choices\":[],\"usage\":{\"total_tok",
        "data: {\"usage\":{\"total_tokens\":3}}\n\n",
        "event: x\ndata: {\"response\":{\"usage\":{\"total_tokens\":3}}}\n\n",
        "data: [DONE]\n\n",
        "data: garbage \u{e9}\n\n",
        "event: only\n\n",
        "\u{feff}data",
    ] {
        check(text, text);
    }
}

#[test]
fn goes_on_without_delay() {
    let mut filter = EventFilter::new();
    // The first choice shows that this is not the extra event.
    assert_eq!(
        filter.push(b"data: {\"id\":1,\"choices\":["),
        Some(&b""[..])
    );
    assert_eq!(
        filter.push(b"{\"delta\":"),
        Some(&b"data: {\"id\":1,\"choices\":[{\"delta\":"[..])
    );
    assert_eq!(filter.push(b"{}}],\"usage\":"), None);
    assert_eq!(filter.push(b"null}\n\n"), None);
    // Comments keep connections alive, so they wait for nothing.
    assert_eq!(filter.push(b": pi"), None);
    assert_eq!(filter.push(b"ng\n"), None);
    assert_eq!(filter.push(b"data: [D"), None);
    assert_eq!(filter.push(b"ONE]\n\n"), None);
    assert_eq!(filter.finish(), b"");
    assert!(filter.reader().is_done());
}

#[test]
fn holds_back_no_more_than_the_bound() {
    let padded = |length: usize| {
        let event = |padding: usize| {
            let padding = "x".repeat(padding);
            format!(
                "data: {{\"id\":\"{padding}\",\"choices\":[],\"usage\":{{\"total_tokens\":3}}}}\n\n"
            )
        };
        event(length - event(0).len())
    };
    for (length, left_out) in [
        (MAX_HELD, true),
        (MAX_HELD + 1, false),
        (5 * MAX_HELD, false),
    ] {
        let event = padded(length);
        let expected = if left_out { "" } else { &event };
        for size in [1, 7, 1000, MAX_HELD - 1, MAX_HELD, MAX_HELD + 1, usize::MAX] {
            let parts: Vec<_> = event.as_bytes().chunks(size).collect();
            assert!(filter(&parts) == expected.as_bytes(), "{length} in {size}");
        }
        let mut reading = EventFilter::new();
        reading.push(event.as_bytes());
        assert_eq!(reading.reader().usage().unwrap().total, Some(3));
    }
}
