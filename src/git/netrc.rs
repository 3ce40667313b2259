//! Finds the login for a host in the text of a netrc file (`netrc(5)`, as curl reads it), and writes one entry.

use super::login::Login;

/// The login for `host`, of `user` where one is named. An entry `default` is for every host.
pub(super) fn find(text: &str, host: &str, user: Option<&str>) -> Option<Login> {
    entries(text).into_iter().find_map(|entry| {
        let is_host = entry.machine.as_deref().is_none_or(|machine| machine.eq_ignore_ascii_case(host));
        let login = entry.login.filter(|login| user.is_none_or(|user| login == user));
        Some(Login { user: login.filter(|_| is_host)?, password: entry.password? })
    })
}

/// The text of a netrc file with one entry. `None` where the file could not say it.
pub(super) fn entry(host: &str, login: &Login) -> Option<String> {
    let word =
        |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    let are_words = [host, &login.user, &login.password].iter().all(|text| word(text));
    are_words.then(|| format!("machine {host} login {} password {}\n", login.user, login.password))
}

#[derive(Default)]
struct Entry {
    /// `None` for the entry `default`.
    machine: Option<String>,
    login: Option<String>,
    password: Option<String>,
}

fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut words = words(line).into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "machine" => entries.push(Entry { machine: words.next(), ..Entry::default() }),
                "default" => entries.push(Entry::default()),
                "macdef" => {
                    // A macro ends with an empty line.
                    lines.by_ref().find(|line| line.trim().is_empty());
                    break;
                }
                key => {
                    let Some(entry) = entries.last_mut() else { continue };
                    match key {
                        "login" => entry.login = words.next(),
                        "password" => entry.password = words.next(),
                        "account" => drop(words.next()),
                        _ => {}
                    }
                }
            }
        }
    }
    entries
}

/// The words of a line; one in quotation marks may have spaces. A word that begins with `#`, where a key is expected, begins a comment,
/// but a password may begin so too: only a whole line is left out.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), line.trim());
    if rest.starts_with('#') {
        return words;
    }
    while !rest.is_empty() {
        let (word, after) = rest.strip_prefix('"').map_or_else(|| plain_word(rest), quoted_word);
        words.push(word);
        rest = after.trim_start();
    }
    words
}

/// The word that the text begins with, and what follows it.
fn plain_word(text: &str) -> (String, &str) {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (text[..end].to_owned(), &text[end..])
}

/// The same for a word behind its first quotation mark.
fn quoted_word(text: &str) -> (String, &str) {
    let (mut word, mut is_escaped) = (String::new(), false);
    for (at, character) in text.char_indices() {
        match character {
            '\\' if !is_escaped => is_escaped = true,
            '"' if !is_escaped => return (word, &text[at + 1..]),
            _ => {
                word.push(character);
                is_escaped = false;
            }
        }
    }
    (word, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_for_the_host_counts() {
        let text = "# machine git.example.org login no password no\n\
                    macdef init\nmachine git.example.org login no password no\n\n\
                    machine other.example.org login o password p\n\
                    machine git.example.org\n  login a\n  account x\n  password \"s3 \\\"cret\"\n\
                    machine git.example.org login b password #2\n\
                    default login d password q\n";
        let found = |host: &str, user| find(text, host, user).map(|login| (login.user, login.password));
        let is = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(found("git.example.org", None), is("a", "s3 \"cret"));
        assert_eq!(found("GIT.example.org", Some("b")), is("b", "#2"));
        assert_eq!(found("else.example.org", None), is("d", "q"));
        assert_eq!(found("else.example.org", Some("z")), None);
        assert_eq!(find("machine", "x", None), None);
        assert_eq!(find("login a password b", "x", None), None);
    }

    #[test]
    fn an_entry_is_read_as_it_is_written() {
        let login = Login { user: "me".to_owned(), password: "s3cret".to_owned() };
        assert_eq!(find(&entry("h", &login).unwrap(), "h", None), Some(login));
        for password in ["", "a b", "a\nmachine x", "\"a"] {
            let login = Login { user: "me".to_owned(), password: password.to_owned() };
            assert_eq!(entry("h", &login), None);
        }
    }
}
