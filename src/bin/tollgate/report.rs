//! What is said about a place in a file: problem, line with a caret, cure.

use std::io::{self, Write};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::json;

use crate::failure::Failure;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// It does not work so.
    Error,
    /// It works, and is probably not meant.
    Warning,
    /// Good to know.
    Note,
}

/// Something to say about a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// What is wrong.
    pub(crate) problem: String,
    /// What would be right; may be empty.
    pub(crate) remedy: String,
    /// Bytes of the text.
    pub(crate) span: Range<usize>,
}

/// A text that findings are about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }

    fn level(self) -> Level<'static> {
        match self {
            Self::Error => Level::ERROR,
            Self::Warning => Level::WARNING,
            Self::Note => Level::NOTE,
        }
    }
}

/// Writes findings for people.
pub(crate) fn findings(text: Text<'_>, findings: &[Finding], to: &mut dyn Write) -> io::Result<()> {
    let renderer = Renderer::styled();
    for finding in findings {
        let excerpt = Excerpt::new(text.text, &finding.span);
        let title = finding.severity.level();
        let title = title.primary_title(finding.problem.as_str());
        let mut snippet = Snippet::source(excerpt.text)
            .line_start(excerpt.line)
            .annotation(AnnotationKind::Primary.span(excerpt.span));
        let mut group = Group::with_title(title);
        if excerpt.is_cut {
            // The columns of a piece are not those of the file.
            let origin = Origin::path(text.name).line(excerpt.line);
            group = group.element(origin.char_column(excerpt.column));
        } else {
            snippet = snippet.path(text.name);
        }
        group = group.element(snippet);
        if !finding.remedy.is_empty() {
            group = group.element(Level::HELP.message(finding.remedy.as_str()));
        }
        writeln!(to, "{}\n", renderer.render(&[group]))?;
    }
    Ok(())
}

/// The line of a finding, or a piece of it where the line is long: a generated policy may be one line
/// of megabytes.
struct Excerpt<'a> {
    text: &'a str,
    /// The finding, in the excerpt.
    span: Range<usize>,
    /// Where it begins in the file, both from 1; columns count characters.
    line: usize,
    column: usize,
    /// It does not begin where the line does.
    is_cut: bool,
}

impl<'a> Excerpt<'a> {
    /// Bytes shown before a finding, and from its begin on.
    const BEFORE: usize = 120;
    const AFTER: usize = 400;

    fn new(text: &'a str, span: &Range<usize>) -> Self {
        let span = clamp(span, text);
        let (line, column) = position(text, span.start);
        let before = text.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |end| end.saturating_add(1));
        let after = text.get(span.start..).unwrap_or_default();
        let length = after.find('\n').unwrap_or(after.len());
        let line_end = span.start.saturating_add(length);
        let start = floor(
            text,
            line_start.max(span.start.saturating_sub(Self::BEFORE)),
        );
        let end = floor(text, line_end.min(span.start.saturating_add(Self::AFTER)));
        let shift = |at: usize| at.min(end).saturating_sub(start);
        Self {
            text: text.get(start..end).unwrap_or_default(),
            span: shift(span.start)..shift(span.end),
            line,
            column,
            is_cut: start > line_start,
        }
    }
}

/// Findings for machines.
pub(crate) fn as_json(text: Text<'_>, findings: &[Finding]) -> serde_json::Value {
    let list = findings.iter().map(|finding| {
        let (line, column) = position(text.text, finding.span.start);
        json!({
            "file": text.name, "line": line, "column": column, "severity": finding.severity.name(),
            "problem": finding.problem, "remedy": finding.remedy,
        })
    });
    list.collect()
}

/// Why a command could not do its work.
pub(crate) fn failure(failure: &Failure, to: &mut dyn Write) -> io::Result<()> {
    let message = failure.to_string();
    let mut group = Group::with_title(Level::ERROR.primary_title(message.as_str()));
    if let Some(remedy) = failure.remedy() {
        group = group.element(Level::HELP.message(remedy));
    }
    writeln!(to, "{}", Renderer::styled().render(&[group]))
}

/// Line and column of a byte, both from 1; columns count characters.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count().saturating_add(1);
    let start = before.rfind('\n').map_or(0, |end| end.saturating_add(1));
    let column = before.get(start..).unwrap_or_default().chars().count();
    (line, column.saturating_add(1))
}

/// A span on whole characters, within one line: the first.
fn clamp(span: &Range<usize>, text: &str) -> Range<usize> {
    let (start, end) = (floor(text, span.start), floor(text, span.end));
    let first = text.get(start..end).unwrap_or_default();
    let width = first.find('\n').unwrap_or(first.len());
    start..start.saturating_add(width)
}

/// The begin of the character at a byte.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at = at.saturating_sub(1);
    }
    at
}
