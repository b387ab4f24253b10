//! Forms as they come in.

use tollgate::body::RequestBody;
use tollgate::request::HeaderMap;
use tollgate::usage::{BodyReader as _, Passed};

use super::{Target, cuts};

const DELIMITER: &str = "--x-1";

pub(super) const FORM: Target = Target {
    name: "form",
    seeds: || {
        let part = |headers: &str, content: &str| {
            format!("{DELIMITER}\r\nContent-Disposition: form-data; {headers}\r\n\r\n{content}\r\n")
        };
        let end = format!("{DELIMITER}--\r\n");
        let model = part("name=\"model\"", "whisper");
        let file = part(
            "name=file; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\nContent-Length: 8",
            "-\r\n--x-\r",
        );
        let seeds = [
            model.clone() + &file + &end,
            file.clone() + &model + &end,
            file.clone() + &end,
            model.clone() + &model + &end,
            part("name=\"%6dodel\"", "o1") + &end,
            part("name=\"a\\\"; name=\"model\"", "o1") + &end,
            part("name=a; filename=\"; name=model\"", "o1") + &end,
            part("name=a; name*=utf-8''model", "o1") + &end,
            part("name=a\r\nContent-Type: multipart/mixed; boundary=y", "") + &end,
            part("name=a\r\nContent-Transfer-Encoding: base64", "") + &end,
            format!("a\r\n{model}{end}{model}"),
            model.replace("\r\n", "\n") + &end,
            model + DELIMITER,
            end.clone(),
            format!("{DELIMITER}\r\n\r\n\r\n{end}"),
            String::new(),
        ];
        seeds.map(String::into_bytes).into()
    },
    check: form,
    outcomes: &[
        "a model",
        "no model",
        "Repeated",
        "OtherCase",
        "Form",
        "Truncated",
    ],
    words: &[
        "\r\n",
        "\n",
        "\r",
        "--",
        "-",
        "--x-1",
        "--x-1--",
        "\r\n--x-1\r\n",
        "\r\n--x-1--",
        "\r\n\r\n",
        "Content-Disposition: form-data; name=",
        "Content-Disposition: form-data; name=model",
        "Content-Type: text/plain",
        "Content-Transfer-Encoding: 8bit",
        "Content-Length: 7",
        "; filename=",
        "\"",
        "\\",
        ";",
        "name=",
        "model",
        "%6d",
        "\0",
        " ",
        "\t",
        "\u{e9}",
    ],
};

/// What a form's reader said in the end, what it let pass, and what of it before the decision.
fn read(parts: &[&[u8]]) -> (Result<Option<String>, String>, Vec<u8>, usize) {
    let content_type = &b"multipart/form-data; boundary=x-1"[..];
    let mut body = RequestBody::with_form(&HeaderMap::from_pairs([(
        &b"content-type"[..],
        content_type,
    )]));
    let (mut passed, mut before) = (Vec::new(), 0);
    for (index, part) in parts.iter().enumerate() {
        match body.push(part, index + 1 == parts.len()) {
            Passed::Unchanged => passed.extend_from_slice(part),
            Passed::Replaced(instead) => passed.extend_from_slice(instead),
        }
        if !body.is_complete() {
            before = passed.len();
        }
    }
    assert!(body.is_complete() && body.is_passed());
    let model = body.model().map(|model| model.map(str::to_owned));
    let fault = |error| format!("{error:?}");
    (model.map_err(fault), passed, before)
}

fn form(input: &[u8]) -> String {
    let (model, passed, _) = read(&[input]);
    assert_eq!(passed, input);
    for parts in cuts(input) {
        let (cut, passed, before) = read(&parts);
        // What follows the end is blank, if that went on before; which fault is told may depend on the cut.
        assert_eq!(passed.len(), input.len());
        assert_eq!(cut.is_ok(), model.is_ok());
        if model.is_ok() {
            assert_eq!((&cut, &*passed), (&model, input));
            let end = [DELIMITER.as_bytes(), b"--"].concat();
            let mut places = input.windows(end.len());
            let at = places.rposition(|place| place == end).unwrap();
            assert!(before <= at, "{before} bytes of {at} passed");
        }
    }
    match &model {
        Ok(model) => {
            check_form(input, model.as_deref());
            if model.is_some() {
                "a model"
            } else {
                "no model"
            }
            .to_owned()
        }
        Err(fault) => fault.split('(').next().unwrap().to_owned(),
    }
}

/// A form that was taken: careless readers find the same in it.
fn check_form(input: &[u8], model: Option<&str>) {
    let input: String = input.iter().copied().map(char::from).collect();
    // Wherever the delimiter is, and whatever is around it.
    let mut parts: Vec<&str> = input.split(DELIMITER).skip(1).collect();
    let end = parts.pop().unwrap();
    assert!(end.strip_prefix("--").unwrap().trim().is_empty());
    let named: Vec<(String, &str)> = parts
        .iter()
        .map(|part| {
            let part = part
                .strip_prefix("\r\n")
                .unwrap()
                .strip_suffix("\r\n")
                .unwrap();
            // At the first empty line, of any line breaks.
            let (headers, content) = part.split_once("\r\n\r\n").unwrap();
            assert!(!headers.contains("\n\n") && !headers.contains("\r\r"));
            (headers.to_ascii_lowercase(), content)
        })
        .collect();
    let is_model = |headers: &&(String, &str)| {
        let lines = headers.0.split(['\r', '\n']).map(str::trim);
        let mut dispositions = lines.filter(|line| line.starts_with("content-disposition"));
        let parameters = dispositions.next().unwrap().split(';').map(str::trim);
        let mut parameters = parameters.chain(dispositions);
        parameters.any(|parameter| {
            let value = parameter
                .strip_prefix("name")
                .map(|rest| rest.trim_start_matches('*'));
            value
                .and_then(|rest| rest.trim_start().strip_prefix('='))
                .is_some_and(|value| value.trim().trim_matches('"') == "model")
        })
    };
    let found: Vec<_> = named.iter().filter(is_model).collect();
    let as_bytes = |text: &str| text.bytes().map(char::from).collect::<String>();
    let expected: Vec<String> = model.iter().map(|model| as_bytes(model)).collect();
    let found: Vec<String> = found
        .iter()
        .map(|(_, content)| (*content).to_owned())
        .collect();
    assert_eq!(found, expected);
}
