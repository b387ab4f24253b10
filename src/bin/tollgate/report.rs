//! What is said about a place in a file: problem, line with a caret, cure.

use std::io::{self, Write};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
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
        let span = clamp(&finding.span, text.text);
        let snippet = Snippet::source(text.text)
            .path(text.name)
            .annotation(AnnotationKind::Primary.span(span));
        let mut group = finding
            .severity
            .level()
            .primary_title(finding.problem.as_str())
            .element(snippet);
        if !finding.remedy.is_empty() {
            group = group.element(Level::HELP.message(finding.remedy.as_str()));
        }
        writeln!(to, "{}\n", renderer.render(&[group]))?;
    }
    Ok(())
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

/// A span on whole characters, at least one wide where there is one.
fn clamp(span: &Range<usize>, text: &str) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at = at.saturating_sub(1);
        }
        at
    };
    let (start, end) = (floor(span.start), floor(span.end));
    // One line is enough: the first.
    let first = text.get(start..end).unwrap_or_default();
    let width = first.find('\n').unwrap_or(first.len());
    start..start.saturating_add(width)
}
