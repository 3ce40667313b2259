//! The commands of docs/runbooks.md, and what they print there.

use std::path::Path;

/// A step of a runbook.
#[derive(Debug)]
pub(crate) enum Step {
    /// Commands, for a shell.
    Do(String),
    /// Commands for a machine that runs systemd.
    DoOnSystemd(String),
    /// The lines that the commands print, with `…` for parts that differ each time.
    See(String),
}

/// The fenced blocks of docs/runbooks.md that are marked with the name of that runbook, in their order.
pub(crate) fn steps(runbook: &str) -> Vec<Step> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks.md")).unwrap();
    let (mut steps, mut open) = (Vec::new(), None::<(fn(String) -> Step, String)>);
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(fence), None) => open = kind(fence, runbook).map(|kind| (kind, String::new())),
            (Some(_), Some((kind, block))) => {
                steps.push(kind(std::mem::take(block)));
                open = None;
            }
            (None, Some((_, block))) => block.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    steps
}

/// The kind of step that a block is which begins with this fence; `None` where it is of no runbook or of another one.
fn kind(fence: &str, runbook: &str) -> Option<fn(String) -> Step> {
    let (kind, of) = fence.split_once(" runbook=")?;
    let (of, on) = of.split_once(" on=").unwrap_or((of, ""));
    match (kind, on) {
        _ if of != runbook => None,
        ("sh", "") => Some(Step::Do),
        ("sh", "systemd") => Some(Step::DoOnSystemd),
        ("text", "") => Some(Step::See),
        _ => panic!("docs/runbooks.md has a block that is neither commands nor what they print: {fence}"),
    }
}

/// Whether `line` matches the line `seen` of a runbook.
pub(crate) fn is_seen(line: &str, seen: &str) -> bool {
    let mut rest = line;
    seen.split('…').all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}
