//! The traces in which a process tells names and values, while it goes on. No I/O.

use super::outputs::{Item, ItemAnswer, Names};
use super::warnings::WarningText;

/// What a process says while it goes on.
#[derive(Debug)]
pub(super) enum ProcessWord {
    /// A trace of Clavel's own, without its mark.
    Trace(String),
    /// A warning of the flake, in what was evaluated since the last trace.
    Warning(WarningText),
}

/// What one trace tells.
#[derive(Debug)]
pub(super) enum Telling {
    /// The names of everything that was asked for.
    Names(Names),
    /// The evaluation of this item begins.
    Begun(Item),
    /// The evaluation of a run of items begins with this one. They are told in groups.
    BegunRun(Item),
    /// The answers for the next items, in their order.
    Answers(Vec<ItemAnswer>),
}

/// Reads `trace`; none where it is a trace of `call.nix`, which says what the flake uses.
pub(super) fn read_trace(trace: &str) -> Result<Option<Telling>, serde_json::Error> {
    let Some((word, value)) = trace.split_once(' ') else { return Ok(None) };
    Ok(Some(match word {
        "names" => Telling::Names(serde_json::from_str(value)?),
        "begin" => Telling::Begun(serde_json::from_str(value)?),
        "group" => Telling::BegunRun(serde_json::from_str(value)?),
        "answers" => Telling::Answers(serde_json::from_str(value)?),
        "values" => Telling::Answers(serde_json::from_str::<Vec<_>>(value)?.into_iter().map(ItemAnswer::Ok).collect()),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::outputs::FlakeOutput;
    use super::*;

    #[test]
    fn what_a_trace_tells_is_told_apart_from_what_the_flake_uses() {
        assert!(
            matches!(read_trace(r#"begin ["units","a b"]"#), Ok(Some(Telling::Begun(item))) if item == FlakeOutput::Units.item("a b"))
        );
        assert!(matches!(read_trace(r#"group ["units","a"]"#), Ok(Some(Telling::BegunRun(_)))));
        let Ok(Some(Telling::Answers(answers))) = read_trace(r#"answers [{"ok":{"type":"nixos"}},{"failed":true}]"#)
        else {
            panic!("these are answers");
        };
        assert!(matches!(answers[..], [ItemAnswer::Ok(_), ItemAnswer::Failed(_)]));
        assert!(
            matches!(read_trace(r#"values [{"type":"nixos"}]"#), Ok(Some(Telling::Answers(answers))) if answers.len() == 1)
        );
        assert!(matches!(read_trace(r#"names {"kinds":{},"others":[]}"#), Ok(Some(Telling::Names(_)))));
        for of_call in [r#"own "rev""#, r#"input "lib""#, "odd"] {
            assert!(matches!(read_trace(of_call), Ok(None)), "{of_call}");
        }
        assert!(read_trace("begin x").is_err());
    }
}
