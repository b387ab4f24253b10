use super::*;

const TYPE: &str = "multipart/form-data; boundary=x-1";

/// What a reader says of a form, for every cut in two and byte by byte; and that what it lets pass before the end
/// never holds the closing delimiter.
fn read_as(content_type: &str, form: &[u8]) -> Result<Option<String>, BodyError> {
    let read = |pieces: &[&[u8]]| {
        let mut reader = FormReader::new(content_type.as_bytes()).unwrap();
        let mut passed = 0;
        let mut came = 0;
        let read = pieces.iter().try_for_each(|piece| {
            let read = reader.push(piece);
            came += piece.len();
            assert!(reader.held() <= 74 && reader.held() <= came);
            if read.is_ok() && !reader.is_closed() {
                passed = came - reader.held();
            }
            read
        });
        let read = read.and_then(|()| reader.finish());
        if read.is_ok() {
            let end = [&reader.delimiter[..], b"--"].concat();
            let mut places = form.windows(end.len());
            let at = places.rposition(|place| place == end).unwrap();
            assert!(passed <= at, "{passed} of {at} passed");
        }
        read.map(|()| reader.model().map(str::to_owned))
    };
    let whole = read(&[form]);
    for cut in 0..=form.len().min(600) {
        let (first, second) = form.split_at(cut);
        let cut_there = read(&[first, second]);
        assert_eq!(cut_there, whole, "{} at {cut}", form.escape_ascii());
    }
    assert_eq!(read(&form.chunks(1).collect::<Vec<_>>()), whole);
    whole
}

fn read(form: &str) -> Result<Option<String>, BodyError> {
    read_as(TYPE, form.as_bytes())
}

fn named(model: &str) -> Result<Option<String>, BodyError> {
    Ok(Some(model.to_owned()))
}

/// A form of parts, each its headers and content.
fn form(parts: &[(&str, &str)]) -> String {
    let parts = parts
        .iter()
        .map(|(headers, content)| format!("--x-1\r\n{headers}\r\n\r\n{content}\r\n"));
    format!("{}--x-1--\r\n", parts.collect::<String>())
}

const MODEL: (&str, &str) = ("Content-Disposition: form-data; name=\"model\"", "whisper");
const FILE: (&str, &str) = (
    "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav",
    "RIFF\0\u{1}--\r\n-\r\n--x\r\n--x-2\r\r\n\n",
);

/// As SDKs and tools write them.
#[test]
fn c4_the_model_is_read_wherever_its_part_is() {
    assert_eq!(read(&form(&[MODEL, FILE])), named("whisper"));
    assert_eq!(read(&form(&[FILE, MODEL])), named("whisper"));
    assert_eq!(read(&form(&[FILE, MODEL, FILE])), named("whisper"));
    for headers in [
        "content-disposition:form-data;name=model",
        "Content-Disposition: form-data; name=model\r\nContent-Type: text/plain; charset=utf-8",
        "Content-Type: text/plain\r\nContent-Disposition: FORM-DATA ; NAME=\"model\"",
        "Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: 8bit",
        "Content-Disposition: form-data; name=\"model\"\r\nContent-Length: 7\r\nX-Own: a:b",
    ] {
        assert_eq!(read(&form(&[FILE, (headers, "whisper")])), named("whisper"));
    }
    for file in [
        "name=\"file\"; filename=\"speech (1), final; v2.wav\"",
        "name=file; filename=a.wav; filename*=utf-8''a%20b.wav",
        "name=\"file\"; filename=\"\u{e4}=\u{f6}.wav\"",
        "name=\"file\"; filename=\"C:\\my names\\a.wav\"",
        "name=\"image[]\"; filename=\"\"",
        "name=\"timestamp_granularities[]\"",
        "name=\"models\"",
        "name=\"model_name\"",
    ] {
        let headers = format!("Content-Disposition: form-data; {file}");
        assert_eq!(
            read(&form(&[(&headers, ""), MODEL])),
            named("whisper"),
            "{file}"
        );
    }
}

