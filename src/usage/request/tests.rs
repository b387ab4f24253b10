use super::*;

fn read(text: &[u8]) -> (ModelReader, Result<(), BodyError>) {
    let mut whole = ModelReader::new();
    let result = whole.push(text).and_then(|()| whole.finish());
    for cut in 0..=text.len() {
        let (first, second) = text.split_at(cut);
        let mut parts = ModelReader::new();
        let cut_result = parts
            .push(first)
            .and_then(|()| parts.push(second))
            .and_then(|()| parts.finish());
        assert_eq!(
            (cut_result, facts(&parts)),
            (result, facts(&whole)),
            "{:?} cut at {cut}",
            String::from_utf8_lossy(text)
        );
    }
    let mut single = ModelReader::new();
    let single_result = text
        .chunks(1)
        .try_for_each(|byte| single.push(byte))
        .and_then(|()| single.finish());
    assert_eq!((single_result, facts(&single)), (result, facts(&whole)));
    (whole, result)
}

fn facts(reader: &ModelReader) -> impl PartialEq + fmt::Debug + use<> {
    (
        reader.model.clone(),
        (reader.stream, reader.include_usage()),
        (reader.counts, reader.prompts),
        (reader.stream_options_at(), reader.closed_at),
        reader.attachments(),
    )
}

#[track_caller]
fn refused(text: &[u8], error: BodyError) {
    assert_eq!(
        read(text).1,
        Err(error),
        "{:?}",
        String::from_utf8_lossy(text)
    );
}

#[test]
fn l13_finds_the_pictures_of_a_request() {
    let picture = "data:image/png;base64,QUJDREVGR0hJSktMTU5PUA==";
    let plain = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5eg==";
    let text = format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"{picture}"}},
            {{"type":"image_url","image_url":{{"url":"{picture}","detail":"low"}}}},
            {{"type":"input_image","image_url":"{picture}"}},
            {{"type":"file","file":{{"filename":"a.pdf","file_data":"{plain}"}}}},
            {{"type":"input_audio","input_audio":{{"data":"{plain}","format":"wav"}}}}]}},
            {{"role":"user","content":"{picture}"}}],"input":["{picture}"],"metadata":{{"id":"{plain}"}}}}"#
    );
    let (reader, result) = read(text.as_bytes());
    assert_eq!(result, Ok(()));
    let bytes = u64::try_from(2 * picture.len() + 2 * plain.len()).unwrap();
    assert_eq!(reader.attachments(), Attachments { count: 4, bytes });
}

#[test]
fn reads_what_decides() {
    let text = r#" {"messages":[{"role":"user","content":"\"model\":\"x\" {["}],
        "model" : "gpt-4o\u002dmini","stream":true,
        "stream_options":{"include_usage":false,"x":[{"include_usage":7}]},
        "max_tokens":100,"max_completion_tokens":200.0,"max_output_tokens":null,
        "n":2,"best_of":3,"metadata":{"model":"y","n":"z"}} "#;
    let (reader, result) = read(text.as_bytes());
    assert_eq!(result, Ok(()));
    assert_eq!(reader.model(), Some("gpt-4o-mini"));
    assert_eq!(reader.stream(), Some(true));
    assert_eq!(reader.include_usage(), Some(false));
    for (member, count) in [
        (Member::MaxTokens, Some(100)),
        (Member::MaxCompletionTokens, Some(200)),
        (Member::MaxOutputTokens, None),
        (Member::N, Some(2)),
        (Member::BestOf, Some(3)),
        (Member::Stream, None),
    ] {
        assert_eq!(reader.count(member), count, "{member:?}");
    }
    assert_eq!(reader.scanned(), text.len() as u64);

    let at = reader.stream_options_at().unwrap();
    let options = &text[at.start as usize..at.end as usize];
    assert_eq!(
        options,
        r#"{"include_usage":false,"x":[{"include_usage":7}]}"#
    );
    assert_eq!(reader.closed_at(), text.rfind('}').map(|at| at as u64));
}

#[test]
fn null_is_absent() {
    let text = br#"{"model":null,"stream":null,"stream_options":null,"max_tokens":null,"n":null}"#;
    let (reader, result) = read(text);
    assert_eq!(result, Ok(()));
    assert_eq!(reader.model(), None);
    assert_eq!((reader.stream(), reader.include_usage()), (None, None));
    assert_eq!(reader.counts, Counts::default());
    let at = reader.stream_options_at().unwrap();
    assert_eq!(&text[at.start as usize..at.end as usize], b"null");

    let (reader, result) = read(b"{}");
    assert_eq!(
        (result, reader.model(), reader.closed_at()),
        (Ok(()), None, Some(1))
    );
}

