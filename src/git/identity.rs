//! Who makes a commit, as git records it. It is no proof of anything: a signature is.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::model::{Invalid, is_printable};
use crate::process::Invocation;

/// The most bytes of a name or of a mail address.
const MAX_BYTES: usize = 256;
/// What git cuts off at the ends of a name and of an address, so that neither may begin or end with it.
const CUT_BY_GIT: [char; 8] = ['.', ',', ':', ';', '"', '\\', '\'', ' '];
/// How long git may take to say who somebody is.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes that git may say.
const MAX_OUTPUT: usize = 4096;

/// A person or a program with a mail address: `Clavel Bot <bot@example.org>`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Identity {
    name: String,
    email: String,
}

/// Who wrote a change, and who made the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorship {
    /// The author.
    pub author: Identity,
    /// The committer.
    pub committer: Identity,
}

impl Identity {
    /// One of Clavel's programs, at an address that nobody can have. `at` tells it from others of its kind.
    pub fn of_program(name: &'static str, at: &str) -> Self {
        // The name of a key may have these, and git does not take them.
        let at: String = at.chars().filter(|c| !matches!(c, '<' | '>')).collect();
        Self { name: name.to_owned(), email: format!("{at}@clavel.invalid") }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mail address.
    pub fn email(&self) -> &str {
        &self.email
    }
}

impl Authorship {
    /// One identity for both.
    pub fn of(identity: Identity) -> Self {
        Self { author: identity.clone(), committer: identity }
    }

    /// `committer` makes the commit for `author`, where git knows one.
    pub fn for_person(author: Option<Identity>, committer: Identity) -> Self {
        Self { author: author.unwrap_or_else(|| committer.clone()), committer }
    }
}

/// The person who runs this process, as git knows it: by `GIT_AUTHOR_NAME` and `GIT_AUTHOR_EMAIL`, or by `user.name` and
/// `user.email` of its configuration. `None` where it knows none, so that nobody is named by a guess.
pub async fn git_author() -> Option<Identity> {
    let git = Invocation::new("git")
        // Without it, git makes an address of the user and the machine.
        .args(["-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT"])
        .outside_any_repository()
        .within(DEADLINE)
        .at_most(MAX_OUTPUT);
    let output = match git.run().await {
        Ok(output) => output,
        Err(error) => {
            tracing::debug!(%error, "git knows no author");
            return None;
        }
    };
    match parse_ident(&output.stdout) {
        Ok(author) => Some(author),
        Err(error) => {
            tracing::warn!(%error, "the author that git names cannot be used, so the commit names none");
            None
        }
    }
}

/// Parses what `git var` prints: the identity, then the time.
fn parse_ident(bytes: &[u8]) -> Result<Identity, Invalid> {
    let text = String::from_utf8_lossy(bytes);
    let end = text.rfind('>').map_or(text.len(), |at| at + 1);
    text[..end].parse()
}

fn check(part: &str, what: &str) -> Result<(), String> {
    if part.is_empty() || part.len() > MAX_BYTES {
        return Err(format!("the {what} has to be 1 to {MAX_BYTES} bytes long"));
    }
    if let Some(c) = part.chars().find(|c| !is_printable(*c) || matches!(c, '<' | '>')) {
        return Err(format!("the {what} contains {c:?}"));
    }
    if part.starts_with(CUT_BY_GIT) || part.ends_with(CUT_BY_GIT) {
        return Err(format!("the {what} begins or ends with a space or a mark, which git would cut off"));
    }
    Ok(())
}

impl FromStr for Identity {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |why: String| Invalid::new("an author", text, why);
        let split = text.strip_suffix('>').and_then(|text| text.split_once(" <"));
        let (name, email) = split.ok_or_else(|| bad("it has to read like Clavel Bot <bot@example.org>".to_owned()))?;
        check(name, "name").map_err(bad)?;
        check(email, "mail address").map_err(bad)?;
        if email.contains(' ') {
            return Err(bad("the mail address contains a space".to_owned()));
        }
        Ok(Self { name: name.to_owned(), email: email.to_owned() })
    }
}

impl TryFrom<String> for Identity {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <{}>", self.name, self.email)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_one_text_that_git_keeps_as_it_is() {
        let long = "x".repeat(MAX_BYTES);
        let most = format!("{long} <{long}>");
        for good in ["Clavel Bot <bot@example.org>", "Ada O'Neil, née X <a@b>", "é <root>", &most] {
            assert_eq!(good.parse::<Identity>().unwrap().to_string(), good);
        }
        let long = format!("{long}x <a@b>");
        for bad in [
            "",
            "Ada",
            "a@b",
            "<a@b>",
            " <a@b>",
            "Ada <>",
            "Ada<a@b>",
            "Ada <a@b",
            "Ada <a@b> ",
            "Ada <a@b>>",
            "Ada <<a@b>",
            "A<da <a@b>",
            "A>da <a@b>",
            "Ada\n <a@b>",
            "Ada <a@b\n>",
            "A\nparent x <a@b>",
            "A\0 <a@b>",
            "Ada <a\0@b>",
            "A\u{202e}da <a@b>",
            "Ada  <a@b>",
            " Ada <a@b>",
            "Ada. <a@b>",
            "Ada <a b>",
            "Ada <,a@b>",
            &long,
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_program_has_an_address_whatever_its_key_is_called() {
        let of = |at: &str| Identity::of_program("claveld", at).to_string();
        assert_eq!(of("claveld-1"), "claveld <claveld-1@clavel.invalid>");
        assert_eq!(of("a<b>\u{21}"), "claveld <ab!@clavel.invalid>");
    }

    #[test]
    fn what_git_says_is_parsed_without_its_time() {
        let ada: Identity = "Ada <ada@example.org>".parse().unwrap();
        assert_eq!(parse_ident(b"Ada <ada@example.org> 1767225600 +0100\n"), Ok(ada));
        assert!(parse_ident(b"").is_err() && parse_ident(b"\xff <> 0 +0000").is_err());
    }
}