#[test]
fn a_form_has_one_boundary_in_one_spelling() {
    let body = |boundary: &str| {
        form(&[MODEL])
            .replace("x-1", boundary)
            .replace(MODEL.1, "w")
    };
    let long = "b".repeat(70);
    for (content_type, boundary) in [
        ("multipart/form-data; boundary=x-1".to_owned(), "x-1"),
        ("Multipart/Form-Data;boundary=\"x-1\"".to_owned(), "x-1"),
        (
            "multipart/form-data ; charset=UTF-8 ; BOUNDARY=x_'+.-1".to_owned(),
            "x_'+.-1",
        ),
        (
            "multipart/form-data; boundary=\"a/b:c=(d),?\"".to_owned(),
            "a/b:c=(d),?",
        ),
        (
            "multipart/form-data; boundary=----WebKitFormBoundaryA1".to_owned(),
            "----WebKitFormBoundaryA1",
        ),
        (format!("multipart/form-data; boundary={long}"), &*long),
    ] {
        let read = read_as(&content_type, body(boundary).as_bytes());
        assert_eq!(read, named("w"), "{content_type}");
    }
    for parameters in [
        "",
        ";",
        "; boundary",
        "; boundary=",
        "; boundary=\"\"",
        "; boundary=x-1;",
        "; boundary=x-1; boundary=x-1",
        "; boundary=x-1; Boundary=y",
        "; boundary=x-1, multipart/form-data; boundary=y",
        "; boundary=x-1; boundary*=utf-8''y",
        "; boundary*0=x-; boundary*1=1",
        "; boundary = x-1",
        "; boundary=\"x-1",
        "; boundary=\"x\\-1\"",
        "; boundary=\"x-1 \"",
        "; boundary='x 1'",
        "; boundary=x/1",
        "; boundary=x-1; charset=utf-16",
        "; boundary=x-1; a=b",
        "; boundary=x\u{e4}",
    ] {
        let content_type = format!("multipart/form-data{parameters}");
        let read = read_as(&content_type, form(&[MODEL]).as_bytes());
        assert_eq!(read, Err(FormError::Boundary.into()), "{parameters}");
    }
    let content_type = format!("multipart/form-data; boundary={long}b");
    let read = read_as(&content_type, b"");
    assert_eq!(read, Err(FormError::Boundary.into()));
    for other in ["multipart/mixed; boundary=x-1", "application/json", ""] {
        assert!(FormReader::new(other.as_bytes()).is_none(), "{other}");
    }
}

#[test]
fn c4_a_model_is_there_once_and_no_file() {
    let with = |headers: &str| read(&form(&[MODEL, (headers, "o1")]));
    let repeated = Err(BodyError::Repeated(Member::Model));
    let other = Err(BodyError::OtherCase(Member::Model));
    let file = Err(BodyError::File(Member::Model));
    assert_eq!(read(&form(&[FILE])), Ok(None));
    assert_eq!(read(&form(&[MODEL, MODEL])), repeated);
    assert_eq!(with("CONTENT-DISPOSITION: form-data; name=model"), repeated);
    for name in [
        "\"Model\"",
        "MODEL",
        "\"mod%65l\"",
        "\"%6D%6F%64%65%6C\"",
        "\" model\"",
        "\"model \"",
        "\"model[]\"",
        "\"model[0]\"",
        "\"mo\\del\"",
        "\"a model\"",
        "\"=?utf-8?q?model?=\"",
        "\"model%00x\"",
        "\"model\"; name*=utf-8''b",
        "\"a\"; name*=utf-8''model",
    ] {
        let headers = format!("Content-Disposition: form-data; name={name}");
        assert_eq!(with(&headers), other, "{name}");
    }
    for headers in [
        "Content-Disposition: form-data; name=\"model\"; filename=\"\"",
        "Content-Disposition: form-data; filename=a; name=model",
        "Content-Disposition: form-data; name=model; filename*=utf-8''a",
        "Content-Disposition: form-data; name=model\r\nContent-Type: application/json",
        "Content-Disposition: form-data; name=model\r\nContent-Type: text/plain; charset=utf-16",
        "Content-Disposition: form-data; name=model\r\nContent-Type:",
    ] {
        assert_eq!(read(&form(&[(headers, "o1")])), file, "{headers}");
    }
    let long = |length: usize| read(&form(&[(MODEL.0, &"x".repeat(length))]));
    assert!(long(1024).is_ok());
    assert_eq!(long(1025), Err(BodyError::TooLong(Member::Model)));
    let bytes = form(&[MODEL]).replace("whisper", "w\u{e4}").into_bytes();
    let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != 0xa4).collect();
    let read = read_as(TYPE, &bytes);
    assert_eq!(read, Err(BodyError::WrongType(Member::Model)));
    // Exact, white space included.
    let padded = form(&[(MODEL.0, " whisper\r\n")]);
    assert_eq!(self::read(&padded), named(" whisper\r\n"));
}