#[test]
fn the_model_is_known_before_the_end() {
    let mut reader = ModelReader::new();
    assert_eq!(reader.push(b"{\"model\":\"gpt"), Ok(()));
    assert_eq!(reader.model(), None);
    assert_eq!(reader.push(b"-4o\""), Ok(()));
    assert_eq!(reader.model(), Some("gpt-4o"));
    assert_eq!(reader.finish(), Err(BodyError::Truncated));
}

#[test]
fn refuses_repeats() {
    for second in [
        r#""model":"b""#,
        r#""\u006dodel":"b""#,
        r#""\u006D\u006f\u0064\u0065\u006c":"b""#,
        r#""model":"a""#,
        r#""model":null"#,
        r#""model":["b"]"#,
        r#""MODEL":"b""#,
    ] {
        let text = format!("{{\"model\":\"a\",\"messages\":[],{second}}}");
        refused(text.as_bytes(), BodyError::Repeated(Member::Model));
    }
    for member in Member::ALL {
        let escaped: String = member
            .name()
            .bytes()
            .map(|byte| format!("\\u{byte:04x}"))
            .collect();
        for name in [member.name(), &escaped] {
            let twice = format!("{{\"{}\":null,\"{name}\":null}}", member.name());
            if member != Member::IncludeUsage {
                refused(twice.as_bytes(), BodyError::Repeated(member));
            }
        }
    }
    // Elsewhere, and with other names, it decides nothing.
    for text in [
        r#"{"a":{"model":1,"model":2},"a":3}"#,
        r#"{"include_usage":1,"include_usage":2}"#,
        r#"{"stream_options":{"model":1,"model":2}}"#,
        r#"{"models":1,"mode":2,"":3,"":4}"#,
    ] {
        assert_eq!(read(text.as_bytes()).1, Ok(()), "{text}");
    }
}

/// It decides nothing; readers that take the last one and those that take the first are both asked again.
#[test]
fn include_usage_twice_is_not_said() {
    for (first, second) in [("true", "false"), ("false", "true"), ("true", "true")] {
        let text = format!(
            r#"{{"stream_options":{{"include_usage":{first},"include_us\u0061ge":{second}}},"n":2}}"#
        );
        let (reader, result) = read(text.as_bytes());
        assert_eq!((result, reader.include_usage()), (Ok(()), None), "{text}");
        assert_eq!(reader.count(Member::N), Some(2));
    }
    for odd in [
        r#""include_usage":true,"Include_Usage":false"#,
        r#""INCLUDE_USAGE":true"#,
    ] {
        let (reader, result) = read(format!("{{\"stream_options\":{{{odd}}}}}").as_bytes());
        assert_eq!((result, reader.include_usage()), (Ok(()), None), "{odd}");
    }
}

