//! `caps`: what the requests of an application may ask for.

use super::Caps;
use super::reader::{Members, Node, Read, Shape};

static CAPS: Shape = Shape {
    example: r#"{"content_filter_override": true}"#,
    keys: &["content_filter_override"],
    refused: &[],
};

pub(super) fn caps(entry: &Members<'_>) -> Read<Caps> {
    entry.or("caps", Caps::default(), read)
}

fn read(node: &Node<'_>) -> Read<Caps> {
    let members = node.members(&CAPS)?;
    let filter = members.or("content_filter_override", false, |node| node.boolean());
    Ok(Caps {
        content_filter_override: filter?,
    })
}
