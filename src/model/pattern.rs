//! Patterns that match names.

use wildmatch::WildMatch;

use super::Name;
use super::text::validated_text;

const MAX_LENGTH: usize = 256;

validated_text! {
    /// A pattern that matches names. `*` stands for any characters or none, and `?` for one.
    Pattern, what: "a pattern", check: check, pattern: r"^[^\u0000-\u001f\u007f-\u009f]{1,256}$"
}

impl Pattern {
    /// Whether the pattern matches the whole `text`.
    pub fn matches(&self, text: &str) -> bool {
        WildMatch::new(self.as_str()).matches(text)
    }

    /// Whether it matches more than one name.
    pub fn is_wild(&self) -> bool {
        self.as_str().contains(['*', '?'])
    }

    /// Whether the pattern matches the whole `name`, without regard to case: two names that differ in case alone are equal.
    pub fn matches_folded(&self, name: &Name) -> bool {
        WildMatch::new_case_insensitive(self.as_str()).matches(name.as_str())
    }
}

fn check(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_LENGTH {
        return Err(format!("it has to be 1 to {MAX_LENGTH} bytes long"));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("it contains the control character {c:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_text() {
        let matches = |pattern: &str, text| pattern.parse::<Pattern>().unwrap().matches(text);
        for (pattern, text) in [("web-*", "web-1"), ("web-*", "web-"), ("web-?", "web-1"), ("*", ""), ("a.b", "a.b")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("web-*", "my-web-1"), ("web-?", "web-"), ("web-?", "web-10"), ("web", "WEB")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn matches_folded_ignores_case() {
        let matches = |pattern: &str, name: &str| {
            pattern.parse::<Pattern>().unwrap().matches_folded(&name.parse::<Name>().unwrap())
        };
        assert!(matches("db-*", "DB-1") && matches("Db-?", "dB-1") && matches("db-1", "db-1"));
        assert!(!matches("db-*", "web-1"));
    }

    #[test]
    fn bad_patterns_say_why() {
        for (bad, why) in [("", "1 to 256"), (&*"x".repeat(257), "1 to 256"), ("a\nb", "control")] {
            let error = bad.parse::<Pattern>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