#[test]
fn prompts_of_a_list_are_counted() {
    for (text, prompts) in [
        (r#"{"prompt":"a"}"#, 0),
        (r#"{"prompt":[]}"#, 0),
        (r#"{"prompt":["a"]}"#, 1),
        (r#"{"Prompt":["a","b"]}"#, 2),
        (r#"{"prompt":["a","b","","\u0063"]}"#, 4),
        (r#"{"prompt":[1,2,3]}"#, 0),
        (r#"{"prompt":[[1,2],[3],[]],"n":2}"#, 3),
        (r#"{"n":2,"best_of":5,"pr\u006fmpt":["a",["b"],"c"]}"#, 3),
        (r#"{"prompt":["a","b"],"x":["c"],"prompt":["d"]}"#, 3),
        (r#"{"prompt":{"id":"x","variables":["a","b"]}}"#, 0),
        (r#"{"prompt":null,"stop":["a","b"]}"#, 0),
        (r#"{"x":{"prompt":["a","b"]}}"#, 0),
        (r#"{"stream_options":{"prompt":["a","b"]}}"#, 0),
    ] {
        let (reader, result) = read(text.as_bytes());
        assert_eq!((result, reader.prompts()), (Ok(()), prompts), "{text}");
    }
}

#[test]
fn data_sources_are_there_when_there_is_one() {
    for (text, there) in [
        (r#"{"data_sources":[{}]}"#, true),
        (r#"{"data_s\u006furces":["a"]}"#, true),
        (r#"{"data_sources":[1]}"#, true),
        (r#"{"Data_Sources":[1]}"#, true),
        (r#"{"data_sources":{"a":1}}"#, true),
        (r#"{"data_sources":[]}"#, false),
        (r#"{"data_sources":null,"a":[{}]}"#, false),
        (r#"{"x":{"data_sources":[{}]}}"#, false),
    ] {
        let (reader, result) = read(text.as_bytes());
        assert_eq!(
            (result, reader.has_data_sources()),
            (Ok(()), there),
            "{text}"
        );
    }
}

#[test]
fn refuses_other_cases() {
    refused(br#"{"Model":"a"}"#, BodyError::OtherCase(Member::Model));
    refused(
        br#"{"\u004dodel":"a","model":"b"}"#,
        BodyError::OtherCase(Member::Model),
    );
    refused(br#"{"STREAM":true}"#, BodyError::OtherCase(Member::Stream));
    // Readers in C see its end at a zero.
    refused(
        br#"{"model\u0000x":"a"}"#,
        BodyError::OtherCase(Member::Model),
    );
    refused(
        br#"{"max_tokens":1,"max_tokens\u0000":9}"#,
        BodyError::Repeated(Member::MaxTokens),
    );
}

#[test]
fn refuses_wrong_types() {
    for (member, values) in [
        (Member::Model, &["1", "true", "[\"a\"]", "{\"a\":1}"][..]),
        (Member::Stream, &["\"true\"", "1", "[]", "{}"]),
        (Member::StreamOptions, &["true", "1", "\"x\"", "[]"]),
        (
            Member::MaxTokens,
            &[
                "\"5\"",
                "-1",
                "1.5",
                "1e-3",
                "true",
                "[]",
                "18446744073709551616",
            ],
        ),
        (Member::MaxCompletionTokens, &["\"5\"", "-0"]),
        (Member::MaxOutputTokens, &["{}"]),
        (Member::N, &["\"2\"", "-2", "2.5"]),
        (Member::BestOf, &["false"]),
    ] {
        for value in values {
            let text = format!("{{\"a\":0,\"{}\":{value},\"b\":0}}", member.name());
            refused(text.as_bytes(), BodyError::WrongType(member));
        }
    }
    let options = br#"{"stream_options":{"include_usage":"true"}}"#;
    refused(options, BodyError::WrongType(Member::IncludeUsage));
}

#[test]
fn refuses_what_is_too_long() {
    let model = |length| format!("{{\"model\":\"{}\"}}", "x".repeat(length));
    assert_eq!(read(model(MAX_MODEL).as_bytes()).1, Ok(()));
    refused(
        model(MAX_MODEL + 1).as_bytes(),
        BodyError::TooLong(Member::Model),
    );
    let number = format!("{{\"n\":{}}}", "1".repeat(MAX_SCALAR + 1));
    refused(number.as_bytes(), BodyError::TooLong(Member::N));
    let options = |length: usize| {
        let filler = "x".repeat(length - r#"{"a":""}"#.len());
        format!(r#"{{"stream_options":{{"a":"{filler}"}}}}"#)
    };
    assert_eq!(read(options(1024).as_bytes()).1, Ok(()));
    refused(
        options(1025).as_bytes(),
        BodyError::TooLong(Member::StreamOptions),
    );
    // A name this long is none of those looked for.
    let name = format!("{{\"{}\":1}}", "model".repeat(1000));
    assert_eq!(read(name.as_bytes()).1, Ok(()));
}

#[test]
fn refuses_what_is_not_an_object() {
    for text in [
        &b"[]"[..],
        b"\"model\"",
        b"1 ",
        b"null",
        b"[{\"model\":\"a\"}]",
    ] {
        refused(text, BodyError::NotAnObject);
    }
    for text in [&b""[..], b"  ", b"{", b"{\"model\":\"a\"", b"{\"a\":[}"] {
        let error = read(text).1.unwrap_err();
        assert!(matches!(error, BodyError::Truncated | BodyError::NotJson));
    }
    refused(b"", BodyError::Truncated);
    refused(b"{\"model\":\"a\"", BodyError::Truncated);
}

#[test]
fn names_may_be_written_with_escapes() {
    for member in Member::ALL {
        let name: String = member
            .name()
            .bytes()
            .map(|byte| format!("\\u{byte:04X}"))
            .collect();
        let wrong = format!("{{\"{name}\":[]}}");
        let text = if member == Member::IncludeUsage {
            format!("{{\"stream_options\":{wrong}}}")
        } else {
            wrong
        };
        refused(text.as_bytes(), BodyError::WrongType(member));
    }
}

#[test]
fn refuses_what_is_not_utf_8() {
    for text in [
        &b"{\"a\":\"\xff\"}"[..],
        b"{\"a\":\"\xc3\"}",
        b"{\"a\":\"\xc3(\"}",
        b"{\"a\":\"\xf0\x9f\x98\"}",
        b"{\"\xc1\xadodel\":\"b\"}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        b"\xff\xfe{\0}\0",
    ] {
        refused(text, BodyError::Encoding);
    }
    // What gzip begins with is no JSON either.
    assert_eq!(
        ModelReader::new().push(b"\x1f\x8b\x08\0"),
        Err(BodyError::Encoding)
    );
}

/// What lenient readers take, and read in other ways.
#[test]
fn refuses_what_is_not_json_to_the_letter() {
    for text in [
        &b"{\"a\":1,}"[..],
        b"{\"a\":[1,]}",
        b"{'model':'a'}",
        b"{model:\"a\"}",
        b"{\"a\":['\"'],\"model\":\"a\"}",
        b"{/*\"*/\"model\":\"a\"}",
        b"{//\n\"model\":\"a\"}",
        b"{\"a\":NaN}",
        b"{\"a\":Infinity}",
        b"{\"a\":undefined}",
        b"{\"a\":0x10}",
        b"{\"a\":01}",
        b"{\"a\":1.}",
        b"{\"a\":.5}",
        b"{\"a\":+1}",
        b"{\"a\":1e}",
        b"{\"a\":-}",
        b"{\"a\":tru}",
        b"{\"a\":nulll}",
        b"{\"a\" \"b\"}",
        b"{\"a\"}",
        b"{\"a\":1 \"b\":2}",
        b"{\"a\":[1 2]}",
        b"{\"a\":[}]}",
        b"{\"a\":{]}}",
        b"{\"a\":1]",
        b"{,}",
        b"{\"a\":1}}",
        b"{\"a\":1}{\"model\":\"b\"}",
        b"{\"a\":1},",
        b"{\"a\":\"\n\"}",
        b"{\"a\":\"\0\"}",
        b"{\"a\":\"\\x\"}",
        b"{\"a\":\"\\u00g0\"}",
        b"{\"\\ud800\":1}",
        b"{\"model\":\"\\udc00\"}",
        b"{\0}\0",
    ] {
        refused(text, BodyError::NotJson);
    }
}

#[test]
fn takes_all_of_json() {
    for text in [
        r#"{"a":[0,-0,1,-1.5,1e5,1E+5,1.25e-7,true,false,null,[],{},[[]],{"b":{}}]}"#,
        r#"{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 é 😀"}"#,
        "\t{\r\n\"a\" : [ 1 , 2 ] , \"b\" : { } }\n",
        // A lone surrogate in text that nobody here reads, as JavaScript writes it.
        r#"{"a":"\ud800"}"#,
    ] {
        assert_eq!(read(text.as_bytes()).1, Ok(()), "{text}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| {
        let (open, shut) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!("{{\"a\":{open}{shut},\"model\":\"m\"}}")
    };
    let (reader, result) = read(nested(128).as_bytes());
    assert_eq!((result, reader.model()), (Ok(()), Some("m")));
    refused(nested(129).as_bytes(), BodyError::TooDeep);
    let mut reader = ModelReader::new();
    let deep = "{\"a\":".repeat(100_000);
    assert_eq!(reader.push(deep.as_bytes()), Err(BodyError::TooDeep));
}

#[test]
fn once_refused_stays_refused() {
    let mut reader = ModelReader::new();
    assert_eq!(reader.push(b"{]"), Err(BodyError::NotJson));
    assert_eq!(reader.push(b"{\"model\":\"a\"}"), Err(BodyError::NotJson));
    assert_eq!(reader.finish(), Err(BodyError::NotJson));
    assert_eq!((reader.model(), reader.scanned()), (None, 2));
}

#[test]
fn l6_a_byte_order_mark_is_skipped() {
    let text = "\u{feff} {\"model\":\"a\",\"stream_options\":{}}";
    let (reader, result) = read(text.as_bytes());
    assert_eq!((result, reader.model()), (Ok(()), Some("a")));
    let at = reader.stream_options_at().unwrap();
    assert_eq!(&text.as_bytes()[at.start as usize..at.end as usize], b"{}");
    assert_eq!(reader.closed_at(), Some(text.len() as u64 - 1));
    for text in [
        "\u{feff}\u{feff}{}",
        " \u{feff}{}",
        "{\u{feff}}",
        "{}\u{feff}",
        "\u{fefe}{}",
    ] {
        refused(text.as_bytes(), BodyError::NotJson);
    }
    refused(b"\xef\xbb", BodyError::Truncated);
    refused("\u{feff}".as_bytes(), BodyError::Truncated);
}
