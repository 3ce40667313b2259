//! The text of an error with its sources. An error says its own part of a failure and keeps the rest as its source, so whoever
//! makes a text for a person, a record or a log calls [`describe_error`]. It is in this room because most other rooms may use
//! this one.

use std::error::Error;

/// An error and its sources, from the outermost to the innermost. A source whose text the
/// errors above it end with already is said once, such as that of a transparent wrapper.
pub fn describe_error(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut above = error;
    while let Some(source) = above.source() {
        let part = source.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        above = source;
    }
    text
}

#[cfg(test)]
mod tests {
    use Sample::{Act, Reason, SaysItself, Wrapped};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("cannot {0}")]
        Act(&'static str, #[source] Box<Sample>),
        #[error(transparent)]
        Wrapped(Box<Sample>),
        #[error("the disk is full")]
        Reason,
        #[error("cannot write: the disk is full")]
        SaysItself(#[source] Box<Sample>),
    }

    #[test]
    fn every_source_is_said() {
        assert_eq!(describe_error(&Reason), "the disk is full");
        let error = Act("publish", Act("write the index", Reason.into()).into());
        assert_eq!(describe_error(&error), "cannot publish: cannot write the index: the disk is full");
    }

    #[test]
    fn a_wrapper_and_what_it_wraps_are_said_once() {
        let error = Wrapped(Wrapped(Act("publish", Wrapped(Reason.into()).into()).into()).into());
        assert_eq!(describe_error(&error), "cannot publish: the disk is full");
        assert_eq!(describe_error(&SaysItself(Reason.into())), "cannot write: the disk is full");
        let error = std::io::Error::other(Act("publish", Reason.into()));
        assert_eq!(describe_error(&error), "cannot publish: the disk is full");
    }
}
