//! The names of deployments, agents and units.

use super::text::validated_text;

const MAX_LENGTH: usize = 128;

validated_text! {
    /// The name of a Deployment, an Agent or a Unit: 1 to 128 of `A-Z a-z 0-9 . _ - @`, not beginning with `.` or `-`.
    ///
    /// Names are unique without regard to case, since they are file names on the branch, and some file systems ignore case.
    /// Compare [`Name::folded`] to find equal names.
    Name, what: "a name", check: check, pattern: "^[A-Za-z0-9_@][A-Za-z0-9._@-]{0,127}$"
}

impl Name {
    /// The form in which two names that differ in case alone are equal.
    pub fn folded(&self) -> String {
        self.as_str().to_ascii_lowercase()
    }
}

fn check(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_LENGTH {
        return Err(format!("it has to be 1 to {MAX_LENGTH} characters long"));
    }
    if text.starts_with(['.', '-']) {
        return Err("it may not begin with `.` or `-`".to_owned());
    }
    match text.chars().find(|&c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@'))) {
        Some(c) => Err(format!("it contains {c:?}, and only A-Z a-z 0-9 . _ - @ are allowed")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn valid_names_are_accepted() {
        for good in ["web-1", "a", "A.b_c@d-9", "@home", "_", &"x".repeat(128)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
    }

    #[test]
    fn an_invalid_name_is_refused_with_the_reason() {
        for (bad, why) in [
            ("", "1 to 128"),
            (".hidden", "begin"),
            ("-rf", "begin"),
            ("a/b", "'/'"),
            ("a b", "' '"),
            ("wéb", "'é'"),
            ("a\0", "'\\0'"),
        ] {
            let error = bad.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!("x".repeat(129).parse::<Name>().is_err());
    }

    proptest! {
        #[test]
        fn json_has_the_same_rule_as_from_str(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<Name>(&json).ok(), text.parse().ok());
        }
    }
}