#[test]
fn c4_headers_of_parts_have_one_reading() {
    let with = |headers: &str| read(&form(&[MODEL, (headers, "content")]));
    for headers in [
        "Content-Type: text/plain",
        "Content-Disposition: form-data",
        "Content-Disposition: form-data;",
        "Content-Disposition: form-data; name",
        "Content-Disposition: form-data; name=",
        "Content-Disposition: form-data; name=\"\"",
        "Content-Disposition: form-data; name=\"a",
        "Content-Disposition: form-data; name=\"a\\\"; filename=\"b\"",
        "Content-Disposition: form-data; name=a b",
        "Content-Disposition: form-data; name=a name=model",
        "Content-Disposition: form-data; name =a",
        "Content-Disposition: form-data; name= a",
        "Content-Disposition: form-data; name=a; name=b",
        "Content-Disposition: form-data; name=a; Name=b",
        "Content-Disposition: form-data; name=a; size=7",
        "Content-Disposition: form-data; name=a; filename=\"b\"; filename=\"c\"",
        "Content-Disposition: form-data; name=a; filename=\"; name=model\"",
        "Content-Disposition: form-data; name=a; filename=\"x Name* = model\"",
        "Content-Disposition: form-data; name=\"a\u{e4}\"",
        "Content-Disposition: form-data; name=\"=?utf-8?b?bW9kZWw=?=\"",
        "Content-Disposition: form-data, name=a",
        "Content-Disposition: attachment; name=a",
        "Content-Disposition: name=a",
        "Content-Disposition form-data; name=a",
        "Content-Disposition : form-data; name=a",
        "Content_Disposition: form-data; name=a",
        " Content-Disposition: form-data; name=a",
        "Content-Disposition: form-data;\r\n name=a",
        "Content-Disposition: form-data; name=a\r\n\tb: c",
        "Content-Disposition: form-data; name=a\nX: b",
        "Content-Disposition: form-data; name=a\rX: b",
        "Content-Disposition: form-data; name=a\0",
        "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b",
        "Content-Disposition: form-data; name=a\r\nContent-Type: a/b\r\nContent-Type: a/b",
        "Content-Disposition: form-data; name=a\r\nContent-Encoding: gzip",
        "Content-Disposition: form-data; name=a\r\n: b",
    ] {
        assert_eq!(with(headers), Err(FormError::Headers.into()), "{headers:?}");
    }
    for (header, error) in [
        (
            "Content-Transfer-Encoding: base64",
            FormError::TransferEncoding,
        ),
        (
            "Content-Transfer-Encoding: quoted-printable",
            FormError::TransferEncoding,
        ),
        ("Content-Transfer-Encoding:", FormError::TransferEncoding),
        (
            "Content-Type: multipart/mixed; boundary=y",
            FormError::Nested,
        ),
        ("Content-Type: Multipart/Form-Data", FormError::Nested),
        ("Content-Length: 8", FormError::Length),
        ("Content-Length: 6", FormError::Length),
        ("Content-Length: +7", FormError::Length),
        ("Content-Length: 7, 7", FormError::Length),
        ("Content-Length:", FormError::Length),
    ] {
        let headers = format!("Content-Disposition: form-data; name=a\r\n{header}");
        assert_eq!(with(&headers), Err(error.into()), "{header}");
    }
    let charset = "Content-Disposition: form-data; name=\"_charset_\"";
    assert_eq!(with(charset), Err(BodyError::Encoding));
    // Bounded, and counted to the byte.
    let start = "Content-Disposition: form-data; name=a\r\nX: ";
    let long = |length: usize| with(&format!("{start}{}", "x".repeat(length - start.len() - 4)));
    assert_eq!(long(MAX_HEADERS), named("whisper"));
    assert_eq!(long(MAX_HEADERS + 1), Err(FormError::Headers.into()));
}

