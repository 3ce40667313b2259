//! Texts in Nix's language.

use std::fmt;

/// A text, displayed as a string of Nix's language (Nix's manual, "String literal").
#[derive(Debug, Clone, Copy)]
pub struct NixString<'a>(pub &'a str);

impl fmt::Display for NixString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = self.0.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
        write!(f, "\"{escaped}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_end_the_string_it_stands_in() {
        assert_eq!(NixString(r#"a"${b}\"#).to_string(), r#""a\"\${b}\\""#);
    }
}
