//! `usage`: how it is learned what calls use.

use super::reader::{Members, Node, Read, Shape};
use super::{App, Apps, Measure, StreamOptions, UsageReading};
use crate::body::DEFAULT_IMAGE_TOKENS;

/// Most tokens that a picture or a file can be held as: the context of the largest models.
const MAX_IMAGE_TOKENS: u64 = 1_000_000;

static USAGE: Shape = Shape {
    example: r#"{"stream_options": "inject"}"#,
    keys: &["read", "stream_options", "image_tokens"],
    refused: &[],
};

const CHOICES: [(&str, StreamOptions); 2] = [
    ("keep", StreamOptions::Keep),
    ("inject", StreamOptions::Inject),
];

/// Reads `usage`, which limits on tokens need.
pub(super) fn usage(policy: &Members<'_>, apps: &Read<Apps>) -> Read<UsageReading> {
    let defaults = UsageReading {
        read: true,
        stream_options: StreamOptions::Keep,
        image_tokens: DEFAULT_IMAGE_TOKENS,
    };
    policy.or("usage", defaults, |node| {
        let members = node.members(&USAGE)?;
        let read = members.or("read", defaults.read, |node| {
            let read = node.boolean()?;
            match apps {
                Ok(apps) if !read && limit_tokens(apps) => Err(needed(node)),
                _ => Ok(read),
            }
        });
        let stream_options = members.or("stream_options", defaults.stream_options, |node| {
            node.choice(&CHOICES)
        });
        let image_tokens = members.or("image_tokens", defaults.image_tokens, |node| {
            node.integer(1..=MAX_IMAGE_TOKENS)
        });
        let usage = UsageReading {
            read: read?,
            stream_options: stream_options?,
            image_tokens: image_tokens?,
        };
        if !usage.read && usage.stream_options == StreamOptions::Inject {
            let remedy = "leave one of the two out";
            return Err(node.note("asks for usage that is not read", remedy));
        }
        Ok(usage)
    })
}

fn needed(node: &Node<'_>) -> super::reader::Noted {
    node.note(
        "limits on tokens need usage",
        "leave it out, or the limits on tokens",
    )
}

fn limit_tokens(apps: &Apps) -> bool {
    let limits = |app: &App| {
        app.limits
            .iter()
            .any(|limit| limit.measure != Measure::Calls)
    };
    limits(&apps.default_app) || apps.listed.iter().any(limits)
}