#[test]
fn c4_delimiters_have_one_reading() {
    let model = "--x-1\r\nContent-Disposition: form-data; name=model\r\n\r\nwhisper";
    for good in [
        "\r\n--x-1--",
        "\r\n--x-1--\r\n",
        "\r\n--x-1--\n \t",
        "\r\n--x-1\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--x-1--",
        "\r\n--x-1\r\nContent-Disposition: form-data; name=a\r\n\r\n-\r\n--x-\r\n--\r\n--x-1--",
    ] {
        assert_eq!(
            read(&format!("{model}{good}")),
            read(&format!("\r\n{model}{good}"))
        );
        assert!(read(&format!("{model}{good}")).is_ok(), "{good:?}");
    }
    // What is before the first is no part (RFC 2046 section 5.1.1).
    let preamble = format!("a -- b\r\n\r\n{model}\r\n--x-1--");
    assert_eq!(read(&preamble), named("whisper"));
    for bad in [
        "\n--x-1--",
        "\r--x-1--",
        "--x-1--",
        "\r\n---x-1--",
        "\r\n --x-1--",
        "\r\n--x-1 --",
        "\r\n--x-1-\r\n",
        "\r\n--x-1- -",
        "\r\n--x-1 \r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--x-1--",
        "\r\n--x-1\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--x-1--",
        "\r\n--x-12\r\n--x-1--",
        "\r\n--x-1\r\r\n",
        "a --x-1 b\r\n--x-1--",
        "\r\n--x-1\r\n--x-1: a\r\n\r\n\r\n--x-1--",
        "\r\n--x-1\r\nContent-Disposition: form-data; name=\"--x-1\"\r\n\r\n\r\n--x-1--",
        // The delimiter's own line break belongs to the headers here.
        "\r\n--x-1\r\nContent-Disposition: form-data; name=a\r\n\r\n--x-1--",
    ] {
        let read = read(&format!("{model}{bad}"));
        assert_eq!(read, Err(FormError::Delimiter.into()), "{bad:?}");
    }
    for (bad, error) in [
        ("\r\n--x-1\r\n\r\n\r\n--x-1--", FormError::Headers.into()),
        ("\r\n--x-1--x", FormError::AfterEnd.into()),
        ("\r\n--x-1--\r\n--x-1--", FormError::AfterEnd.into()),
        ("\r\n--x-1----", FormError::AfterEnd.into()),
        ("", BodyError::Truncated),
        ("\r\n--x-1", BodyError::Truncated),
        ("\r\n--x-1-", BodyError::Truncated),
        ("\r\n--x-1\r\n", BodyError::Truncated),
    ] {
        assert_eq!(read(&format!("{model}{bad}")), Err(error), "{bad:?}");
    }
    for bad in ["--x-1\n", " --x-1--", "\n--x-1--", "{}\n--x-1--"] {
        assert_eq!(read(bad), Err(FormError::Delimiter.into()), "{bad:?}");
    }
    assert_eq!(read("--x-1--"), Ok(None));
    assert_eq!(read(""), Err(BodyError::Truncated));
}

/// Boundaries that begin as they go on: a search that goes back too far or not far enough misses them.
#[test]
fn delimiters_are_found_behind_what_looks_like_them() {
    for boundary in ["-", "--", "a-a-b", "--a--", "aab--aaab", "---1---12"] {
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let letters: &[u8] = b"-a1b\r\n";
        for seed in 0_usize..3_000 {
            let mut left = seed * 7_919;
            let noise: String = std::iter::repeat_with(|| {
                let letter = letters[left % letters.len()];
                left /= letters.len();
                char::from(letter)
            })
            .take(8)
            .collect();
            let body = format!(
                "--{boundary}\r\n{}\r\n\r\n{noise}\r\n--{boundary}--",
                MODEL.0
            );
            let mut reader = FormReader::new(content_type.as_bytes()).unwrap();
            let read = reader.push(body.as_bytes()).and_then(|()| reader.finish());
            let content = format!("{noise}\r\n");
            let delimiter = format!("--{boundary}");
            // The delimiter may begin in the noise, or be there a second time.
            let whole = format!("{content}{delimiter}--");
            if whole.find(&delimiter) == Some(content.len()) {
                assert_eq!(read, Ok(()), "{boundary} {noise:?}");
                assert_eq!(reader.model(), Some(&*noise), "{boundary}");
            } else {
                assert!(read.is_err(), "{boundary} {noise:?}");
            }
        }
    }
}

#[test]
fn nothing_is_kept_of_files() {
    let mut reader = FormReader::new(TYPE.as_bytes()).unwrap();
    let start = format!("--x-1\r\n{}\r\n\r\n", FILE.0);
    assert_eq!(reader.push(start.as_bytes()), Ok(()));
    for _ in 0..1_000 {
        assert_eq!(reader.push(&[b'-'; 1_000]), Ok(()));
        assert_eq!(reader.held(), 0);
        assert!(reader.kept.whole().unwrap().is_empty());
    }
    let end = format!("\r\n--x-1\r\n{}\r\n\r\nwhisper\r\n--x-1--", MODEL.0);
    assert_eq!(reader.push(end.as_bytes()), Ok(()));
    assert_eq!(reader.model(), Some("whisper"));
    assert!(reader.is_closed());
}
